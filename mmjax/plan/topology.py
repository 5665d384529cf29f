"""A machine by its name, and its devices for the compiler.

  v5e:16x16        one slice of 256 chips
  2*v5p:8x8x8      two slices; `data` lies across them
  h200:8           one node of 8 GPUs
  h200:4x8         four nodes

Devices that nobody has are described by libtpu, or by a text for XLA's GPU
compiler: programs compile for them and cannot run.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from mmjax.config import lookup
from mmjax.plan.chips import CHIPS, Chip

_NAME = re.compile(r"(?:(\d+)\*)?([a-z0-9]+):(\d+(?:x\d+)*)")
# Chips of TPU hosts, as the compiler lays them in a slice.
_HOST = {2: (2, 2), 3: (2, 2, 1)}
# libtpu reads them when it is loaded: it looks for no machine then, and minds
# no other process that plans.
_QUIET = {
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "",
  "TPU_STDERR_LOG_LEVEL": "3",
  "TPU_MIN_LOG_LEVEL": "3",
}


class NotInstalled(ImportError):
  """The compiler for a topology is an extra that is not there."""


@dataclasses.dataclass(frozen=True)
class Topology:
  """A machine.

  Attributes:
    name: as it was given.
    chip: of which it is made.
    slices: that only a network connects; nodes, of GPUs.
    shape: of one slice, in chips; of one node, its GPUs.
  """

  name: str
  chip: Chip
  slices: int
  shape: tuple[int, ...]

  @property
  def per_slice(self) -> int:
    """Devices of a slice or node."""
    twice = 2 if self.chip.name == "tpu7x" else 1
    return twice * math.prod(self.shape)

  @property
  def size(self) -> int:
    """Devices of all slices or nodes."""
    return self.slices * self.per_slice

  def devices(self) -> Sequence[Any]:
    """Devices to compile for.

    Raises:
      NotInstalled: when the extra is not there that knows them.
      ValueError: when the compiler refuses the topology.
    """
    tpu = self.chip.platform == "tpu"
    return _tpu_devices(self) if tpu else _gpu_devices(self)


def parse(name: str) -> Topology:
  """A topology from its name.

  Raises:
    ValueError: for one that does not exist, with names that do.
  """
  found = _NAME.fullmatch(name.strip().lower())
  if not found:
    raise ValueError(
      f"{name!r} is no topology. Write 'v5e:16x16', '2*v5p:8x8x8', 'h200:8' or "
      f"'h200:4x8'; chips are {', '.join(CHIPS)}."
    )
  times, kind, shape = found.groups()
  chip = lookup(CHIPS, kind, "chip")
  sizes = tuple(map(int, shape.split("x")))
  slices = int(times or 1)
  if min(*sizes, slices) < 1:
    raise ValueError(f"{name!r} has a size of 0.")
  if chip.dims:
    return _tpu(name, chip, slices, sizes)
  if len(sizes) > 2 or (times and len(sizes) > 1):
    raise ValueError(
      f"{name!r}: GPUs are written as {kind}:8, or with nodes as {kind}:4x8."
    )
  nodes = sizes[0] if len(sizes) == 2 else slices
  return Topology(name, chip, nodes, sizes[-1:])


def _tpu(name: str, chip: Chip, slices: int, sizes: tuple) -> Topology:
  if len(sizes) != chip.dims:
    example = "x".join(["4"] * chip.dims)
    raise ValueError(
      f"{name!r}: a slice of {chip.name} has {chip.dims} dims, such as "
      f"{chip.name}:{example}; given are {len(sizes)}."
    )
  host = _HOST[chip.dims]
  if any(size % h for size, h in zip(sizes, host)):
    raise ValueError(
      f"{name!r}: hosts of {chip.name} hold {'x'.join(map(str, host))} chips, "
      "which do not divide the slice."
    )
  return Topology(name, chip, slices, sizes)


def installed(package: str) -> bool:
  """Whether a package is there, without importing it."""
  return importlib.util.find_spec(package) is not None


def _tpu_devices(topology: Topology) -> Sequence[Any]:
  if not installed("libtpu"):
    raise NotInstalled(
      "libtpu, the compiler for TPUs, is not installed: "
      "pip install -r requirements-tpu.txt"
    )
  for key, value in _QUIET.items():
    os.environ.setdefault(key, value)
  from jax.experimental import topologies

  shape = "x".join(map(str, topology.shape))
  more = dict(topology.chip.options)
  if topology.slices > 1:
    more["num_slices"] = topology.slices
  try:
    with _silence():
      made = topologies.get_topology_desc(
        platform="tpu", topology_name=f"{topology.chip.name}:{shape}", **more
      )
  except Exception as error:  # XLA's own errors have no type to name.
    raise ValueError(
      f"libtpu does not know {topology.name!r}: {_first_line(error)}"
    ) from error
  return made.devices


def _gpu_devices(topology: Topology) -> Sequence[Any]:
  if not (installed("jax_cuda12_plugin") or installed("jax_cuda13_plugin")):
    raise NotInstalled(
      "JAX's CUDA plugin, the compiler for GPUs, is not installed: "
      "pip install -r requirements-cuda.txt"
    )
  from jax.experimental import topologies

  from mmjax.plan.gpu import description

  try:
    made = topologies.get_topology_desc(
      platform="cuda",
      target_config=description(topology.chip),
      topology=f"1x{topology.slices}x{topology.per_slice}",
    )
  except Exception as error:
    raise ValueError(
      f"The CUDA plugin refuses {topology.name!r}: {_first_line(error)}"
    ) from error
  return made.devices


def _first_line(error: Exception) -> str:
  return str(error).strip().partition("\n")[0][:300]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
  """Keeps libtpu's complaints about a missing machine off the terminal."""
  saved = os.dup(2)
  with open(os.devnull, "w") as nothing:
    os.dup2(nothing.fileno(), 2)
  try:
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)
