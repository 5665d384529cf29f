"""Optimizers and schedules from a config; what differs by path is a list."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax import tree
from mmjax.config import build, lookup, require
from mmjax.training.clipping import clip_gradients
from mmjax.typing import Params

Rules = Sequence[tuple[str, Any]]


def warmup_constant(peak: float, warmup: int, total: int) -> optax.Schedule:
  """Linear from 0, then constant: Flamingo's and OpenFlamingo's."""
  del total
  if not warmup:
    return optax.constant_schedule(peak)
  return optax.warmup_constant_schedule(0.0, peak, warmup)


def warmup_cosine(
  peak: float, warmup: int, total: int, final: float = 0.0
) -> optax.Schedule:
  """Linear from 0, then a half cosine to `final` * peak at the last step."""
  return optax.warmup_cosine_decay_schedule(
    0.0, peak, warmup, max(total, warmup + 1), final * peak
  )


def warmup_cosine_steps(
  peak: float,
  warmup: int,
  total: int,
  every: int = 5000,
  first: float = 0.0,
  final: float = 0.0,
) -> optax.Schedule:
  """Linear from `first` * peak, then a half cosine taken every so many steps.

  LAVIS': its cosine falls once an (inner) epoch, and within the first of them
  is the warmup.

  Args:
    peak: the largest rate.
    warmup: steps until it; `every` at most.
    total: steps of the run, after which it would be `final` * peak.
    every: steps of an epoch.
    first, final: shares of the peak.

  Raises:
    ValueError: for a warmup that is longer than an epoch.
  """
  if warmup > every:
    raise ValueError(
      f"The warmup of {warmup} steps goes beyond the first {every}, after "
      "which the rate falls. Raise `every`."
    )

  def rate(step):
    part = jnp.minimum(step // every * every / max(total, 1), 1.0)
    falling = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * part))
    rising = first + (1 - first) * step / max(warmup, 1)
    return peak * jnp.where(step < warmup, rising, falling)

  return rate


def warmup_linear(
  peak: float, warmup: int, total: int, final: float = 0.0
) -> optax.Schedule:
  """Linear from 0 to the peak, then linear to `final` * peak.

  With warmup=0, the contrastive pretraining of Flamingo's vision encoder.
  """
  down = optax.linear_schedule(peak, final * peak, max(total - warmup, 1))
  up = optax.linear_schedule(0.0, peak, max(warmup, 1))
  return optax.join_schedules([up, down], [warmup]) if warmup else down


def exponential(
  peak: float, warmup: int, total: int, factor: float = 0.1, every: int = 1000
) -> optax.Schedule:
  """Falls by `factor` every `every` steps: Flamingo's fine-tuning."""
  del total
  decay = optax.exponential_decay(peak, every, factor, staircase=True)
  if not warmup:
    return decay
  up = optax.linear_schedule(0.0, peak, warmup)
  return optax.join_schedules([up, decay], [warmup])


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
  "warmup_constant": warmup_constant,
  "warmup_cosine": warmup_cosine,
  "warmup_cosine_steps": warmup_cosine_steps,
  "warmup_linear": warmup_linear,
  "exponential": exponential,
}


def adamw(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
  """Adam's direction; weight decay is added by `make_optimizer`."""
  return optax.scale_by_adam(b1, b2, eps, mu_dtype=jnp.float32)


def lion(b1: float = 0.9, b2: float = 0.99):
  """The sign of Lion's momentum."""
  return optax.scale_by_lion(b1, b2)


OPTIMIZERS = {"adamw": adamw, "lion": lion}


def make_optimizer(
  config: Mapping[str, Any], trainable: Params, total: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The update rule for the trainable parameters.

  Args:
    config: `name` of OPTIMIZERS with its arguments; `schedule` with a `name`
      of SCHEDULES; `clip_norm` (0 for none); `adaptive_clip` for NFNets
      (arXiv 2102.06171), `weight_decay` and `lr_scale`, lists of (pattern,
      number) that cover every trainable path.
    trainable: their tree.
    total: steps of the run, for the schedule.

  Returns:
    the transformation, and the schedule for the log.
  """
  config = dict(config)
  require(config, ("name", "schedule"), "config.train.optimizer")
  schedule = build(SCHEDULES, config["schedule"], total=total)
  _check(config.pop("schedule"))
  clip = config.pop("clip_norm", 0.0)
  if not 0 <= clip < math.inf:
    raise ValueError(f"clip_norm is {clip}; expected 0 (none) or more.")
  adaptive = config.pop("adaptive_clip", [(".*", 0.0)])
  decay = config.pop("weight_decay", [(".*", 0.0)])
  scale = config.pop("lr_scale", [(".*", 1.0)])
  lookup(OPTIMIZERS, config.get("name"), "optimizer")
  parts = [
    clip_gradients(by_path(trainable, adaptive), clip),
    build(OPTIMIZERS, config),
    _decay(trainable, decay),
    _scale(trainable, scale),
    optax.scale_by_learning_rate(schedule),
  ]
  return optax.chain(*parts), schedule


def _check(schedule: Mapping[str, Any]) -> None:
  """Numbers with which a run would climb, or stand still, in silence."""
  least = {"peak": 0, "warmup": 0, "first": 0, "final": 0, "factor": 0}
  least["every"] = 1
  for key in least.keys() & schedule.keys():
    if not least[key] <= schedule[key] < math.inf:
      raise ValueError(
        f"The schedule's {key} is {schedule[key]}; expected {least[key]} or "
        "more."
      )


def by_path(params: Params, rules: Rules) -> dict:
  """A tree like `params` with the value of the first rule that matches."""
  return tree.unflatten(tree.match(params, rules))


def _decay(params, rules):
  """Adds weight_decay * parameter to each update."""
  rates = by_path(params, rules)

  def one(update, param, rate):
    # Compilers keep an array of zeros for a product with 0.
    return update + rate * param if rate else update

  def update(updates, state, params):
    return jax.tree.map(one, updates, params, rates), state

  return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _scale(params, rules):
  """Multiplies each update by a factor of its path."""
  factors = by_path(params, rules)

  def update(updates, state, params=None):
    del params
    return jax.tree.map(lambda u, f: u * f, updates, factors), state

  return optax.GradientTransformation(lambda _: optax.EmptyState(), update)
