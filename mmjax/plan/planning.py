"""A plan: whether a config fits a machine, and how fast it can be at most."""

import dataclasses
import logging
import math
import re
import time
import warnings
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

from mmjax.data.build import plain
from mmjax.plan import collectives, hlo
from mmjax.plan.generation import generation
from mmjax.plan.program import (
  Job,
  Program,
  component_table,
  make_job,
  residual_bytes,
)
from mmjax.plan.roofline import Roofline, roofline
from mmjax.plan.topology import NotInstalled, Topology
from mmjax.sharding import AXES, make_mesh, mesh_shape

log = logging.getLogger(__name__)

# Of a GPU's memory, what a program can have: the driver, cuDNN and NCCL keep
# the rest. libtpu knows the limit of a TPU itself.
USABLE = {"cuda": 0.92, "tpu": 1.0}
_AMOUNT = r"([\d.]+)([KMGT])"
# What libtpu says of a program that is too large; the first leaves out the
# arguments.
_TEMPORARIES = re.compile(rf"\({_AMOUNT}\) exceeds available \w+ \({_AMOUNT}\)")
_ALL = re.compile(rf"Used {_AMOUNT} of {_AMOUNT} hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one device.

  Attributes:
    arguments: state and batch.
    temporaries: what the program needs besides; None when not known.
    peak: of both, as the compiler plans it; estimated from shapes without it.
    limit: what a device has for a program.
    compiled: whether a compiler said so.
  """

  arguments: int
  temporaries: int | None
  peak: int
  limit: int
  compiled: bool

  @property
  def fits(self) -> bool:
    return self.peak <= self.limit


@dataclasses.dataclass(frozen=True)
class Estimate:
  """One program on the machine.

  Attributes:
    name: of the program.
    memory: see Memory.
    operations: of a run, recomputation left out: the M of MFU.
    executed: with what rematerialisation does again.
    traffic: bytes of a device's main memory; None when not compiled.
    talk: its collectives; None when not compiled.
    times: the roofline.
    tokens, media: of a run.
    compile_seconds: of lowering and compiling.
  """

  name: str
  memory: Memory
  operations: int
  executed: int
  traffic: int | None
  talk: list[collectives.Collective] | None
  times: Roofline
  tokens: int
  media: int
  compile_seconds: float | None

  def mfu(self, topology: Topology) -> float:
    """The bound of model FLOP utilisation."""
    ideal = self.operations / topology.size / topology.chip.flops
    return ideal / self.times.seconds


@dataclasses.dataclass(frozen=True)
class Plan:
  """All that is known of a config on a machine.

  Attributes:
    topology: the machine.
    mesh: axis to size.
    parameters: rows of `component_table`.
    programs: what runs.
    unchecked: what could not be checked, and why.
  """

  topology: Topology
  mesh: Mapping[str, int]
  parameters: list[dict[str, Any]]
  programs: list[Estimate]
  unchecked: tuple[str, ...] = ()

  @property
  def fits(self) -> bool:
    return all(p.memory.fits for p in self.programs)


def make_plan(
  config: Mapping[str, Any], topology: Topology, *, generates: bool = False
) -> Plan:
  """Compiles a config's programs for a machine that need not be there.

  Args:
    config: of `configs/`.
    topology: of `topology.parse`.
    generates: plans the programs of generation in place of training.

  Raises:
    DoesNotFit: when a size does not divide.
    ValueError: for what `mmjax train` would refuse.
  """
  config = plain(config)
  unchecked: list[str] = []
  try:
    mesh = make_mesh(_sizes(config), topology.devices())
  except NotInstalled as error:
    unchecked.append(
      f"memory of temporaries, collectives, memory traffic ({error})"
    )
    mesh = _abstract_mesh(config, topology)
  job = make_job(config, mesh)
  made = generation(job) if generates else job.training()
  programs = [
    estimate(job, program, topology, compiles=not unchecked) for program in made
  ]
  return Plan(
    topology=topology,
    mesh=dict(mesh.shape),
    parameters=component_table(job),
    programs=programs,
    unchecked=tuple(unchecked),
  )


def estimate_memory(config: Mapping[str, Any], topology: Topology) -> Memory:
  """The memory of a training step from shapes alone."""
  job = make_job(config, _abstract_mesh(config, topology))
  programs = job.training()
  found = [_memory(job, program, None, topology) for program in programs]
  return max(found, key=lambda m: m.peak)


def _sizes(config: Mapping[str, Any]) -> Mapping[str, int]:
  return config.get("mesh", {"data": -1})


def _abstract_mesh(config: Mapping[str, Any], topology: Topology):
  """A mesh of the right shape without devices."""
  shape = mesh_shape(_sizes(config), topology.size)
  return AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def estimate(
  job: Job, program: Program, topology: Topology, *, compiles: bool
) -> Estimate:
  """One program, compiled or from shapes."""
  operations = executed = program.count()
  simple = without_remat(job.config)
  if program.trains and simple != job.config:
    operations = _same(make_job(simple, job.mesh), program.name).count()
  compiled, seconds = None, None
  if compiles:
    started = time.monotonic()
    with jax.set_mesh(job.mesh):
      compiled = _compile(program)
    seconds = time.monotonic() - started
  module = talk = traffic = None
  if compiled is not None and not isinstance(compiled, Memory):
    module = hlo.parse(compiled.as_text())
    talk = collectives.collectives(
      module, dict(job.mesh.shape), topology.slices
    )
    traffic = hlo.memory_traffic(module)
  return Estimate(
    name=program.name,
    memory=_memory(job, program, compiled, topology),
    operations=operations,
    executed=executed,
    traffic=traffic,
    talk=talk,
    times=roofline(topology.chip, topology.size, executed, traffic, talk),
    tokens=program.tokens,
    media=program.media,
    compile_seconds=seconds,
  )


def _same(job: Job, name: str) -> Program:
  return next(p for p in job.training() if p.name == name)


def without_remat(config: Any) -> Any:
  """A config whose stacks keep everything for the backward pass."""
  if isinstance(config, Mapping):
    return {
      k: "none" if k == "remat" else without_remat(v) for k, v in config.items()
    }
  if isinstance(config, tuple | list):
    return tuple(without_remat(v) for v in config)
  return config


def _compile(program: Program) -> Any:
  """The compiled program, or the Memory that it would have needed."""
  try:
    with warnings.catch_warnings():
      # JAX's cache keeps such programs, and cannot read them again.
      warnings.filterwarnings("ignore", "Error reading persistent compilation")
      return program.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    memory = refused(str(error), program.argument_bytes)
    if memory is None:
      raise
    return memory


def refused(message: str, arguments: int) -> Memory | None:
  """What a compiler's refusal says of memory; None of another error.

  Args:
    message: of the error.
    arguments: bytes of the program's arguments on one device.
  """
  found = _TEMPORARIES.search(message)
  every = found or _ALL.search(message)
  if every is None:
    return None
  needs, limit = (int(float(every[i]) * _UNITS[every[i + 1]]) for i in (1, 3))
  temporaries = needs if found else max(needs - arguments, 0)
  peak = max(temporaries + arguments, limit + 1)
  return Memory(arguments, temporaries, peak, limit, compiled=True)


def _memory(
  job: Job, program: Program, compiled: Any, topology: Topology
) -> Memory:
  limit = int(topology.chip.memory * USABLE[topology.chip.platform])
  arguments = program.argument_bytes
  if isinstance(compiled, Memory):
    return compiled
  if compiled is None:
    peak = arguments
    if program.trains:
      peak += estimated_temporaries(job)
    return Memory(arguments, None, peak, limit, compiled=False)
  said = compiled.memory_analysis()
  temporaries = said.temp_size_in_bytes
  peak = said.peak_memory_in_bytes
  if topology.chip.platform != "tpu":
    # Nobody has refused what is too large, so the larger of two figures that
    # disagree counts. Of a TPU's program that compiled, it is known to fit.
    whole = said.argument_size_in_bytes + temporaries
    whole += said.output_size_in_bytes - said.alias_size_in_bytes
    peak = max(peak, whole)
  return Memory(said.argument_size_in_bytes, temporaries, peak, limit, True)


def estimated_temporaries(job: Job) -> int:
  """Bytes on one device from shapes: gradients, and what is kept for them.

  A compiler does better where it fuses, and worse where it has to gather.
  """
  state, _ = job.state
  gradients = sum(
    math.prod(x.sharding.shard_shape(x.shape)) * 4
    for x in jax.tree.leaves(state.trainable)
  )
  return gradients + residual_bytes(job) // math.prod(job.mesh.shape.values())
