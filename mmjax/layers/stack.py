"""Layers of one kind, run by a scan, with a slot to inject others between.

Parameters of a stack are those of one layer with a leading "layers" dim, so
compile time does not grow with depth and a path names a weight of all layers:
`lm/layers/attention/query/kernel` is [layers, D, N, H].
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta

from mmjax.config import lookup
from mmjax.sharding import constrain
from mmjax.typing import Array, PyTree

# What the backward pass finds saved; everything else it computes again.
REMAT = {
  "none": jax.checkpoint_policies.everything_saveable,
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class Injection:
  """Something that runs before some of the layers of a stack.

  Attributes:
    run: (slice of xs, x) -> x.
    xs: arrays whose leading dim counts the injections.
    before: the layers that it runs before, ascending.
  """

  run: Callable[[PyTree, Array], Array]
  xs: PyTree
  before: tuple[int, ...]


def stacked_init(
  layer: nn.Module, num_layers: int, *example, method: str | None = None
) -> Callable:
  """An init function for `self.param`: `num_layers` draws of one layer.

  Args:
    layer: an unbound module.
    num_layers: leading dim of every parameter.
    *example: arguments of the layer's call, for their shapes only.
    method: another method of the layer to initialise it through.
  """

  def init(key):
    keys = jax.random.split(key, num_layers)

    def one(key):
      return layer.init(key, *example, method=method)["params"]

    params = jax.vmap(one)(keys)
    return meta.add_axis(params, 0, {nn.PARTITION_NAME: "layers"})

  return init


def scan_layers(
  run: Callable[[PyTree, Array], tuple[Array, PyTree]],
  xs: PyTree,
  x: Array,
  *,
  injection: Injection | None = None,
  remat: str = "none",
  dims: tuple[str, ...] = ("batch",),
) -> tuple[Array, PyTree]:
  """Runs a stack over `x`.

  Args:
    run: one layer, (slice of xs, x) -> (x, y).
    xs: parameters (and caches) with a leading dim of layers.
    x: what flows through.
    injection: what to run between layers.
    remat: a name of REMAT.
    dims: names of the leading dims of `x`, by which it lies on the mesh before
      every layer.

  Returns:
    x after the last layer, and the ys stacked over layers.
  """
  one = _remembering(lambda x, xs: run(xs, constrain(x, *dims)), remat)

  def layers(x, xs):
    return jax.lax.scan(one, x, xs)

  if injection is None:
    return layers(x, xs)
  inject = _remembering(
    lambda x, xs: injection.run(xs, constrain(x, *dims)), remat
  )
  num_layers = jax.tree.leaves(xs)[0].shape[0]
  outputs, layer, block = [], 0, 0
  for segment in segments(num_layers, injection.before):
    own = _rows(xs, layer, layer + segment.groups * segment.size)
    if segment.offset is None:
      x, ys = layers(x, own)
    else:
      injected = _rows(injection.xs, block, block + segment.groups)
      x, ys = _scan_groups(segment, layers, inject, x, own, injected)
      block += segment.groups
    outputs.append(ys)
    layer += segment.groups * segment.size
  return x, _concatenate(*outputs)


def _remembering(f: Callable, remat: str) -> Callable:
  """`f`, of which the backward pass finds what a policy of REMAT saves."""
  policy = lookup(REMAT, remat, "remat policy")
  if remat == "none":
    return f
  return jax.checkpoint(f, policy=policy, prevent_cse=False)


def _scan_groups(segment, layers, inject, x, own, injected):
  """One scan over equal groups of layers, each with an injection."""
  groups, size, offset = segment.groups, segment.size, segment.offset
  own = jax.tree.map(lambda a: a.reshape(groups, size, *a.shape[1:]), own)

  def group(x, xs):
    own, injected = xs
    x, first = layers(x, _rows(own, 0, offset))
    x, last = layers(inject(x, injected), _rows(own, offset, None))
    return x, _concatenate(first, last)

  x, ys = jax.lax.scan(group, x, (own, injected))
  return x, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), ys)


@dataclasses.dataclass(frozen=True)
class Segment:
  """`groups` groups of `size` layers; an injection before each `offset`th."""

  groups: int
  size: int
  offset: int | None


def segments(num_layers: int, before: tuple[int, ...]) -> list[Segment]:
  """Cuts a stack into runs of equal groups, each run one scan.

    8 layers, before (0, 4)       one run, 2 groups of 4, offset 0
    8 layers, before (3, 7)       one run, 2 groups of 4, offset 3
    8 layers, before (0, 3, 6)    2 groups of 3, then 1 group of 2

  Raises:
    ValueError: when `before` is not ascending within the layers.
  """
  ascending = all(a < b for a, b in zip(before, before[1:]))
  if not ascending or (
    before and not 0 <= before[0] <= before[-1] < num_layers
  ):
    raise ValueError(
      f"Injections before layers {before} of {num_layers}: expected ascending "
      f"numbers from 0 to {num_layers - 1}."
    )
  if not before:
    return [Segment(1, num_layers, None)]
  size = before[1] - before[0] if len(before) > 1 else num_layers
  offset = before[0]
  regular = all(b == offset + i * size for i, b in enumerate(before))
  if regular and offset < size and len(before) * size == num_layers:
    return [Segment(len(before), size, offset)]
  result = [Segment(1, offset, None)] if offset else []
  for start, end in zip(before, (*before[1:], num_layers)):
    last = result[-1] if result else None
    if last and last.offset == 0 and last.size == end - start:
      result[-1] = Segment(last.groups + 1, last.size, 0)
    else:
      result.append(Segment(1, end - start, 0))
  return result


def _rows(tree: PyTree, start: int, end: int | None) -> PyTree:
  return jax.tree.map(lambda a: a[start:end], tree)


def _concatenate(*trees: PyTree) -> PyTree:
  return jax.tree.map(lambda *a: jnp.concatenate(a), *trees)
