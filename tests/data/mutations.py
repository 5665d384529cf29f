"""Ways to spoil sound input, for tests that expect a named error or success."""

import copy
import random
from collections.abc import Iterator
from typing import Any

VALUES = (
  *(None, 1, -1, 2.5, float("nan"), True, 10**400),
  *("x", "", "\ud800", "x" * 5000, "../x", [], {}, [1], {"a": 1}),
)


def spoiled(value: Any) -> Iterator[tuple[list, Any]]:
  """Copies of nested lists and dicts, each with one place spoiled."""
  for path in _paths(value, []):
    for new in (*VALUES, "delete"):
      changed = copy.deepcopy(value)
      parent = changed
      for key in path[:-1]:
        parent = parent[key]
      if new == "delete":
        del parent[path[-1]]
      else:
        parent[path[-1]] = new
      yield [*path, new], changed


def _paths(value: Any, path: list) -> Iterator[list]:
  if path:
    yield path
  if isinstance(value, dict):
    for key in value:
      yield from _paths(value[key], [*path, key])
  elif isinstance(value, list):
    for i, item in enumerate(value):
      yield from _paths(item, [*path, i])


def damaged(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
  """Copies with bytes changed, cut out and put in."""
  rng = random.Random(seed)
  for _ in range(count):
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 5, 20))):
      at, kind = rng.randrange(len(out)), rng.random()
      if kind < 0.6:
        out[at] = rng.randrange(256)
      elif kind < 0.8 and len(out) > 60:
        del out[at : at + rng.randrange(1, 50)]
      else:
        out[at:at] = rng.randbytes(rng.randrange(1, 30))
    yield bytes(out)
