"""`mmjax convert`: weights from PyTorch's names to our paths, and back.

Both sides are directories of safetensors, and are streamed: memory holds
about one tensor. Our side keeps its settings in config.json:

  {"family": "llama", "model": {our settings}, "hugging_face": {theirs},
   "names": {name of a rule: other name under which its tensors came}}
"""

import dataclasses
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mmjax.cli import llava_family
from mmjax.cli.export import export_run
from mmjax.cli.families import FAMILIES, Family, family_of
from mmjax.cli.llava_processor import write_processor
from mmjax.cli.writing import (
  Lazy,
  explained,
  take_along,
  write_config,
  write_model,
)
from mmjax.config import lookup
from mmjax.convert.configs import MODEL_TYPES
from mmjax.convert.read import (
  Renamed,
  Safetensors,
  open_weights,
  read_json,
)
from mmjax.convert.rules import (
  ConversionError,
  Found,
  Placed,
  plan,
  same_bits,
  to_jax,
)
from mmjax.convert.torch_file import TorchFile
from mmjax.convert.write import SHARD, Writer
from mmjax.training.metrics import Progress

_LOG = logging.getLogger(__name__)
# What weights may be.
_FLOATS = (ml_dtypes.bfloat16, np.float16, np.float32, np.float64)


def convert(
  source: str | Path,
  target: str | Path,
  *,
  to: str,
  family: str | None = None,
  part: str | None = None,
  settings: str | Path | None = None,
  tower: str | Path | None = None,
  layout: str | None = None,
  adapter: bool = False,
  limit: int = SHARD,
) -> Path:
  """Converts a directory (or a file) of weights into a new directory.

  Args:
    source: safetensors or PyTorch files; for `to="hf"`, a directory that
      `to="jax"` wrote, or a run's, whose newest checkpoint is exported.
    target: must not exist; it appears only when all of it is there.
    to: "jax" or "hf".
    family: of FAMILIES; found in the source's config.json when None.
    part: which of a PyTorch checkpoint's dicts to read.
    settings: a config.json to read instead of the one beside the source.
    tower: a CLIP of Hugging Face, for a LLaVA that was saved without.
    layout: of the names that are written, where there are several: "hf" or
      "original". None is that of the source; of a run it is "original", and
      "hf" of a LLaVA.
    adapter: of a LLaVA run with LoRA, writes what was trained for PEFT.
    limit: bytes of a file.

  Raises:
    ValueError: for anything that does not fit; every name is listed.
  """
  options = _Options(family, part, settings, tower, layout, adapter, limit)
  directions = {"jax": _to_jax, "hf": _to_hf}
  run = lookup(directions, to, "direction")
  source, target = Path(source), Path(target)
  # A pipe would be waited for.
  if not (source.is_file() or source.is_dir()):
    raise ValueError(f"There is no file or directory {source}.")
  if target.exists() or target.is_symlink():
    raise ValueError(f"{target} is there already; name a new directory.")
  unfinished = target.with_name(f".{target.name}.part")
  shutil.rmtree(unfinished, ignore_errors=True)
  try:
    run(source, unfinished, options)
    if source.is_dir():
      take_along(source, unfinished)
    _complete(source, unfinished, to)
    unfinished.rename(target)
  except OSError as error:
    # What is written by handle does not say where.
    if error.errno and not error.filename:
      error.filename = str(target)
    raise
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)
  return target


@dataclasses.dataclass(frozen=True)
class _Options:
  """What a conversion is told beside its source; see `convert`."""

  family: str | None
  part: str | None
  settings: str | Path | None
  tower: str | Path | None
  layout: str | None
  adapter: bool
  limit: int

  def refuse(self, direction: str, *names: str) -> None:
    """Says of options that mean nothing in one direction where they belong."""
    if given := [f"--{n}" for n in names if getattr(self, n)]:
      raise ValueError(f"{' and '.join(given)}: for --to {direction} only.")


def _to_jax(source: Path, target: Path, options: _Options) -> None:
  options.refuse("hf", "layout", "adapter")
  config = _config(source, options.settings)
  name = options.family or family_of(config)
  if name is None:
    raise ValueError(
      f"Name the family of {source}: --family NAME, one of "
      f"{', '.join(sorted(FAMILIES))}."
    )
  name, family = _family(name)
  weights = open_weights(source, options.part, family.part)
  if family.settings and not config and isinstance(weights, TorchFile):
    config = weights.settings(family.settings)
  if options.tower is not None:
    weights, config = _with_tower(name, weights, config, options.tower)
  if family.rename is not None:
    weights = Renamed(weights, family.rename)
  with explained(f"The weights and settings of {source} are no {name}"):
    fields = family.fields(config, weights)
    shapes, rules = family.shapes(fields), family.rules(fields)
    copies = family.copies(fields)
  _check_depth(shapes, rules, weights)
  copies = _copies(copies, weights)

  def ignore(key):
    return key in copies or family.ignore(key, fields)

  found = plan(weights, rules, shapes, ignore)
  dtypes = _dtypes(found, weights)
  entries = {path: (dtype, shapes[path]) for path, dtype in dtypes.items()}
  writer = Writer(target, entries, {"format": "mmjax"}, options.limit)
  bar = Progress(sum(len(f.rule.paths) for f in found), shown=())
  stream = to_jax(weights, rules, shapes, ignore=ignore)
  for done, placed in enumerate(_told(stream, source), 1):
    writer.put(placed.path, placed.value, placed.row)
    bar.write(done, {})
  bar.close()
  writer.close()
  ours = {"family": name, "model": fields, "hugging_face": config}
  names = {} if family.one_layout else _other_names(found)
  write_config(target, ours | {"names": names})
  if left := len(weights) - len(found):
    _LOG.info("%d names left out: copies, buffers, other parts", left)


