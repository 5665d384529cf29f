"""A model on this machine that answers chats, by the folder it is in."""

from pathlib import Path
from typing import Any

from mmjax.cli.evaluate import load_model
from mmjax.cli.generate import for_generation, require_turns
from mmjax.cli.released import config_of, language_model_of
from mmjax.cli.whole_run import config_of as run_config
from mmjax.convert.read import read_json
from mmjax.evaluation.local import Local
from mmjax.lms import LMS


def load_local(
  folder: str | Path,
  *,
  template: str | None = None,
  batch_size: int = 8,
  seed: int = 0,
) -> Local:
  """The model of a run, or one that `mmjax convert SRC folder --to jax` wrote.

  Args:
    folder: with a config.json.
    template: of chats; None is the run's own, vicuna_v1 for a LLaVA, and for
      a language model llava_v0, which is plain text.
    batch_size: chats that are answered at once.
    seed: of sampling.

  Raises:
    ValueError: for any other folder, or a model that answers no chats.
  """
  config = _config(Path(folder), {"template": template} if template else {})
  require_turns(config)
  fields = {"batch_size": batch_size, "seed": seed}
  return Local(load_model(config, folder, fields))


def _config(folder: Path, wording: dict[str, Any]) -> dict[str, Any]:
  path = folder / "config.json"
  config = read_json(path) if path.is_file() else {}
  if "system" in config:
    return for_generation(run_config(folder), wording)
  if config.get("family") in LMS and "model" in config:
    return language_model_of(folder, **wording)
  return config_of(folder, **wording)
