"""All parameters of a run: what trained, and what stayed frozen beside it."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.cli.configs import load
from mmjax.cli.writing import take_along
from mmjax.config import call
from mmjax.data import build as data
from mmjax.layers.linear import Lora, merge_lora
from mmjax.training.sources import load_parts
from mmjax.training.state import abstract_params

log = logging.getLogger(__name__)

# Settings of a language model that say how it is run, not what it is.
_RUNNING = ("attention", "embed_std", "extra_tokens", "lora", "name", "remat")


def config_of(run: Path) -> dict[str, Any]:
  """A run's own config, of plain dicts."""
  return data.plain(load(run / "config.json"))


def trained_by(run: Path) -> dict[str, Any]:
  """The arrays of its newest checkpoint, by path."""
  return tree.flatten(load_trainable(run / "checkpoints"))


def language_model(lm: Mapping[str, Any]) -> dict[str, Any]:
  """Settings of a run's language model, as `mmjax convert` has them.

  Raises:
    ValueError: for one with new tokens in a table of their own.
  """
  if lm.get("extra_tokens"):
    raise ValueError(
      "New tokens in a table of their own have no place in Hugging Face's "
      "models: raise config.model.lm.vocab_size in place of extra_tokens."
    )
  kept = {key: value for key, value in lm.items() if key not in _RUNNING}
  return dict(name=lm["name"], **kept)


def complete(
  config: Mapping[str, Any], module: nn.Module, trained: Mapping[str, Any]
) -> dict[str, Any]:
  """Trained parameters, and frozen ones from where the run had them.

  Low-rank updates are folded into their matrices.

  Args:
    config: of the run.
    module: of its `model`.
    trained: what its checkpoint holds.

  Raises:
    ValueError: for parameters that were frozen as they were drawn.
  """
  example = data.abstract_batch(next(iter(config["data"]["datasets"].values())))
  shapes = nn.unbox(abstract_params(module, example))
  found = load_parts(config.get("init", {}), shapes) | dict(trained)
  lost = [path for path in tree.flatten(shapes) if path not in found]
  if lost:
    raise ValueError(
      f"{len(lost)} parameters of the run were frozen as they were drawn, such "
      f"as {lost[0]}: config.init names no source for them."
    )
  return _merged(found, config["model"]["lm"])


def _merged(arrays: dict[str, Any], lm: Mapping[str, Any]) -> dict[str, Any]:
  for path in [p for p in arrays if p.endswith("/lora_a")]:
    head = path.removesuffix("lora_a")
    names = ("kernel", "lora_a", "lora_b")
    parts = {name: arrays.pop(head + name) for name in names}
    arrays[f"{head}kernel"] = _Merged(parts, lora_of(lm).scale)
  return arrays


class _Merged:
  """A stack of matrices with their updates, of which one is held at a time."""

  def __init__(self, parts: Mapping[str, Any], scale: float):
    self._parts, self._scale = parts, scale
    self.shape, self.dtype = parts["kernel"].shape, np.dtype(np.float32)

  def __getitem__(self, row: int) -> np.ndarray:
    own = {k: np.asarray(x[row], np.float32) for k, x in self._parts.items()}
    return np.asarray(merge_lora(own, self._scale)["kernel"])


def only(
  wanted: Iterable[str], trained: Mapping[str, Any], run: Path
) -> dict[str, Any]:
  """The arrays that a file of trained parts holds.

  What else trained is named in the log, and stays behind.

  Args:
    wanted: their paths.
    trained: what the run's checkpoint holds.
    run: for errors.

  Raises:
    ValueError: where some did not train.
  """
  wanted = dict.fromkeys(wanted)
  if missing := [path for path in wanted if path not in trained]:
    raise ValueError(
      f"{run} has not trained {', '.join(missing[:3])} and so on "
      f"({len(missing)} of {len(wanted)} arrays of the original's file): a "
      "checkpoint holds what trained, that file whole parts."
    )
  others = {path.split("/")[0] for path in trained if path not in wanted}
  if others:
    log.warning(
      "%s trained, too; the original's file has no place for it.",
      sorted(others),
    )
  return {path: trained[path] for path in wanted}


def lora_of(lm: Mapping[str, Any]) -> Lora:
  """The low-rank updates that a language model's settings name."""
  return call(Lora, lm["lora"])


def take_companions(config: Mapping[str, Any], target: Path) -> None:
  """Files of the folders that the run's weights and tokenizer came from."""
  named = [source.get("path") for source in config.get("init", {}).values()]
  for path in filter(None, [*named, config["tokenizer"].get("path")]):
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    take_along(folder, target)
