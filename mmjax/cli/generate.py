"""`mmjax generate`: a model, pictures and text in, its answer out."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.cli.evaluate import load_model
from mmjax.config import require
from mmjax.data import build as data
from mmjax.data.document import Document, File, Media, Text
from mmjax.data.fields import text_of
from mmjax.text.prompts.base import merged

log = logging.getLogger(__name__)

# Kinds of parts of a prompt.
TEXT, MEDIA = "text", ("image", "video")


def generate(
  config: Mapping[str, Any],
  workdir: str | Path,
  parts: Sequence[tuple[str, str]],
  wording: Mapping[str, Any] | None = None,
  **fields: Any,
) -> str:
  """What a run's newest checkpoint says after a prompt.

  Args:
    config: of the run. Its `generate` says what differs from training:
      `model` and `init` in place of those parts, and in `data` what differs
      from the first dataset (`transforms`, `prompt`, ...).
    workdir: of the run.
    parts: of the prompt in their order: ("text", TEXT), ("image", FILE) or
      ("video", FILE).
    wording: what differs from the run's prompt (`system`, `length`, ...).
    **fields: of evaluation.model.Model (`max_new_tokens`, `num_beams`, ...).

  Raises:
    ValueError: for a prompt that does not fit, or a file that is no picture.
  """
  document = prompt(parts)
  config = for_generation(config, wording)
  own = {"batch_size": 1, "overflow": "error"}
  model = load_model(config, workdir, own | fields)
  # As the prompt joins texts; between media they are apart.
  texts = [x[0] for x in merged(document, MEDIA) if isinstance(x, tuple)]
  words = [w for text in texts for w in model.tokenizer.unknown(text)]
  if words:
    log.warning(
      "The run's vocabulary does not have %s.", list(dict.fromkeys(words))
    )
  return model.generate([document])[0]


def prompt(parts: Sequence[tuple[str, str]]) -> Document:
  """The document that a command line's parts describe."""
  segments: list[Text | Media] = []
  for kind, value in parts:
    if kind == TEXT:
      segments.append(Text(text_of(value, "The prompt")))
    elif kind in MEDIA:
      if not Path(value).is_file():
        raise ValueError(f"There is no {kind} file {value!r}.")
      segments.append(Media(kind, File(value), value))
    else:
      raise ValueError(f"A part is 'text', 'image' or 'video', not {kind!r}.")
  if not segments:
    raise ValueError("The prompt is empty: give --image FILE, --prompt TEXT.")
  return Document(tuple(segments), id="prompt")


def for_generation(
  config: Mapping[str, Any], wording: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """A run's config with the changes that its `generate` asks for.

  Args:
    config: of the run.
    wording: further changes, to the prompt.
  """
  config = data.plain(config)
  require(config, ("model", "data"))
  changes = config.pop("generate", {})
  unknown = changes.keys() - {"model", "init", "data"}
  if unknown:
    raise ValueError(f"config.generate takes no {sorted(unknown)}.")
  config["model"] = config["model"] | changes.get("model", {})
  config["init"] = config.get("init", {}) | changes.get("init", {})
  name, first = next(iter(config["data"]["datasets"].items()))
  own = dict(changes.get("data", {}))
  written = first["prompt"] | own.pop("prompt", {}) | dict(wording or {})
  datasets = {name: first | own | {"prompt": written}}
  config["data"] = config["data"] | {"datasets": datasets}
  return config
