"""Rules that carry weights between PyTorch names and our paths, both ways.

A rule pairs one name of a PyTorch state dict with one or several of our
paths and says how the dims move:

  Rule("layers.{layer}.self_attn.q_proj.weight",
       "layers/attention/query/kernel", "(N H) D -> D N H")

`{layer}` stands for a number; our array is the stack over it. Several paths
share one tensor along the first dim of the right-hand side:

  Rule("to_kv.weight", ("key/kernel", "value/kernel"),
       "(X N H) D -> X D N H")

A part that is always zero there and nowhere here stands among them as None.
Sizes that the names do not fix are read off our own shapes. The same rules run
backwards. A name that no rule knows, or a path that nothing fills, is an error
that lists every one.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from mmjax.convert.dims import rearrange
from mmjax.tree import flatten, unflatten
from mmjax.typing import Params

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Rule:
  """One name there, one or several paths here.

  Attributes:
    name: of the tensor in the state dict, with at most one `{layer}`.
    path: ours; several when the tensor is a concatenation of ours. None stands
      for a part that must be zero there and is nowhere here.
    dims: how dims move, `theirs -> ours`; None when nothing moves.
    numbers: the numbers that `{layer}` takes, in our order; None is 0, 1, ...
    aliases: other names under which the tensor is found.
    joined: the paths follow one another along the first dim, with sizes of
      their own (a table of old tokens and one of new).
    repeated: the state dict holds the tensor under all of its names, so that
      it goes back under all of them.
  """

  name: str
  path: str | tuple[str | None, ...]
  dims: str | None = None
  numbers: tuple[int, ...] | None = None
  aliases: tuple[str, ...] = ()
  joined: bool = False
  repeated: bool = False

  @property
  def parts(self) -> tuple[str | None, ...]:
    """What the tensor is a concatenation of, zeros as None."""
    return (self.path,) if isinstance(self.path, str) else self.path

  @property
  def paths(self) -> tuple[str, ...]:
    return tuple(path for path in self.parts if path is not None)

  @property
  def stacked(self) -> bool:
    return "{layer}" in self.name

  def spelt(self, key: str) -> str | None:
    """Which of the rule's names a key has, or None."""
    names = (self.name, *self.aliases)
    return next((name for name in names if _match(name, key)), None)

  def find(self, key: str) -> int | None:
    """The number in a key that this rule names (0 without one), or None."""
    for name in (self.name, *self.aliases):
      if found := _match(name, key):
        if not self.stacked:
          return 0
        number = int(found[1])
        if self.numbers is None:
          return number
        return self.numbers.index(number) if number in self.numbers else None
    return None

  def key(self, row: int) -> str:
    """The name of row `row` of our stack."""
    number = row if self.numbers is None else self.numbers[row]
    return self.name.replace("{layer}", str(number))


def _match(name: str, key: str) -> re.Match | None:
  return re.fullmatch(re.escape(name).replace(r"\{layer\}", r"(\d+)"), key)


@dataclasses.dataclass(frozen=True)
class Placed:
  """One array of ours, or one row of a stack, as it leaves a conversion.

  Attributes:
    path: ours.
    row: place along the stack's first dim; None when the array is whole.
    value: in the shape that our module wants.
  """

  path: str
  row: int | None
  value: np.ndarray


@dataclasses.dataclass(frozen=True)
class Found:
  """A tensor of a state dict and where it goes.

  Attributes:
    key: its name.
    rule: that knows the name.
    row: of the stack; 0 without one.
    copies: other names that the rule knows for the same place.
  """

  key: str
  rule: Rule
  row: int
  copies: list[str] = dataclasses.field(default_factory=list)


class ConversionError(ValueError):
  """Weights and rules do not fit; the message lists every misfit."""


def prefixed(
  rules: Sequence[Rule], name: str = "", path: str = ""
) -> list[Rule]:
  """The same rules for a model that is part of a larger one."""

  def add(rule):
    return dataclasses.replace(
      rule,
      name=name + rule.name,
      aliases=tuple(name + alias for alias in rule.aliases),
      path=tuple(p if p is None else path + p for p in rule.parts),
    )

  return [add(rule) for rule in rules]


