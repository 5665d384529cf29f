"""One update, compiled: losses of all datasets, gradients, a guarded step."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import random

from mmjax import tree
from mmjax.training.state import TrainState
from mmjax.typing import Array, Batch, Params

# A step's metrics, with `dropped`: whether its update was.
Metrics = dict[str, Any]
# (params, batch) -> {"loss": (sum, count), further metrics: (sum, count)}
LossFn = Callable[[Params, Batch], Mapping[str, tuple[Array, Array]]]


@dataclasses.dataclass(frozen=True)
class Guard:
  """When an update is dropped.

  Attributes:
    spike: a gradient norm over this many times its running mean; 0 for never.
      Norms that are not finite are always dropped.
    decay: of the running mean.
    warmup: steps before which nothing counts as a spike.
  """

  spike: float = 0.0
  decay: float = 0.99
  warmup: int = 100


def make_step(
  loss: LossFn,
  optimizer: optax.GradientTransformation,
  weights: Mapping[str, float],
  *,
  microbatches: int = 1,
  guard: Guard = Guard(),
  seed: int = 0,
  in_place: tuple[str, ...] = (),
) -> Callable[[TrainState, Mapping[str, Batch]], tuple[TrainState, Metrics]]:
  """The function that a run compiles and repeats.

  The gradient is that of sum over datasets of weight * mean loss, each mean
  over all hosts and micro-batches of its dataset.

  Args:
    loss: of one batch.
    optimizer: of the trainable part.
    weights: of each dataset's loss (the lambda of Flamingo's equation 2).
    microbatches: parts in which a batch is run to save memory.
    guard: which updates are dropped.
    seed: of what a model leaves out by chance; its key is a function of this,
      the step, the dataset and the micro-batch, and stands in the batch.
    in_place: beginnings of the paths of parameters whose gradients
      micro-batches may add up in place; see `_accumulated`.
  """

  def step(state: TrainState, batches: Mapping[str, Batch]):
    grads, metrics = None, {}
    key = random.fold_in(random.key(seed), state.step)
    for number, (name, batch) in enumerate(batches.items()):
      own_key = random.fold_in(key, number)
      part, own = _gradient(loss, state, batch, own_key, microbatches, in_place)
      count = jnp.maximum(own["loss"][1], 1e-8)
      part = jax.tree.map(lambda g, c=count: g * (weights[name] / c), part)
      grads = part if grads is None else jax.tree.map(jnp.add, grads, part)
      metrics |= {f"{name}/{key}": value for key, value in own.items()}
    state, own = _update(state, grads, optimizer, guard)
    return state, metrics | own

  return step


def _gradient(loss, state, batch, key, microbatches, in_place=()):
  """Gradient of the summed loss of a batch, and its metrics."""

  def total(trainable, batch, key):
    params = tree.merge(trainable, state.frozen)
    metrics = loss(params, {**batch, "key": key})
    return metrics["loss"][0], metrics

  if microbatches == 1:
    return jax.grad(total, has_aux=True)(state.trainable, batch, key)

  parts = jax.tree.map(functools.partial(_cut, microbatches), batch)
  return _accumulated(total, state.trainable, parts, key, in_place)


def _cut(microbatches: int, x: Array) -> Array:
  """Micro-batches of an array, whose leading dim counts them."""
  if x.shape[0] % microbatches:
    raise ValueError(
      f"A batch of {x.shape[0]} rows does not cut into {microbatches} "
      "micro-batches. Change the `batch` of the dataset or microbatches."
    )
  # Every device keeps its own rows: micro-batch i is row i of each.
  x = x.reshape(-1, microbatches, *x.shape[1:])
  return jnp.moveaxis(x, 1, 0)


def _accumulated(total, trainable, parts, key, in_place):
  """Sums over micro-batches of the gradient of `total`, and of its metrics.

  Of stacks of layers that are `in_place` the backward pass adds every layer's
  gradient to the sum: a second copy of all of them is never there. They have to
  go into one scan as they are. Where JAX (0.10.2) finds arrays that were made
  of others before them in a scan, it takes the sum of one for that of another.
  """
  inside = {path: path.startswith(in_place) for path in tree.flatten(trainable)}
  stacks, rest = tree.split(trainable, inside)
  sums = jax.tree.map(
    lambda x: jax.new_ref(jnp.zeros(x.shape, x.dtype)), stacks
  )

  def body(carry, numbered):
    number, part = numbered
    own_key = random.fold_in(key, number)

    def one(stacks, rest):
      return total(tree.merge(stacks, rest), part, own_key)

    value, backward, new = jax.vjp(one, stacks, rest, has_aux=True)
    # What is no reference comes back.
    _, grads = backward.with_refs(sums, rest)(jnp.ones_like(value))
    return jax.tree.map(jnp.add, carry, (grads, new)), None

  first = jax.tree.map(lambda x: x[0], parts)
  metrics = jax.eval_shape(total, trainable, first, key)[1]
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (rest, metrics))
  numbers = jnp.arange(jax.tree.leaves(parts)[0].shape[0])
  (grads, metrics), _ = jax.lax.scan(body, zeros, (numbers, parts))
  return tree.merge(jax.tree.map(jax.freeze, sums), grads), metrics


def _update(state, grads, optimizer, guard):
  norm = optax.tree.norm(grads)
  ok = jnp.isfinite(norm)
  if guard.spike:
    usual = state.norm * guard.spike
    ok &= (state.step < guard.warmup) | (norm < usual)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
  trainable = optax.apply_updates(state.trainable, updates)

  def keep(new, old):
    return jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, old)

  # The first norm that counts is the mean; from 0 it would take long to rise.
  decay = jnp.where(state.norm == 0, 0.0, guard.decay)
  mean = decay * state.norm + (1 - decay) * norm
  new = state.replace(
    step=state.step + 1,
    trainable=keep(trainable, state.trainable),
    opt_state=keep(opt_state, state.opt_state),
    skipped=state.skipped + (~ok).astype(state.skipped.dtype),
    norm=jnp.where(ok, mean, state.norm),
  )
  return new, {"grad_norm": (norm, jnp.ones(())), "dropped": ~ok}
