"""One mesh, and rules from the names of dims to its axes.

The mesh has the axes `data` (replicas, across slices), `fsdp` (parameters and
batch), `sequence` and `tensor`. Modules name the dims of their parameters;
RULES say which axis a name is cut over, ACTIVATIONS the same of what flows
through them. The same config runs anywhere by changing the sizes of the axes.
"""

import collections
import contextlib
import contextvars
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.config import nearest
from mmjax.typing import Array, PyTree

log = logging.getLogger(__name__)

AXES = ("data", "fsdp", "sequence", "tensor")
# A dim that its axis does not divide is replicated; see `shardings`.
RULES: Mapping[str, str | None] = {
  "embed": "fsdp",
  "vocab": "tensor",
  "mlp": "tensor",
  "heads": "tensor",
  "kv_heads": "tensor",
  "head_dim": None,
  "layers": None,
  "conv_in": None,
  "conv_out": "fsdp",
}
BATCH = ("data", "fsdp")
# A dim of an activation is cut over as many of its axes as divide it.
ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
  "batch": BATCH,
  "length": ("sequence",),
  "heads": ("tensor",),
  "mlp": ("tensor",),
  "vocab": ("tensor",),
}
# Where rows have nothing to do with each other (media), all devices share them.
_ROWS: Mapping[str, tuple[str, ...]] = {"batch": AXES}
_said: set[tuple[str, int, str]] = set()
_rules = contextvars.ContextVar("activations", default=ACTIVATIONS)


