"""The state of a run: what trains, what is frozen, and how it begins."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh

from mmjax import tree
from mmjax.sharding import shardings
from mmjax.typing import Array, Batch, Float, Int, Params, PyTree


@struct.dataclass
class TrainState:
  """Everything that a step reads and writes.

  Attributes:
    step: updates so far, skipped ones included.
    trainable: parameters with gradients, float32.
    frozen: the other parameters; never saved, they come from their source.
    opt_state: of the trainable part only.
    skipped: steps whose update was dropped as not finite or a spike.
    norm: running mean of the gradient norm, for telling a spike.
  """

  step: Int[Array, ""]
  trainable: Params
  frozen: Params
  opt_state: PyTree
  skipped: Int[Array, ""]
  norm: Float[Array, ""]

  @property
  def params(self) -> dict[str, Any]:
    """All parameters in one tree."""
    return tree.merge(self.trainable, self.frozen)

  def saved(self) -> dict[str, PyTree]:
    """What a checkpoint holds: all but the frozen part."""
    return {
      "step": self.step,
      "trainable": self.trainable,
      "opt_state": self.opt_state,
      "skipped": self.skipped,
      "norm": self.norm,
    }


def trainable_mask(
  params: Params, rules: Sequence[tuple[str, bool]]
) -> dict[str, bool]:
  """Path to whether it trains; the rules have to cover every path."""
  mask = tree.match(params, rules)
  wrong = {k: v for k, v in mask.items() if not isinstance(v, bool)}
  if wrong:
    raise ValueError(f"Expected (pattern, True or False), got {wrong}.")
  if not any(mask.values()):
    raise ValueError(f"Nothing trains under {list(rules)}.")
  return mask


def abstract_params(module: nn.Module, batch: Batch) -> Params:
  """Shapes of all parameters, with the names of their dims."""
  variables = jax.eval_shape(module.init, jax.random.key(0), batch)
  return variables["params"]


def init_state(
  module: nn.Module,
  batch: Batch,
  *,
  rules: Sequence[tuple[str, bool]],
  optimizer: Callable[[Params], optax.GradientTransformation],
  mesh: Mesh,
  seed: int = 0,
  loaded: Mapping[str, Any] | None = None,
  frozen_dtype: Any = jnp.float32,
) -> tuple[TrainState, TrainState]:
  """A state that is born sharded: no device ever holds all of it.

  In order: draw what is not loaded, put the loaded parameters in, make the
  optimizer's state.

  Args:
    module: a system.
    batch: an example of its batches, arrays or shapes.
    rules: (pattern, trains) pairs that cover every parameter.
    optimizer: makes the update rule from the trainable tree.
    mesh: where the state lives.
    seed: of the parameters that are drawn.
    loaded: path to array, parameters that come from elsewhere; of one with a
      method `part` (sources.Stored) a host reads what its devices hold, one
      device's share at a time.
    frozen_dtype: of frozen parameters.

  Returns:
    the state, and the sharding of each of its arrays.
  """
  boxed = abstract_params(module, batch)
  mask = trainable_mask(nn.unbox(boxed), rules)
  loaded = dict(loaded or {})
  where = tree.flatten(shardings(boxed, mesh))
  shapes = tree.flatten(nn.unbox(boxed))
  _check_loaded(loaded, shapes)

  def cast(path, value):
    return value.astype(jnp.float32 if mask[path] else frozen_dtype)

  def draw(key):
    params = nn.unbox(module.init(key, batch)["params"])
    flat = tree.flatten(params)
    return {k: cast(k, v) for k, v in flat.items() if k not in loaded}

  drawn = {k: where[k] for k in shapes if k not in loaded}
  params = jax.jit(draw, out_shardings=drawn)(jax.random.key(seed))
  for path, value in loaded.items():
    dtype = jnp.float32 if mask[path] else frozen_dtype
    params[path] = _put(value, dtype, where[path])
  trainable, frozen = tree.split(tree.unflatten(params), mask)
  tx = optimizer(trainable)
  return _with_optimizer(trainable, frozen, tx, boxed, mask, mesh)


def _with_optimizer(trainable, frozen, tx, boxed, mask, mesh):
  """Moments take the shardings of their parameters."""
  boxed_trainable, boxed_frozen = tree.split(boxed, mask)

  def make(trainable):
    zero = jnp.zeros((), jnp.int32)
    # Not zero * 0.0, a weak type: the second step would be compiled again.
    norm = jnp.zeros((), jnp.float32)
    return TrainState(zero, trainable, {}, tx.init(trainable), zero, norm)

  abstract = jax.eval_shape(make, boxed_trainable)
  where = shardings(abstract, mesh)
  state = jax.jit(make, out_shardings=where)(trainable)
  where = where.replace(frozen=shardings(boxed_frozen, mesh))
  return state.replace(frozen=frozen), where


def _check_loaded(loaded, shapes):
  for path, value in loaded.items():
    if path not in shapes:
      raise ValueError(f"Loaded parameter {path!r} is not in the model.")
    if tuple(value.shape) != tuple(shapes[path].shape):
      raise ValueError(
        f"Loaded parameter {path!r} is {tuple(value.shape)}, the model's is "
        f"{tuple(shapes[path].shape)}."
      )


def _put(value, dtype, sharding):
  """An array on its devices; never more than one's share on the host."""
  if not hasattr(value, "part"):
    value = np.asarray(value)
  indices = sharding.addressable_devices_indices_map(tuple(value.shape))
  sharers: dict[str, list[Any]] = {}
  for device, index in indices.items():
    sharers.setdefault(str(index), []).append(device)
  shards = {}
  for devices in sharers.values():
    index = indices[devices[0]]
    part = value.part(index) if hasattr(value, "part") else value[index]
    part = np.asarray(part).astype(dtype)
    for device in devices:
      shards[device] = jax.device_put(part, device).block_until_ready()
  return jax.make_array_from_single_device_arrays(
    tuple(value.shape), sharding, [shards[device] for device in indices]
  )


def parameter_table(params: Params, mask: Mapping[str, bool]) -> str:
  """Components with their counts, frozen and trainable, as text."""
  rows: dict[str, list[int]] = {}
  for path, value in tree.flatten(params).items():
    parts = path.split("/")
    row = rows.setdefault(parts[0], [0, 0])
    row[mask[path]] += value.size
  lines = [f"{'component':24}{'trainable':>16}{'frozen':>16}"]
  for name, (frozen, trained) in rows.items():
    lines.append(f"{name:24}{trained:>16,}{frozen:>16,}")
  frozen, trained = (sum(r[i] for r in rows.values()) for i in (0, 1))
  lines.append(f"{'total':24}{trained:>16,}{frozen:>16,}")
  return "\n".join(lines)
