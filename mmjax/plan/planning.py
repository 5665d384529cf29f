"""A plan: whether a config fits a machine, and how fast it can be at most."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

from mmjax.data.build import plain
from mmjax.plan import collectives, hlo, products
from mmjax.plan.compiling import Compiled, compile_apart, compile_here
from mmjax.plan.generation import generation
from mmjax.plan.memory import Memory
from mmjax.plan.program import (
  Job,
  Program,
  component_table,
  make_job,
  residual_bytes,
)
from mmjax.plan.roofline import Roofline, roofline
from mmjax.plan.topology import NotInstalled, Topology
from mmjax.plan.traffic import memory_traffic
from mmjax.sharding import AXES, make_mesh, mesh_shape


@dataclasses.dataclass(frozen=True)
class Estimate:
  """One program on the machine.

  Attributes:
    name: of the program.
    memory: see Memory.
    operations: of a run, recomputation left out: the M of MFU.
    executed: with what rematerialisation does again, as traced.
    multiplied: of one device in the compiled program, without its kernels;
      None when not compiled, or for GPUs, whose products are kernels.
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
  multiplied: int | None
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
  config: Mapping[str, Any],
  topology: Topology,
  *,
  generates: bool = False,
  finishes: bool = False,
) -> Plan:
  """Compiles a config's programs for a machine that need not be there.

  Args:
    config: of `configs/`.
    topology: of `topology.parse`.
    generates: plans the programs of generation in place of training.
    finishes: makes machine code of TPUs, too; see compiling.py.

  Raises:
    DoesNotFit: when a size does not divide.
    ValueError: for what `mmjax train` would refuse.
    CompilerError: when a program is refused that has memory enough.
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

  def compiled(program: Program) -> Compiled | None:
    if unchecked:
      return None
    if topology.chip.platform != "tpu":
      return compile_here(program, mesh, topology)
    fixed = config | {"mesh": dict(mesh.shape)}
    asked = dict(generates=generates, finishes=finishes)
    return compile_apart(fixed, topology, program, **asked)

  return Plan(
    topology=topology,
    mesh=dict(mesh.shape),
    parameters=component_table(job),
    programs=[
      estimate(job, program, topology, compiled(program))
      for program in programs(job, generates)
    ],
    unchecked=tuple(unchecked),
  )


def programs(job: Job, generates: bool) -> list[Program]:
  """The programs of training, or of generation, each with its own name."""
  return generation(job) if generates else job.training()


def estimate_memory(config: Mapping[str, Any], topology: Topology) -> Memory:
  """The memory of a training step from shapes alone."""
  job = make_job(config, _abstract_mesh(config, topology))
  found = [_by_shapes(job, program, topology) for program in job.training()]
  return max(found, key=lambda m: m.peak)


def _sizes(config: Mapping[str, Any]) -> Mapping[str, int]:
  return config.get("mesh", {"data": -1})


def _abstract_mesh(config: Mapping[str, Any], topology: Topology):
  """A mesh of the right shape without devices."""
  shape = mesh_shape(_sizes(config), topology.size)
  return AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def estimate(
  job: Job, program: Program, topology: Topology, compiled: Compiled | None
) -> Estimate:
  """One program, as a compiler left it or from shapes."""
  operations = executed = program.count()
  simple = without_remat(job.config)
  if program.trains and simple != job.config:
    operations = _same(make_job(simple, job.mesh), program.name).count()
  talk = traffic = multiplied = None
  least = executed / topology.size
  if compiled is not None and compiled.text is not None:
    module = hlo.parse(compiled.text)
    talk = collectives.collectives(
      module, dict(job.mesh.shape), topology.slices
    )
    traffic = memory_traffic(module)
    if topology.chip.platform == "tpu":
      multiplied = products.operations(module)
      # What is traced for the backward pass may be more than it needs.
      least = max(multiplied, operations / topology.size)
  return Estimate(
    name=program.name,
    memory=compiled.memory if compiled else _by_shapes(job, program, topology),
    operations=operations,
    executed=executed,
    multiplied=multiplied,
    traffic=traffic,
    talk=talk,
    times=roofline(topology.chip, least, traffic, talk),
    tokens=program.tokens,
    media=program.media,
    compile_seconds=compiled and compiled.seconds,
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


def _by_shapes(job: Job, program: Program, topology: Topology) -> Memory:
  """What a program takes when nobody has compiled it."""
  arguments = peak = program.argument_bytes
  if program.trains:
    peak += estimated_temporaries(job)
  limit = int(topology.chip.usable)
  return Memory(arguments, None, peak, limit, compiled=False)


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
