"""Configs from files, and changes to them from the command line.

  load("configs/flamingo/demo.py", ["train.plan.steps=10"])
  load("configs/llava/pretrain.py:13b")

A `.py` file is run and its `get_config()` called, with what stands behind a
colon if there is any; a `.json` file, such as the `config.json` of a run, is
read as data and nothing in it runs.
"""

import ast
import importlib.util
import json
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmjax.config import nearest


def load(path: str | Path, changes: Sequence[str] = ()) -> ConfigDict:
  """The config of a file, with changes.

  Args:
    path: `.py`, perhaps with `:ARGUMENT`, or `.json`. A path that is not there
      from the current directory is looked for among the configs that come
      with mmjax. The runs that a run's `.json` names in `init` are looked for
      beside it, too.
    changes: `key.of.a.key=value`, in their order.

  Raises:
    ValueError: for a file that gives no config, an unknown key (the nearest
      one is named) or a value of another kind than the one that it replaces.
  """
  file, argument = parted(path)
  file = _find(file)
  if file.suffix == ".json":
    config = _data(file)
    _find_runs(config, file.parent.parent)
  else:
    config = _run(file, argument)
  for change in changes:
    _change(config, change)
  return config


def parted(path: str | Path) -> tuple[Path, str | None]:
  """A config's file, and the argument behind a colon."""
  name, colon, argument = str(path).rpartition(":")
  if colon and name.endswith(".py"):
    return Path(name), argument
  return Path(path), None


def workdir(path: str | Path) -> Path:
  """Where a run of a config goes: runs/pretrain_13b of pretrain.py:13b."""
  file, argument = parted(path)
  return Path("runs") / "_".join([file.stem, *([argument] if argument else [])])


def _find(path: Path) -> Path:
  if path.suffix not in (".py", ".json"):
    raise ValueError(f"A config is a .py or .json file, not {str(path)!r}.")
  spec = importlib.util.find_spec("configs")
  roots = [Path(p).parent for p in spec.submodule_search_locations or ()]
  tried = [path, *(root / path for root in roots if not path.is_absolute())]
  for candidate in tried:
    if candidate.is_file():
      return candidate
  if path.suffix == ".json":
    raise ValueError(f"There is no {path}; a run writes one.")
  known = sorted(
    str(file.relative_to(root))
    for root in roots
    for file in (root / "configs").glob("*/*.py")
    if file.name != "__init__.py"
  )
  raise ValueError(f"There is no {path}. {nearest(str(path), known)}")


def _data(path: Path) -> ConfigDict:
  try:
    content = json.loads(path.read_text())
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is no JSON: {error}") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path} holds a {type(content).__name__}, not a config.")
  return ConfigDict(content)


def _find_runs(config: ConfigDict, folder: Path) -> None:
  """Other runs that a run begins with, beside it if not where it says.

  Relative paths are of the directory in which it was trained; who asks it may
  stand in another, as a notebook does.
  """
  init = config.get("init")
  for source in init.values() if isinstance(init, ConfigDict) else ():
    named = source.get("workdir") if isinstance(source, ConfigDict) else None
    if isinstance(named, str) and not Path(named).is_dir():
      beside = folder / Path(named).name
      if beside.is_dir():
        source.workdir = str(beside)


def _run(path: Path, argument: str | None) -> ConfigDict:
  spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
      raise ValueError("it has no get_config(); see configs/flamingo/")
    given = () if argument is None else (argument,)
    config = module.get_config(*given)
  # Anything may go wrong in a program of the user's.
  except Exception as error:
    line = _line_of(error, path)
    raise ValueError(
      f"{path}{line} gives no config: {type(error).__name__}: {error}"
    ) from error
  if not isinstance(config, ConfigDict):
    raise ValueError(
      f"get_config() of {path} gives a {type(config).__name__}, not a "
      "ml_collections.ConfigDict."
    )
  return config


def _line_of(error: Exception, path: Path) -> str:
  """`, line 7` of a config, where an error passed through it."""
  if isinstance(error, SyntaxError):
    return f", line {error.lineno}"
  frames = traceback.extract_tb(error.__traceback__)
  lines = [f.lineno for f in frames if Path(f.filename) == path.absolute()]
  return f", line {lines[-1]}" if lines else ""


def _change(config: ConfigDict, change: str) -> None:
  key, equals, text = change.partition("=")
  if not equals:
    raise ValueError(f"--config.{key} has no value: --config.{key}=VALUE")
  *parents, last = key.split(".")
  node: Any = config
  for i, name in enumerate(parents):
    node = _child(node, name, ".".join(["config", *parents[:i]]))
  old = _child(node, last, ".".join(["config", *parents]))
  new = parse(text, old, f"config.{key}")
  with node.ignore_type():  # The kinds were compared by `parse`.
    node[last] = new


def _child(node: Any, name: str, label: str) -> Any:
  if not isinstance(node, ConfigDict):
    raise ValueError(f"{label} is {node!r} and has no key {name!r}.")
  if name not in node:
    advice = nearest(name, node)
    if not advice.startswith("Did"):  # Perhaps one that is left to its default.
      advice += " To add one, write a .py of your own that changes this config."
    raise ValueError(f"{label} has no key {name!r}. {advice}")
  return node[name]


def parse(text: str, old: Any, label: str) -> Any:
  """A value as it is typed, of the kind of the one that it replaces.

  Args:
    text: a Python literal, or a string without quotes.
    old: the value so far; None takes any.
    label: its name, for errors.
  """
  if isinstance(old, str):
    new = _literal(text)
    return new if isinstance(new, str) else text
  if isinstance(old, bool) and text.lower() in ("true", "false"):
    return text.lower() == "true"
  new = _literal(text)
  if old is None or new is None:
    return new
  if isinstance(old, float) and type(new) is int:
    return float(new)
  kinds = (list, tuple) if isinstance(old, list | tuple) else (type(old),)
  if isinstance(old, ConfigDict):
    kinds = (dict,)
  if type(new) not in kinds:
    raise ValueError(
      f"{label} takes {kinds[0].__name__}, such as {_short(old)}; got {text!r}."
    )
  return new


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return text


def _short(value: Any) -> str:
  plain = value.to_dict() if isinstance(value, ConfigDict) else value
  text = repr(plain)
  return text if len(text) <= 60 else f"{text[:57]}..."