def to_jax(
  weights: Mapping[str, np.ndarray],
  rules: Sequence[Rule],
  shapes: Shapes,
  *,
  ignore: Callable[[str], bool] = lambda key: False,
) -> Iterator[Placed]:
  """Streams a state dict into our layout, one tensor at a time.

  Args:
    weights: tensors by name; read one by one, so it may be lazy.
    rules: of the family; those whose paths `shapes` lacks are left out.
    shapes: our paths and their shapes, stacks included.
    ignore: names that carry nothing (buffers).

  Raises:
    ConversionError: for names without a rule and paths without a name, before
      anything is read; for a tensor of the wrong shape; for two names of one
      tensor that hold different numbers.
  """
  for found in plan(weights, rules, shapes, ignore):
    value = np.asarray(weights[found.key])
    for copy in found.copies:
      if not same_bits(value, np.asarray(weights[copy])):
        raise ConversionError(
          f"{found.key} and {copy} are names of one tensor, but differ."
        )
    yield from _place(found.key, value, found.rule, found.row, shapes)


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
  """Whether two arrays are alike in shape, dtype and every bit."""
  if one.shape != other.shape or one.dtype != other.dtype:
    return False
  if one.__array_interface__ == other.__array_interface__:
    return True  # Two views of the same bytes of a file.
  bits = f"u{one.dtype.itemsize}"
  return np.array_equal(
    np.ascontiguousarray(one).view(bits), np.ascontiguousarray(other).view(bits)
  )


def plan(
  weights: Iterable[str],
  rules: Sequence[Rule],
  shapes: Shapes,
  ignore: Callable[[str], bool] = lambda key: False,
) -> list[Found]:
  """Which tensor goes where.

  Raises:
    ConversionError: for names without a rule and paths without a name.
  """
  rules = [r for r in rules if all(p in shapes for p in r.paths)]
  places, unknown = _find(weights, rules, ignore)
  if not places and rules:
    raise ConversionError(
      f"No name fits this model: expected such as {rules[0].key(0)}, got such "
      f"as {unknown[:3]}."
    )
  filled = {
    (path, found.row if found.rule.stacked else None): found.key
    for found in places
    for path in found.rule.paths
  }
  wanted = {
    (path, row): rule.key(row or 0)
    for rule in rules
    for path in rule.paths
    for row in (range(shapes[path][0]) if rule.stacked else [None])
  }
  _check_places(wanted, filled, unknown, shapes)
  return places


def _check_places(wanted, filled, unknown: list[str], shapes: Shapes) -> None:
  """Every place, a path and a row, must be filled, and no other."""
  covered = {path for path, _ in wanted} | _empty(shapes)
  missing = [
    f"{place[0]} <- {key}"
    for place, key in wanted.items()
    if place not in filled
  ]
  missing += [f"{path} (no rule)" for path in shapes if path not in covered]
  extra = [key for place, key in filled.items() if place not in wanted]
  if unknown or missing or extra:
    lists = (
      _listed("names that no rule of this model knows", unknown),
      _listed("parameters that nothing fills", missing),
      _listed("names beyond the model's number of layers", extra),
    )
    raise ConversionError(f"Weights and model do not fit.\n{''.join(lists)}")


def _empty(shapes: Shapes) -> set[str]:
  """Paths of no numbers, such as stacks of no blocks; nothing fills them."""
  return {path for path, shape in shapes.items() if 0 in shape}


def _find(weights, rules, ignore) -> tuple[list[Found], list[str]]:
  """What fills which place, and the names that no rule knows."""
  places: dict[tuple[tuple[str, ...], int], Found] = {}
  unknown = []
  for key in weights:
    known = ((r, row) for r in rules if (row := r.find(key)) is not None)
    rule, row = next(known, (None, 0))
    if rule is None:
      if not ignore(key):
        unknown.append(key)
      continue
    earlier = places.get((rule.paths, row))
    if earlier is None:
      places[rule.paths, row] = Found(key, rule, row)
    elif key == rule.key(row):
      # The rule's own name stands for the tensor where it is there.
      copies = [earlier.key, *earlier.copies]
      places[rule.paths, row] = Found(key, rule, row, copies)
    else:
      earlier.copies.append(key)
  return list(places.values()), unknown


def _listed(title: str, names: Sequence[str]) -> str:
  if not names:
    return ""
  return f"{len(names)} {title}:\n" + "".join(f"  {n}\n" for n in names)


