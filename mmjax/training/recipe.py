"""A run as its config describes it, before any array exists.

`mmjax train` runs it, `mmjax plan` compiles it for machines that are not
there: both build the same step here.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mmjax import tree
from mmjax.config import call, require
from mmjax.sharding import shardings
from mmjax.training.optimizer import make_optimizer
from mmjax.training.state import TrainState, abstract_params, trainable_mask
from mmjax.training.step import Guard, LossFn, make_step
from mmjax.typing import Batch, Params

# Keys of config.train that say how long and how watchfully, not what.
LOOP = ("plan", "watchdog")


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What trains, and how.

  Attributes:
    module: the system.
    boxed: shapes of its parameters, with the names of their dims.
    mask: path to whether a parameter trains.
    frozen_dtype: of those that do not.
    optimizer: of those that do.
    schedule: its learning rate.
    microbatches: parts in which a batch is run.
    guard: which updates are dropped.
  """

  module: nn.Module
  boxed: Params
  mask: Mapping[str, bool]
  frozen_dtype: Any
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  microbatches: int
  guard: Guard

  @property
  def shapes(self) -> Params:
    """Of all parameters."""
    return nn.unbox(self.boxed)

  def step(
    self, loss: LossFn, weights: Mapping[str, float], seed: int = 0
  ) -> Callable:
    """The function that a run compiles and repeats; see make_step."""
    return make_step(
      loss,
      self.optimizer,
      weights,
      microbatches=self.microbatches,
      guard=self.guard,
      seed=seed,
      # A system says so of stacks that it scans as they are.
      in_place=getattr(self.module, "in_place", ()),
    )

  def abstract_state(self, mesh: Mesh) -> tuple[TrainState, TrainState]:
    """The state as shapes that know where they live, and the shardings."""

    def make(trainable: Params, frozen: Params) -> TrainState:
      zero = jnp.zeros((), jnp.int32)
      return TrainState(
        step=zero,
        trainable=jax.tree.map(lambda x: x.astype(jnp.float32), trainable),
        frozen=jax.tree.map(lambda x: x.astype(self.frozen_dtype), frozen),
        opt_state=self.optimizer.init(trainable),
        skipped=zero,
        norm=jnp.zeros((), jnp.float32),
      )

    abstract = jax.eval_shape(make, *tree.split(self.boxed, self.mask))
    where = shardings(abstract, mesh)
    state = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      nn.unbox(abstract),
      where,
    )
    return state, where


def make_recipe(
  train: Mapping[str, Any], module: nn.Module, example: Batch, steps: int
) -> Recipe:
  """The recipe of `config.train`.

  Args:
    train: `trainable` and `optimizer`, and perhaps `frozen_dtype`,
      `microbatches` and `guard`; `plan` and `watchdog` are the loop's.
    module: the system.
    example: a batch, arrays or shapes.
    steps: of the whole run, for the schedule.

  Raises:
    ValueError: for keys that nothing takes, and for what they say.
  """
  settings = {k: v for k, v in train.items() if k not in LOOP}
  require(settings, ("trainable", "optimizer"), "config.train")
  rules = settings.pop("trainable")
  recipe = settings.pop("optimizer")
  frozen_dtype = jnp.dtype(settings.pop("frozen_dtype", "float32"))
  microbatches = settings.pop("microbatches", 1)
  guard = call(Guard, settings.pop("guard", {}))
  if settings:
    raise ValueError(f"config.train has unknown keys {sorted(settings)}.")
  boxed = abstract_params(module, example)
  shapes = nn.unbox(boxed)
  mask = trainable_mask(shapes, rules)
  trainable, _ = tree.split(shapes, mask)
  tx, schedule = make_optimizer(recipe, trainable, steps)
  return Recipe(
    *(module, boxed, mask, frozen_dtype, tx, schedule, microbatches, guard)
  )