def make_mesh(
  sizes: Mapping[str, int], devices: Sequence[Any] | None = None
) -> Mesh:
  """A mesh over all devices, of one slice or of several.

  Slices of TPUs are joined by a network that is slow beside the one within
  them, so only `data` goes across: its gradients are summed there once a step.
  Nodes of GPUs count as slices where they say so and the sizes allow it; else
  devices are taken in their order.

  Args:
    sizes: axis to size; axes left out have size 1, and one may be -1 for all
      devices that the others leave.
    devices: all of the process' by default.

  Raises:
    ValueError: for an unknown axis, or sizes that the devices do not fill, or
      that do not cut along slices.
  """
  devices = jax.devices() if devices is None else devices
  shape, slices = mesh_shape(sizes, len(devices)), _slices(devices)
  named = dict(zip(AXES, shape))
  if shape[0] % slices and devices[0].platform != "tpu":
    slices = 1
  if shape[0] % slices:
    raise ValueError(
      f"A mesh of {named} has {shape[0]} parts along `data`, which {slices} "
      "slices do not divide, and no other axis goes across slices. Set "
      f"config.mesh.data to {slices}, or to a multiple."
    )
  try:
    grid = _grid(shape, slices, devices)
  except (AssertionError, NotImplementedError) as error:
    raise ValueError(
      f"A mesh of {named} has no place on these {len(devices)} "
      f"{devices[0].device_kind}: {error} Give the axes of config.mesh sizes "
      "that are products of the sides of a slice."
    ) from error
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _grid(shape: tuple[int, ...], slices: int, devices: Sequence[Any]) -> Any:
  """Devices in their places, neighbours along an axis near each other.

  Where no axis can be a side of a slice or several, sides are split.
  """
  within, across = (shape[0] // slices, *shape[1:]), (slices, 1, 1, 1)

  def place(split):
    if slices == 1:
      return mesh_utils.create_device_mesh(
        shape, devices, allow_split_physical_axes=split
      )
    return mesh_utils.create_hybrid_device_mesh(
      within, across, devices, allow_split_physical_axes=split
    )

  try:
    return place(split=False)
  except NotImplementedError:
    return place(split=True)


def _slices(devices: Sequence[Any]) -> int:
  """How many slices devices are of; those that name none are of one."""
  count = collections.Counter(getattr(d, "slice_index", 0) for d in devices)
  if len(set(count.values())) > 1:
    if devices[0].platform != "tpu":
      return 1
    raise ValueError(
      f"Slices have different numbers of devices: {dict(count)}. Use equal "
      "ones."
    )
  return len(count)


def mesh_shape(sizes: Mapping[str, int], devices: int) -> tuple[int, ...]:
  """Sizes of all AXES for so many devices.

  Raises:
    ValueError: for an unknown axis, or sizes that the devices do not fill.
  """
  for name in sizes:
    if name not in AXES:
      raise ValueError(f"The mesh has no axis {name!r}. {nearest(name, AXES)}")
  shape = [sizes.get(axis, 1) for axis in AXES]
  if shape.count(-1) > 1:
    raise ValueError(f"Only one axis may be -1: {dict(sizes)}.")
  known = math.prod(s for s in shape if s != -1)
  if -1 in shape:
    shape[shape.index(-1)] = devices // known
  if math.prod(shape) != devices:
    raise ValueError(
      f"A mesh of {dict(zip(AXES, shape))} does not use {devices} devices. "
      "Change config.mesh; -1 on one axis takes what is left."
    )
  return tuple(shape)


def shardings(abstract: PyTree, mesh: Mesh) -> PyTree:
  """Shardings of a tree that still carries the names of its dims.

  Args:
    abstract: what `jax.eval_shape` gives for a function that makes boxed
      parameters (Flax's LogicallyPartitioned) and perhaps plain arrays.
    mesh: of `make_mesh`.

  Returns:
    a NamedSharding for every array, in the tree without boxes. An axis that
    does not divide its dim is left out there, which is logged once for dims of
    that name and size; plain arrays are replicated.
  """

  def one(path, leaf):
    if not isinstance(leaf, nn.LogicallyPartitioned):
      return NamedSharding(mesh, P())
    where = jax.tree_util.keystr(path, simple=True, separator="/")
    spec = _spec(where, leaf.names, leaf.value.shape, mesh)
    return NamedSharding(mesh, P(*spec))

  return jax.tree_util.tree_map_with_path(
    one, abstract, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
  )


def _spec(path, names, shape, mesh) -> list[str | None]:
  spec: list[str | None] = []
  for name, size in zip(names, shape):
    if name is not None and name not in RULES:
      raise ValueError(f"No rule for dim {name!r}. {nearest(name, RULES)}")
    axis = RULES[name] if name is not None else None
    if axis is None or axis in spec:
      spec.append(None)
    elif size % mesh.shape[axis]:
      _say_whole(path, name, size, f"{axis}={mesh.shape[axis]}")
      spec.append(None)
    else:
      spec.append(axis)
  return spec


def _say_whole(path: str, name: str, size: int, axis: str) -> None:
  """Logs that a dim stays whole, the first time that one of its size does."""
  if (name, size, axis) not in _said:
    _said.add((name, size, axis))
    log.warning(
      "%s: its %d %s are not cut, since %s of config.mesh does not divide "
      "them; each of those devices has all (said once for such a dim)",
      *(path, size, name, axis),
    )


@contextlib.contextmanager
def rows_over_all() -> Iterator[None]:
  """Within it, `batch` is cut over every axis, and nothing else is."""
  token = _rules.set(_ROWS)
  try:
    yield
  finally:
    _rules.reset(token)


def platform() -> str:
  """Of the devices that what is traced now is for: `cpu`, `gpu` or `tpu`.

  Those of the mesh in scope (`jax.set_mesh`), which need not be there at all
  when a program is only compiled; without a mesh, the process' own.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform


def placed() -> bool:
  """Whether it is known how arrays lie: a mesh in scope, or a single device."""
  mesh = jax.sharding.get_abstract_mesh()
  return not mesh.empty or jax.device_count() == 1


def axes_of(name: str | None, size: int) -> tuple[str, ...]:
  """The axes of the mesh in scope that a dim of an activation is cut over.

  Args:
    name: one of ACTIVATIONS; others are cut over none.
    size: of the dim; axes from the first that does not divide it are left out.
  """
  shape = jax.sharding.get_abstract_mesh().shape
  found: list[str] = []
  for axis in _rules.get().get(name, ()):
    parts = math.prod(shape[a] for a in found) * shape.get(axis, 1)
    if size % parts:
      # Rows differ from batch to batch, and a step of decoding has length 1.
      if name == "length" and size > 1:
        _say_whole("the text", "tokens", size, f"{axis}={shape[axis]}")
      break
    if shape.get(axis, 1) > 1:
      found.append(axis)
  return tuple(found)


def parts_of(name: str, size: int | None = None) -> int:
  """Into how many parts a dim is cut; of any size by default."""
  mesh = jax.sharding.get_abstract_mesh()
  return math.prod(
    mesh.shape[axis] for axis in axes_of(name, 0 if size is None else size)
  )


def spec_of(names: Sequence[str | None], shape: Sequence[int]) -> P:
  """How an activation whose dims have these names lies on the mesh."""
  return P(*(axes_of(name, size) or None for name, size in zip(names, shape)))


def constrain(x: Array, *names: str | None) -> Array:
  """`x`, lying on the mesh in scope as ACTIVATIONS say; without one just `x`.

  Args:
    x: an activation.
    *names: of its leading dims; a dim without a name is whole everywhere.
  """
  if jax.sharding.get_abstract_mesh().size <= 1:
    return x
  spec = spec_of((*names, *(None,) * (x.ndim - len(names))), x.shape)
  return jax.lax.with_sharding_constraint(x, spec)


def on_rows(f: Callable[..., Array], x: Array, whole: Array) -> Array:
  """`f(x, whole)`, each device with its rows of `x` and all of `whole`.

  For what the compiler would not cut by itself, such as a grouped convolution.
  """
  if jax.sharding.get_abstract_mesh().size <= 1:
    return f(x, whole)
  rows = spec_of(("batch",), x.shape)
  return jax.shard_map(f, in_specs=(rows, P()), out_specs=rows)(x, whole)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows of a batch over all data-parallel devices."""
  return NamedSharding(mesh, P(BATCH))


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
  """A host's rows of a batch as arrays over the mesh.

  Raises:
    ValueError: when the devices do not divide the rows.
  """
  sharding = batch_sharding(mesh)
  parts = math.prod(mesh.shape[axis] for axis in BATCH)

  def one(x):
    x = np.asarray(x)
    rows = x.shape[0] * jax.process_count()
    if rows % parts:
      raise ValueError(
        f"A batch of {rows} rows cannot be cut over {parts} devices "
        f"({'×'.join(BATCH)}). Change the dataset's `batch` or config.mesh."
      )
    return jax.make_array_from_process_local_data(sharding, x)

  return jax.tree.map(one, batch)