def _family(name: str) -> tuple[str, Family]:
  """Our name of a family, and what we know of it."""
  name = MODEL_TYPES.get(str(name), str(name))
  return name, lookup(FAMILIES, name, "family")


def _dtypes(found: Sequence[Found], weights) -> dict[str, np.dtype]:
  """Of our arrays; the tensors of a stack must agree.

  Integers stand for other numbers in a quantised checkpoint, and are none.
  """
  dtypes: dict[str, np.dtype] = {}
  for each in found:
    dtype = weights.dtype(each.key)
    if dtype not in _FLOATS:
      raise ConversionError(
        f"{each.key} is {dtype}, not floating-point. Convert the checkpoint "
        "before it was quantised."
      )
    for path in each.rule.paths:
      if dtypes.setdefault(path, dtype) != dtype:
        raise ConversionError(
          f"{each.key} is {dtype}, others of {path} {dtypes[path]}."
        )
  return dtypes


def _told(stream: Iterable[Placed], source: Path) -> Iterator[Placed]:
  """The same arrays; says at the end which of them hold what is no number."""
  broken = []
  for placed in stream:
    if not np.isfinite(placed.value).all():
      broken.append(f"{placed.path} [{placed.row or 0}]")
    yield placed
  if broken:
    _LOG.warning(
      "%d arrays of %s hold NaN or infinity, such as %s; they are kept as they "
      "are, and what the model computes with them is worthless.",
      len(broken),
      source,
      broken[:3],
    )


def _other_names(found: Sequence[Found]) -> dict[str, str]:
  """Rules whose tensors all came under another name, which they get back."""
  spelt: dict[str, set[str]] = {}
  for each in found:
    spelt.setdefault(each.rule.name, set()).add(each.rule.spelt(each.key))
  return {
    name: next(iter(names))
    for name, names in spelt.items()
    if len(names) == 1 and name not in names
  }


def _with_tower(name: str, weights: Mapping, config: dict, tower) -> tuple:
  """A LLaVA together with the vision tower that it was saved without."""
  if name != "llava":
    raise ValueError(f"--tower is for llava; {name} has none to be put in.")
  theirs = read_json(Path(tower) / "config.json")
  config = config | dict(vision_config=theirs.get("vision_config", theirs))
  return llava_family.with_tower(weights, open_weights(tower)), config


def _to_hf(source: Path, target: Path, options: _Options) -> None:
  options.refuse("jax", "part", "settings", "tower")
  layout, limit, name = options.layout, options.limit, options.family
  if (source / "checkpoints").is_dir():
    if name is not None:
      raise ValueError(
        "--family is for a folder; a run's config.json says its system. "
        "Leave it out."
      )
    export_run(source, target, limit, layout, options.adapter)
    return
  if options.adapter:
    raise ValueError(f"--adapter is for a run; {source} is none.")
  config = read_json(source / "config.json") if source.is_dir() else {}
  fields = config.get("model")
  if not isinstance(fields, dict) or "family" not in config:
    raise ValueError(
      f"{source} is no directory that `mmjax convert --to jax` wrote."
    )
  if name not in (None, config["family"]):
    raise ValueError(f"{source} is of family {config['family']}, not {name}.")
  _, family = _family(config["family"])
  weights = Safetensors(source)
  with explained(f"{source / 'config.json'} describes no {config['family']}"):
    _check(weights, family.shapes(fields))
  write_model(
    target,
    family,
    fields,
    {path: Lazy(weights, path) for path in weights},
    layout=layout,
    names=config.get("names", {}),
    given=config.get("hugging_face"),
    limit=limit,
  )


def _config(source: Path, settings: str | Path | None) -> dict[str, Any]:
  if settings is not None:
    return read_json(Path(settings))
  folder = source if source.is_dir() else source.parent
  path = folder / "config.json"
  return read_json(path) if path.is_file() else {}


def _check_depth(shapes, rules, weights) -> None:
  """Before lists are made of as many layers as a config.json claims."""
  for rule in rules:
    for path in rule.paths:
      if rule.stacked and shapes.get(path, (0,))[0] > len(weights):
        raise ValueError(
          f"The settings say {shapes[path][0]} layers; the weights have only "
          f"{len(weights)} tensors."
        )


def _check(weights: Safetensors, shapes: Mapping[str, tuple]) -> None:
  """Our own directory against its settings."""
  wrong = [f"{path}: missing" for path in shapes if path not in weights]
  wrong += [f"{path}: unknown" for path in weights if path not in shapes]
  wrong += [
    f"{path}: {weights.shape(path)}, expected {shape}"
    for path, shape in shapes.items()
    if path in weights and weights.shape(path) != shape
  ]
  if wrong:
    raise ConversionError(
      f"{weights.path} and its config.json do not fit:\n  " + "\n  ".join(wrong)
    )


def _copies(names: Mapping[str, str], weights: Mapping) -> set[str]:
  """Names that repeat a tensor which is there; they must be equal."""
  found = set()
  for copy, original in names.items():
    if copy not in weights or original not in weights:
      continue
    if not same_bits(np.asarray(weights[copy]), np.asarray(weights[original])):
      raise ConversionError(
        f"config.json ties {copy} to {original}, but they differ. Set "
        '"tie_word_embeddings": false there.'
      )
    found.add(copy)
  return found


def _complete(source: Path, target: Path, to: str) -> None:
  """Writes what an exported model needs beside its weights."""
  path = source / "config.json"
  if to == "hf" and path.is_file() and (target / "config.json").is_file():
    fields = read_json(path).get("model", {})
    write_processor(target, pad=fields.get("aspect") == "pad")
