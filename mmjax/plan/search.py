"""Other batches, remat policies and meshes for a config: what fits, how fast.

What shapes alone rule out is not compiled.
"""

import copy
import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmjax.plan.planning import Plan, estimate_memory, make_plan
from mmjax.plan.program import DoesNotFit
from mmjax.plan.topology import Topology
from mmjax.sharding import AXES
from mmjax.systems import SYSTEMS

log = logging.getLogger(__name__)

BATCHES = (2.0, 1.0, 0.5, 0.25)
REMAT = ("none", "dots", "full")
# What comes before tensor parallelism, which talks in every layer.
TENSOR = (1, 2, 4, 8)
# An estimate beyond this part of the memory is not worth a compiler's time:
# it knows no fusion, and is seldom wrong by more.
HOPELESS = 2.0


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A config with changes.

  Attributes:
    changes: keys, as the command line writes them, to values.
    plan: what was found; None where nothing was compiled.
    why: why shapes ruled it out.
    likely: whether it fits by its shapes.
  """

  changes: Mapping[str, Any]
  plan: Plan | None = None
  why: str = ""
  likely: bool = False

  @property
  def fits(self) -> bool:
    return self.plan is not None and self.plan.fits

  @property
  def speed(self) -> float:
    """Tokens a second, at most."""
    programs = self.plan.programs
    time = sum(p.times.seconds for p in programs)
    return sum(p.tokens for p in programs) / time


def search(
  config: Mapping[str, Any], topology: Topology, most: int = 12
) -> list[Candidate]:
  """Tries batch x remat policy x mesh.

  Args:
    config: plain.
    topology: the machine.
    most: how many are compiled at most.

  Returns:
    what fits, fastest first, then the others.
  """
  tried = [
    _by_shapes(config, changes, topology) for changes in _grid(config, topology)
  ]
  ladders = _ladders(c for c in tried if not c.why)
  done: list[Candidate] = []
  while ladders and len(done) < most:
    first, *smaller = ladders.pop(0)
    done.append(_compiled(config, first.changes, topology))
    if smaller and not done[-1].fits:
      ladders.append(smaller)
  ranked = sorted(done, key=lambda c: (not c.fits, -c.speed if c.plan else 0.0))
  return ranked + [c for c in tried if c.why]


def _ladders(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
  """Of each remat policy and mesh its batches, from the largest likely one on.

  Smaller ones have less to do for every parameter that is sent, and are worth
  a compiler's time only where the larger do not fit.
  """
  kinds: dict[str, list[Candidate]] = {}
  for candidate in candidates:  # Larger batches come first.
    changes = candidate.changes.items()
    kind = repr([(k, v) for k, v in changes if not k.startswith("data.")])
    kinds.setdefault(kind, []).append(candidate)
  return [
    list(itertools.dropwhile(lambda c: not c.likely, ladder)) or ladder[-1:]
    for ladder in kinds.values()
  ]


def what_fits(
  config: Mapping[str, Any], topology: Topology, most: int = 4
) -> Candidate | None:
  """The first that fits of changes that leave the recipe's results alone.

  Batches stay as they are: other meshes, recomputation and micro-batches.
  """
  tried = (
    _by_shapes(config, changes, topology)
    for changes in _remedies(config, topology)
  )
  possible = _likely_first(c for c in tried if not c.why)
  done = (_compiled(config, c.changes, topology) for c in possible[:most])
  return next((c for c in done if c.fits), None)


def _likely_first(candidates: Iterable[Candidate]) -> list[Candidate]:
  """In their order, but those that fit by their shapes before the others."""
  return sorted(candidates, key=lambda c: not c.likely)


def changed(
  config: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
  """The config with `a.b.c` keys set."""
  config = copy.deepcopy(dict(config))
  for key, value in changes.items():
    *parents, last = key.split(".")
    node = config
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = value
  return config


def missing(config: Mapping[str, Any], changes: Mapping[str, Any]) -> list[str]:
  """Changed keys that the command line refuses: the config leaves them out."""

  def there(key: str) -> bool:
    node = config
    for part in key.split("."):
      if not isinstance(node, Mapping) or part not in node:
        return False
      node = node[part]
    return True

  return [key for key in changes if not there(key)]


def _grid(
  config: Mapping[str, Any], topology: Topology
) -> Iterator[dict[str, Any]]:
  keys = remat_keys(config)
  for remat, factor, mesh in itertools.product(
    REMAT, BATCHES, _meshes(topology)
  ):
    changes = dict.fromkeys(keys, remat) | mesh
    if factor != 1.0:
      changes |= _batches(config, factor)
    yield changes


def _batches(config: Mapping[str, Any], factor: float) -> dict[str, int]:
  return {
    f"data.datasets.{name}.batch": max(int(entry["batch"] * factor), 1)
    for name, entry in config["data"]["datasets"].items()
  }


def _remedies(
  config: Mapping[str, Any], topology: Topology
) -> Iterator[dict[str, Any]]:
  full = dict.fromkeys(remat_keys(config), "full")
  now = config["train"].get("microbatches", 1)
  meshes = _meshes(topology)
  yield dict(full)
  for mesh, times in itertools.product(meshes, (1, 2, 4, 8, 16)):
    more = {"train.microbatches": now * times} if times > 1 else {}
    yield full | mesh | more


def _meshes(topology: Topology) -> list[dict[str, int]]:
  """Meshes of a machine: data across slices, parameters cut within."""
  found = []
  for tensor in TENSOR:
    if topology.per_slice % tensor or tensor > topology.per_slice:
      continue
    sizes = dict.fromkeys(AXES, 1) | dict(
      data=topology.slices, fsdp=-1, tensor=tensor
    )
    found.append({f"mesh.{axis}": n for axis, n in sizes.items()})
  return found


def remat_keys(config: Mapping[str, Any]) -> list[str]:
  """Keys of `config.model` that take the name of a remat policy."""
  build = SYSTEMS[config["system"]].build
  keys = []
  for name, part in config["model"].items():
    if not isinstance(part, Mapping) or "name" not in part:
      continue
    try:
      build(config["model"] | {name: dict(part) | {"remat": "full"}})
    except ValueError:
      continue
    keys.append(f"model.{name}.remat")
  return keys


def _by_shapes(
  config: Mapping[str, Any], changes: Mapping[str, Any], topology: Topology
) -> Candidate:
  """What shapes say: impossible, hopeless, or worth a compiler's time."""
  try:
    memory = estimate_memory(changed(config, changes), topology)
  except DoesNotFit as error:
    return Candidate(changes, why=str(error))
  if memory.arguments > memory.limit:
    return Candidate(changes, why="the state alone is too large")
  if memory.peak > HOPELESS * memory.limit:
    return Candidate(changes, why="what the backward pass needs is too large")
  return Candidate(changes, likely=memory.fits)