def _place(key, value, rule, row, shapes) -> Iterator[Placed]:
  ours = [_row_shape(rule, shapes[path]) for path in rule.paths]
  if rule.joined:
    yield from _place_joined(key, value, rule, ours)
    return
  several = len(rule.parts) > 1
  joint = (len(rule.parts), *ours[0]) if several else ours[0]
  try:
    value = rearrange(value, rule.dims, joint)
  except ValueError as error:
    raise ConversionError(
      f"{key} {tuple(value.shape)} does not become {rule.path} {joint}: {error}"
    ) from error
  for path, part in zip(rule.parts, value if several else [value]):
    if path is not None:
      yield Placed(path, row if rule.stacked else None, part)
    elif np.any(part):
      most = np.abs(np.float64(part)).max()
      raise ConversionError(
        f"{key} has numbers up to {most:g} where this model has none: expected "
        f"only zeros beside {rule.paths}."
      )


def _place_joined(key, value, rule, ours) -> Iterator[Placed]:
  joint = (sum(shape[0] for shape in ours), *ours[0][1:])
  if value.shape != joint:
    raise ConversionError(
      f"{key} is {value.shape}; {rule.paths} together are {joint}."
    )
  ends = np.cumsum([shape[0] for shape in ours])[:-1]
  for path, part in zip(rule.paths, np.split(value, ends)):
    yield Placed(path, None, part)


def _row_shape(rule: Rule, shape: tuple[int, ...]) -> tuple[int, ...]:
  return tuple(shape[1:] if rule.stacked else shape)


def to_torch(
  params: Mapping[str, np.ndarray], rules: Sequence[Rule]
) -> Iterator[tuple[str, np.ndarray]]:
  """Streams our arrays (by path) back into a state dict.

  Raises:
    ConversionError: when a path has no rule.
  """
  rules = [r for r in rules if all(p in params for p in r.paths)]
  covered = {path for rule in rules for path in rule.paths}
  if lost := [path for path in params if path not in covered]:
    raise ConversionError(_listed("parameters without a rule", lost))
  for rule in rules:
    for row in range(params[rule.paths[0]].shape[0] if rule.stacked else 1):
      ours = [
        np.asarray(params[p][row] if rule.stacked else params[p])
        for p in rule.paths
      ]
      zero = [np.zeros_like(ours[0])] if None in rule.parts else []
      named = dict(zip((*rule.paths, None), ours + zero))
      parts = [named[p] for p in rule.parts]
      if rule.joined:
        yield rule.key(row), np.concatenate(parts)
        continue
      value = np.stack(parts) if len(parts) > 1 else parts[0]
      value = rearrange_back(value, rule.dims)
      yield rule.key(row), value
      if rule.repeated:
        yield from ((alias, value) for alias in rule.aliases)


def rearrange_back(value: np.ndarray, dims: str | None) -> np.ndarray:
  """The inverse of a rule's `dims`."""
  if dims is None:
    return value
  theirs, ours = dims.split("->")
  return rearrange(value, f"{ours} -> {theirs}", None)


def load(
  weights: Mapping[str, np.ndarray],
  rules: Sequence[Rule],
  like: Params,
  *,
  ignore: Callable[[str], bool] = lambda key: False,
) -> dict:
  """A whole tree in memory, in the shapes and dtypes of `like`.

  Args:
    weights: tensors by name.
    rules: of the family.
    like: nested dicts of arrays or ShapeDtypeStructs.
    ignore: names that carry nothing.
  """
  like = flatten(like)
  shapes = {path: tuple(x.shape) for path, x in like.items()}
  arrays: dict[str, np.ndarray] = {
    path: np.empty(shapes[path], like[path].dtype) for path in _empty(shapes)
  }
  for placed in to_jax(weights, rules, shapes, ignore=ignore):
    dtype = like[placed.path].dtype
    if placed.row is None:
      arrays[placed.path] = np.asarray(placed.value, dtype, order="C")
      continue
    if placed.path not in arrays:
      arrays[placed.path] = np.empty(shapes[placed.path], dtype)
    arrays[placed.path][placed.row] = placed.value
  return unflatten(arrays)


def save(params: Params, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
  """A whole state dict in memory; the inverse of `load`."""
  return dict(to_torch(flatten(params), rules))
