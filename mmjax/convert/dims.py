"""Reshape, transpose and reshape again, written as one line of dim names.

  rearrange(weight, "(N H) D -> D N H", (64, 4, 16))

Names in parentheses share one dim, the first varying slowest; a number is a
dim of that size. Sizes come from the wanted shape, or from the array where its
dims stand alone.
"""

import re

import numpy as np


def rearrange(
  array: np.ndarray, dims: str | None, shape: tuple[int, ...] | None
) -> np.ndarray:
  """Moves the dims of `array` as `dims` says.

  Args:
    array: any array.
    dims: `left -> right`; None leaves the array as it is.
    shape: what must come out; None when `dims` alone fixes it.

  Raises:
    ValueError: when sizes do not agree.
  """
  if dims is None:
    if shape is not None and tuple(array.shape) != tuple(shape):
      raise ValueError(f"expected shape {tuple(shape)}")
    return array
  left, right = (_parse(side) for side in dims.split("->"))
  if len(left) != array.ndim:
    raise ValueError(f"{dims!r} has {len(left)} dims on the left")
  sizes = _sizes(left, array.shape, {})
  if shape is not None:
    if len(right) != len(shape):
      raise ValueError(f"{dims!r} has {len(right)} dims on the right")
    sizes = _sizes(right, shape, sizes)
    sizes = _sizes(left, array.shape, sizes)
  flat = [name for group in left for name in group]
  order = [flat.index(name) for group in right for name in group]
  split = array.reshape([sizes[name] for name in flat])
  moved = split.transpose(order)
  result = moved.reshape(
    [int(np.prod([sizes[n] for n in group])) for group in right]
  )
  if shape is not None and result.shape != tuple(shape):
    raise ValueError(f"{dims!r} gives {result.shape}")
  return result


def _parse(side: str) -> list[tuple[str, ...]]:
  """`(N H) D` to [("N", "H"), ("D",)]; `()` is a dim of size 1."""
  found = re.findall(r"\(([^)]*)\)|(\S+)", side)
  return [tuple(group.split()) if not one else (one,) for group, one in found]


def _sizes(groups, shape, known: dict[str, int]) -> dict[str, int]:
  """Adds to `known` what the groups and the shape determine."""
  numbers = {n: int(n) for group in groups for n in group if n.isdigit()}
  known = numbers | known
  for group, size in zip(groups, shape):
    unknown = [name for name in group if name not in known]
    rest = int(np.prod([known[n] for n in group if n in known]))
    if len(unknown) > 1:
      continue
    if unknown:
      if size % rest:
        raise ValueError(f"{size} is not a multiple of {rest} ({group})")
      known[unknown[0]] = size // rest
    elif rest != size:
      raise ValueError(f"{group} is {rest}, not {size}")
  return known
