"""Options of the originals' constructors: defaults, and no key left over."""

import re
from collections.abc import Mapping
from typing import Any

from mmjax.config import nearest
from tests.golden.file import Golden

NEEDED = object()
Options = dict[str, Any]
SIZES = ("dim", "dim_visual", "dim_head", "heads", "depth", "num_latents")


def filled(golden: Golden, defaults: Options) -> Options:
  """A file's constructor arguments and, where it has none, the defaults.

  Raises:
    ValueError: for an argument that the original does not take, or for one
      that it needs and the file does not give.
  """
  return merged(golden.config.get("constructor", {}), defaults)


def merged(given: Mapping[str, Any], defaults: Options) -> Options:
  """`given` over `defaults`; see filled."""
  if not isinstance(given, Mapping):
    raise ValueError(f"Options are {given!r}; expected names and values.")
  for key in given:
    if key not in defaults:
      raise ValueError(f"Unknown option {key!r}. {nearest(key, defaults)}")
  options = defaults | dict(given)
  if missing := [k for k, v in options.items() if v is NEEDED]:
    raise ValueError(f"The metadata lacks the options {missing}.")
  for key in SIZES:
    size = options.get(key, 1)
    if type(size) is not int or size < 1:
      raise ValueError(f"The option {key} is {size!r}, not a size.")
  return options


# What the whole models' metadata says in words, e.g. `depth 6, 8 heads x 64,
# 64 latents` or `8 heads x 64, ff_mult 4, immediate media only`.
WORDS = {
  "depth": (r"depth (\d+)", int),
  "heads": (r"(\d+) heads", int),
  "dim_head": (r"heads x (\d+)", int),
  "num_latents": (r"(\d+) latents", int),
  "ff_mult": (r"ff_mult ([\d.]+)", float),
  "only_attend_immediate_media": (
    r"(immediate|all|previous)",
    "immediate".__eq__,
  ),
}


def described(given: Any, defaults: Options) -> Options:
  """Options given as a dict or in words; None is the defaults."""
  if not isinstance(given, str):
    return merged(given or {}, defaults)
  found = {k: re.search(WORDS[k][0], given) for k in WORDS if k in defaults}
  return merged({k: WORDS[k][1](m[1]) for k, m in found.items() if m}, defaults)
