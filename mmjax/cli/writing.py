"""Weights and settings written as a folder of PyTorch's."""

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.errors import FlaxError

from mmjax.cli.families import Family
from mmjax.convert.configs import MODEL_TYPES
from mmjax.convert.read import Safetensors
from mmjax.convert.rules import Rule, to_torch
from mmjax.convert.write import SHARD, Writer
from mmjax.training.metrics import Progress

_LOG = logging.getLogger(__name__)

# Small files of a model's folder that go along, and of the folder in it that
# holds the tokenizer of InstructBLIP's Q-Former.
_OF_A_TOKENIZER = (
  "added_tokens.json",
  "special_tokens_map.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "vocab.txt",
)
COMPANIONS = (
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  "generation_config.json",
  "merges.txt",
  "preprocessor_config.json",
  "processor_config.json",
  "special_tokens_map.json",
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "video_preprocessor_config.json",
  "vocab.json",
  "vocab.txt",
  *(f"qformer_tokenizer/{name}" for name in _OF_A_TOKENIZER),
)


def write_model(
  target: Path,
  family: Family,
  fields: Mapping[str, Any],
  arrays: Mapping[str, Any],
  *,
  layout: str | None = None,
  names: Mapping[str, str] | None = None,
  given: Any = None,
  limit: int = SHARD,
) -> None:
  """Writes a model under PyTorch's names, with its config.json.

  Args:
    target: new directory.
    family: of the model.
    fields: its settings.
    arrays: its parameters by path, read one by one.
    layout: of the names, where the family has several; None keeps that of
      `fields`.
    names: of rules, to other names under which their tensors came.
    given: the config.json that the weights came with.
    limit: bytes of a file.
  """
  if layout is not None and family.to_layout is None:
    raise ValueError("This family has one layout only; leave out --layout.")
  if layout not in (None, fields.get("layout")):
    # The settings of another layout's config.json mean nothing in this one.
    given = None
  if family.to_layout is not None:
    fields, arrays = family.to_layout(
      fields, arrays, layout or fields["layout"]
    )
  with explained("The settings do not describe the model"):
    rules = _with_names(family.rules(fields), names or {})
    made = family.config(fields) if family.config else {}
  blank = {
    path: np.broadcast_to(np.zeros((), x.dtype), x.shape)
    for path, x in arrays.items()
  }
  entries = {
    key: (value.dtype, value.shape) for key, value in to_torch(blank, rules)
  }
  writer = Writer(target, entries, {"format": "pt"}, limit)
  bar = Progress(len(entries), shown=())
  for done, (key, value) in enumerate(to_torch(arrays, rules), 1):
    writer.put(key, value)
    bar.write(done, {})
  bar.close()
  writer.close()
  if family.config is not None:
    _write_theirs(target, given, made)


def _with_names(rules: Sequence[Rule], names: Mapping[str, str]) -> list[Rule]:
  """Rules that write the names under which their tensors came."""
  known = {r.name: r.aliases for r in rules}
  for name, alias in names.items():
    if alias not in known.get(name, ()):
      raise ValueError(f"config.json: {alias!r} is no other name of {name!r}.")
  return [dataclasses.replace(r, name=names.get(r.name, r.name)) for r in rules]


def _write_theirs(target: Path, given: Any, made: Mapping) -> None:
  """A config.json for the exported weights.

  Args:
    target: directory.
    given: that of the source. What it says beyond our settings stays, unless
      it is of a larger model; MosaicGPT's has other names for them, and stays
      as it is.
    made: of our settings.
  """
  given = given if isinstance(given, dict) else {}
  kind, ours = str(given.get("model_type", "")), made.get("model_type")
  if ours is not None and MODEL_TYPES.get(kind) == ours:
    content = dict(given)
  elif kind in ("", ours):
    content = _updated(given, made)
    # Points to code that is not here.
    content.pop("auto_map", None)
  else:
    content = dict(made)
  if content:
    write_config(target, content)


def _updated(given: Mapping, made: Mapping) -> dict[str, Any]:
  """`given` with what `made` has, one level of nested settings included."""
  both = {k for k, v in made.items() if isinstance(v, dict)}
  both = {k for k in both if isinstance(given.get(k), dict)}
  return {**given, **made} | {k: {**given[k], **made[k]} for k in both}


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
  """Settings of wrong kinds or sizes trip anything that reads them."""
  try:
    yield
  except (
    ArithmeticError,
    AttributeError,
    FlaxError,
    LookupError,
    TypeError,
  ) as error:
    first = str(error).strip().partition("\n")[0]
    raise ValueError(f"{what}: {type(error).__name__}: {first}") from error


class Lazy:
  """An array of a file, read whole or a row at a time."""

  def __init__(self, weights: Safetensors, path: str):
    self._weights, self._path = weights, path
    self.shape, self.dtype = weights.shape(path), weights.dtype(path)

  def __getitem__(self, row: int) -> np.ndarray:
    return self._weights.row(self._path, row)

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return self._weights[self._path]


def write_config(target: Path, content: Mapping[str, Any]) -> None:
  text = json.dumps(content, indent=2, sort_keys=True)
  (target / "config.json").write_text(text + "\n")


def take_along(folder: Path, target: Path) -> None:
  """Copies tokenizer files and the like, unless they are links."""
  for name in COMPANIONS:
    path = folder / name
    inner = path.parent != folder and path.parent.is_symlink()
    if path.is_symlink() or inner and path.is_file():
      _LOG.warning("%s is a link and is left behind; copy it yourself.", path)
    elif path.is_file():
      (target / name).parent.mkdir(exist_ok=True)
      shutil.copyfile(path, target / name)
