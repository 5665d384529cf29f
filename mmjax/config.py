"""From a ConfigDict to modules: explicit tables, and no key left over.

A config names an entry of a table and gives its arguments:

  build(LMS, config.lm)    with    config.lm = dict(name="llama", width=64, ...)

A key that the entry does not take fails and names the nearest that it does. So
does a value of another kind than the entry declares, where it declares a plain
one: a number, a string, True or False, and lists or dicts of them.
"""

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def nearest(name: str, names) -> str:
  """` Did you mean 'x'?`, or the list of names when none is near."""
  names = sorted(map(str, names))
  close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
  return (
    f"Did you mean {close[0]!r}?"
    if close
    else f"Known: {', '.join(names) or 'none'}."
  )


def lookup(table: Mapping[str, Any], name: str, what: str = "entry") -> Any:
  """`table[name]`, or a ValueError that names the nearest entry."""
  if not isinstance(name, str) or name not in table:
    raise ValueError(f"Unknown {what} {name!r}. {nearest(name, table)}")
  return table[name]


def require(
  config: Mapping[str, Any], names: Iterable[str], label: str = "The config"
) -> None:
  """A ValueError for the parts that a config has not, with near names."""
  for name in names:
    if name not in config:
      raise ValueError(f"{label} has no {name!r}. {nearest(name, config)}")


def build(
  table: Mapping[str, Callable], config: Mapping[str, Any], **given
) -> Any:
  """Calls the entry of `table` that `config.name` names.

  Args:
    table: name to constructor (a module class or a function).
    config: `name` and keyword arguments of that constructor.
    **given: arguments that the caller knows and a config does not give.

  Raises:
    ValueError: for an unknown name, a key that the constructor does not take,
      a missing one, or a value of the wrong kind.
  """
  if not _is_dict(config):
    raise ValueError(
      f"{config!r} is no dict; expected one with a 'name'. {nearest('', table)}"
    )
  if "name" not in config:
    raise ValueError(f"No 'name' in {dict(config)}. {nearest('', table)}")
  make = lookup(table, config["name"])
  return call(make, {k: v for k, v in config.items() if k != "name"}, **given)


def call(make: Callable, kwargs: Mapping[str, Any], **given) -> Any:
  """`make(**kwargs, **given)` with near names for wrong or missing keys."""
  label = getattr(make, "__name__", str(make))
  if not _is_dict(kwargs):
    raise ValueError(f"{label} takes a dict, not {kwargs!r}.")
  parameters = inspect.signature(make).parameters
  takes = _keys(parameters.values()) - {"parent", "self"}
  for key in kwargs:
    if key not in takes:
      raise ValueError(f"{label} takes no {key!r}. {nearest(key, takes)}")
    kind = parameters[key].annotation if key in parameters else Any
    if not is_a(kwargs[key], kind):
      raise ValueError(
        f"{label}: {key!r} is {kwargs[key]!r:.80}, expected "
        f"{getattr(kind, '__name__', kind) if type(kind) is type else kind}."
      )
  merged = {k: _plain(v) for k, v in kwargs.items()} | given
  missing = [
    k
    for k, p in parameters.items()
    if p.default is p.empty
    and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    and k not in merged
  ]
  if missing:
    raise ValueError(f"{label} needs {', '.join(map(repr, missing))}.")
  return make(**merged)


def changed(value: Any, changes: Mapping[str, Any]) -> Any:
  """A dataclass with other values in some of its fields, checked as by `call`.

  Raises:
    ValueError: for a field that it has not, or a value of the wrong kind.
  """
  own = {
    field.name: getattr(value, field.name)
    for field in dataclasses.fields(value)
    if field.init and field.name not in changes
  }
  return call(type(value), changes, **own)


def differences(old: Any, new: Any, path: str = "config") -> set[str]:
  """Names of the keys in which two configs differ."""
  if not (isinstance(old, dict) and isinstance(new, dict)):
    return set() if old == new else {path}
  found: set[str] = set()
  for key in old.keys() | new.keys():
    found |= differences(old.get(key), new.get(key), f"{path}.{key}")
  return found


def is_a(value: Any, kind: Any) -> bool:
  """Whether a value of a config fits an annotation.

  A whole number is a float too, True is no number, and a string is no list.
  Annotations that no config can write fit everything.
  """
  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if origin in (types.UnionType, typing.Union):
    return any(is_a(value, part) for part in inner)
  if origin in (Sequence, list, tuple):
    items = inner[:1] if inner[1:] in ((), (...,)) else ()
    return isinstance(value, list | tuple) and all(
      is_a(item, part) for item in value for part in items
    )
  if Mapping in (kind, origin):
    return _is_dict(value)
  if kind is float:
    kind = int | float
  if kind in (int, int | float):
    return isinstance(value, kind) and not isinstance(value, bool)
  if kind in (bool, str, None, type(None)):
    return isinstance(value, kind or type(None))
  return True


def _is_dict(value: Any) -> bool:
  """A ConfigDict, which is no Mapping, is one too."""
  return hasattr(value, "keys")


def _keys(parameters: Iterable[inspect.Parameter]) -> set[str]:
  """Names of arguments; those of `**rest: Unpack[SomeTypedDict]` as well."""
  names = set()
  for p in parameters:
    if p.kind == p.VAR_KEYWORD:
      for typed in typing.get_args(p.annotation):
        names |= set(typed.__annotations__)
    else:
      names.add(p.name)
  return names


def _plain(value: Any) -> Any:
  """Lists become tuples, so that they can be fields of a module."""
  return tuple(_plain(v) for v in value) if isinstance(value, list) else value
