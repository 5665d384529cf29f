"""One attention, and who computes it.

  platform   first choice      otherwise
  tpu        splash.py         dot_product.py (plain)
  gpu        cudnn.py          plain
  cpu        plain

A path that does not take a problem says why; it is logged once. A config may
name a path (`config.model.lm.attention`), and then a refusal is an error.
Steps over a cache are always plain: their few queries make no large table.
"""

import logging
from collections.abc import Callable, Mapping

from mmjax.config import lookup
from mmjax.layers import cudnn, dot_product, splash
from mmjax.layers.dot_product import Problem, Visibility
from mmjax.sharding import constrain, parts_of, placed, platform
from mmjax.typing import Array, Float

log = logging.getLogger(__name__)

# Path to the platform that it is for, and to why it refuses a problem.
FAST: Mapping[str, tuple[str, Callable[[Problem], str | None]]] = {
  "splash": ("tpu", splash.refusal),
  "cudnn": ("gpu", cudnn.refusal),
}
PATHS = ("auto", "plain", *FAST)
_said: set[tuple[str, str]] = set()


def attention(
  query: Float[Array, "B L N H"],
  key: Float[Array, "B S K H"],
  value: Float[Array, "B S K H"],
  visible: Visibility,
  *,
  bias: Float[Array, "#B #N #L S"] | None = None,
  scale: float | None = None,
  drop: Callable[[Array], Array] | None = None,
  path: str = "auto",
) -> Float[Array, "B L N H"]:
  """Softmax attention by the fastest path that takes it.

  Args:
    query, key, value: K heads of keys serve N / K heads of queries each.
    visible: who sees whom; a query that sees no key gets zeros.
    bias: added to the scaled scores.
    scale: of the scores; None is H^-1/2.
    drop: what becomes of the softmax's weights in training.
    path: one of PATHS; names one to use it and no other.

  Raises:
    ValueError: when the path that is named does not take the problem.
  """
  query = constrain(query, "batch", "length", "heads")
  # Where the length is cut, every device makes the keys of its part and then
  # gets all of its rows; the tokens to make all of them would be more.
  if visible.own:
    key, value = (
      constrain(x, "batch", "length", "heads") for x in (key, value)
    )
  key, value = (constrain(x, "batch", None, "heads") for x in (key, value))
  problem = describe(
    query, key, visible, biased=bias is not None, dropped=drop is not None
  )
  chosen, why = choose(platform(), problem, path)
  if path != "plain":
    _say(chosen, why, f"{problem} on {platform()}")
  if chosen == "splash":
    return splash.attend(query, key, value, visible, scale=scale)
  if chosen == "cudnn":
    return cudnn.attend(query, key, value, visible, scale=scale)
  return dot_product.attend(
    *(query, key, value),
    mask=visible.dense(),
    bias=bias,
    scale=scale,
    drop=drop,
  )


def describe(
  query: Array,
  key: Array,
  visible: Visibility,
  *,
  biased: bool = False,
  dropped: bool = False,
) -> Problem:
  """The problem of an attention on the mesh in scope."""
  segmented = visible.query_segments is not None
  # Where everybody sees everybody, it does not matter whose keys they are.
  free = not segmented and not visible.causal and visible.table is None
  same = query.shape[1] == key.shape[1]
  return Problem(
    batch=query.shape[0],
    length=query.shape[1],
    keys=key.shape[1],
    heads=query.shape[2],
    kv_heads=key.shape[2],
    head_dim=query.shape[3],
    dtype=str(query.dtype),
    biased=biased,
    dropped=dropped,
    segmented=segmented,
    causal=visible.causal,
    own=same and (visible.own or free),
    length_parts=parts_of("length", query.shape[1]),
    placed=placed(),
  )


def choose(
  platform: str, problem: Problem, path: str = "auto"
) -> tuple[str, str]:
  """A path, and why it is that one.

  Args:
    platform: of the devices that it is for.
    problem: what is to be computed.
    path: one of PATHS.

  Raises:
    ValueError: for an unknown path, or one that refuses.
  """
  lookup(dict.fromkeys(PATHS), path, "attention path")
  if path == "plain":
    return "plain", "it was asked for"
  if path in FAST:
    if not problem.own:
      return "plain", f"{path} is for whole sequences, not for a cache"
    home, refuse = FAST[path]
    why = f"it runs on {home}" if platform != home else refuse(problem)
    if why:
      raise ValueError(
        f"attention={path!r} was asked for, but {path} refuses {problem} on "
        f"{platform}: {why}. With attention='auto' in its part of "
        "config.model the plain path takes over."
      )
    return path, "it was asked for"
  for name, (home, refuse) in FAST.items():
    if platform == home:
      why = refuse(problem)
      return ("plain", f"{name} refuses: {why}") if why else (name, "fastest")
  return "plain", f"there is no other for {platform}"


def _say(path: str, why: str, what: str) -> None:
  """Logs a choice, the first time that it is made for this reason."""
  if (path, why) not in _said:
    _said.add((path, why))
    log.info("Attention of %s is %s: %s", what, path, why)