def _compiled(
  config: Mapping[str, Any], changes: Mapping[str, Any], topology: Topology
) -> Candidate:
  plan = make_plan(changed(config, changes), topology)
  memory = max((p.memory for p in plan.programs), key=lambda m: m.peak)
  log.info(
    "%s: %s, %.2f of %.2f GiB",
    describe(config, changes) or "(as it is)",
    "fits" if plan.fits else "does not fit",
    *(memory.peak / 2**30, memory.limit / 2**30),
  )
  return Candidate(changes, plan)


def describe(config: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
  """Changes as the command line takes them; those that change nothing not."""
  return " ".join(
    f"--config.{key}={value}"
    for key, value in changes.items()
    if changed(config, {key: value}) != config
  )


def table(config: Mapping[str, Any], candidates: Sequence[Candidate]) -> str:
  """What was tried, best first."""
  lines = [f"{'tokens/s <=':>12} {'MFU <=':>7} {'GiB':>7} {'of':>7}  changes"]
  for c in candidates:
    if c.plan is None:
      continue
    memory = max((p.memory for p in c.plan.programs), key=lambda m: m.peak)
    mfu = min(p.mfu(c.plan.topology) for p in c.plan.programs)
    # Of what is refused, nothing but the size is known.
    fast = f"{c.speed:>12,.0f} {mfu:>7.1%}" if c.fits else f"{'too large':>20}"
    lines.append(
      f"{fast} {memory.peak / 2**30:>7.2f} {memory.limit / 2**30:>7.2f}  "
      f"{describe(config, c.changes) or '(as it is)'}"
    )
  left = sum(c.plan is None for c in candidates)
  if left:
    lines.append(f"{left} more do not divide or are too large by their shapes.")
  return "\n".join(lines)
