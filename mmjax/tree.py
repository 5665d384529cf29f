"""Parameter trees: path names, patterns that must cover, split and merge."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import traverse_util

from mmjax.typing import Params, PyTree


def paths(params: Params) -> list[str]:
  """Names of all leaves, `a/b/c`, in the tree's own order."""
  return list(flatten(params))


def flatten(params: Params) -> dict[str, Any]:
  """Nested dicts to one dict of `a/b/c` names."""
  return traverse_util.flatten_dict(params, sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """One dict of `a/b/c` names to nested dicts."""
  return traverse_util.unflatten_dict(dict(flat), sep="/")


def match(params: Params, rules: Sequence[tuple[str, Any]]) -> dict[str, Any]:
  """The value of the first rule that matches each path.

  Args:
    params: nested dicts.
    rules: (pattern, value) pairs; a pattern has to match a whole path.

  Returns:
    path to value, one for every leaf.

  Raises:
    ValueError: when a leaf is matched by no rule, or a rule matches no leaf,
      or is none.
  """
  compiled = []
  for rule in rules:
    try:
      pattern, value = rule
      compiled.append((re.compile(pattern), value))
    except (TypeError, ValueError, re.error) as error:
      raise ValueError(
        f"{rule!r} is no pair of a pattern and a value: {error}."
      ) from None
  used, result, uncovered = set(), {}, []
  for path in paths(params):
    for i, (pattern, value) in enumerate(compiled):
      if pattern.fullmatch(path):
        used.add(i)
        result[path] = value
        break
    else:
      uncovered.append(path)
  if uncovered:
    raise ValueError(
      f"No pattern covers {len(uncovered)} parameter(s), such as "
      f"{uncovered[:3]}. Add a rule such as ('.*', value) at the end."
    )
  idle = [rules[i][0] for i in range(len(rules)) if i not in used]
  if idle:
    raise ValueError(
      f"The pattern(s) {idle} match no parameter that an earlier one left. "
      f"Paths look like {paths(params)[:3]}."
    )
  return result


def split(params: Params, mask: Mapping[str, bool]) -> tuple[dict, dict]:
  """Two trees: the leaves whose mask is True, and the others."""
  flat = flatten(params)
  chosen = {k: v for k, v in flat.items() if mask[k]}
  rest = {k: v for k, v in flat.items() if not mask[k]}
  return unflatten(chosen), unflatten(rest)


def merge(*trees: Params) -> dict[str, Any]:
  """The inverse of `split`. Raises ValueError when two trees share a leaf."""
  flat: dict[str, Any] = {}
  for tree in trees:
    new = flatten(tree)
    if shared := flat.keys() & new.keys():
      raise ValueError(f"Both trees have {sorted(shared)[:3]}.")
    flat |= new
  return unflatten(flat)


def count(params: PyTree) -> int:
  """Number of scalars in a tree of arrays or shapes."""
  return sum(x.size for x in jax.tree.leaves(params))
