"""What devices say to each other in a program, by kind and mesh axis."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmjax.plan import hlo
from mmjax.plan.loops import all_instructions

KINDS = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
_OPCODES = {**{k: k for k in KINDS}, **{f"{k}-start": k for k in KINDS}}
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[^=]*?\})\}")
_IOTA = r"\[([\d,]+)\](?:<=\[([\d,]+)\])?(?:T\(([\d,]+)\))?"
_GROUPS = re.compile("replica_groups=" + _IOTA)
_MESH = re.compile(
  r"replica_groups=mesh\[([^\]]*)\]"
  rf"(?:, device_ids=\({_IOTA}\))? \{{([^}}]*)\}}"
)


@dataclasses.dataclass(frozen=True)
class Collective:
  """All runs of one kind over one set of axes.

  Attributes:
    kind: of KINDS.
    axes: of the mesh that the devices of a group differ in, "fsdp" or
      "data+fsdp"; "sliced" where data cross slices.
    count: of instructions.
    runs: of them in a step, loops unrolled.
    bytes: in a step, of the whole arrays: gathered, or before they are reduced.
    sent: in a step, bytes that a device sends at least.
    between: whether slices or nodes are crossed.
  """

  kind: str
  axes: str
  count: int
  runs: int
  bytes: int
  sent: float
  between: bool


def collectives(
  module: hlo.Module, shape: dict[str, int], slices: int = 1
) -> list[Collective]:
  """The collectives of a program, by kind and axes.

  Args:
    module: of the compiled program.
    shape: axis of the mesh to its size, in the order of the devices.
    slices: of the machine; devices are numbered slice by slice.
  """
  totals: dict[tuple[str, str, bool], Counter] = {}
  seen: set[tuple[str, str]] = set()
  for instruction, times in all_instructions(module, tuple(_OPCODES)):
    kind = _OPCODES[instruction.opcode]
    channel = _CHANNEL.search(instruction.rest)
    # The pieces of one that runs beside computation share a channel.
    if channel and (kind, channel[1]) in seen:
      continue
    if channel:
      seen.add((kind, channel[1]))
    group = np.array(_groups(instruction.rest, math.prod(shape.values())))
    size = group.shape[-1]
    whole = _whole(kind, instruction, size)
    between = _crosses(group, math.prod(shape.values()), slices)
    total = totals.setdefault((kind, _axes(group, shape), between), Counter())
    total["count"] += 1
    total["runs"] += times
    total["bytes"] += times * whole
    total["sent"] += times * _sent(kind, whole, size)
  return [
    Collective(kind, axes, t["count"], t["runs"], t["bytes"], t["sent"], far)
    for (kind, axes, far), t in sorted(totals.items())
  ]


def _whole(kind: str, instruction: hlo.Instruction, size: int) -> int:
  """Bytes of the arrays that a collective is about."""
  shapes = instruction.shapes
  if instruction.opcode.endswith("-start"):
    # Operands, results, and the back end's own; sums name their results only.
    count = len(instruction.operands)
    parts = shapes[:count], shapes[count : 2 * count]
    return max(sum(s.bytes for s in part) for part in parts)
  total = sum(s.bytes for s in shapes)
  return total * size if kind == "reduce-scatter" else total


def _sent(kind: str, whole: int, size: int) -> float:
  """Bytes that each device of a group has to send, at least."""
  if kind == "collective-permute":
    return whole
  part = whole * (size - 1) / max(size, 1)
  if kind == "all-reduce":
    return 2 * part
  return part / size if kind == "all-to-all" and size else part


def _groups(text: str, devices: int) -> Sequence[Sequence[int]]:
  """Groups of devices that talk to each other."""
  if found := _LISTED.search(text):
    inner = re.findall(r"\{([\d,]*)\}", found[1])
    groups = [[int(d) for d in group.split(",") if d] for group in inner]
    groups = [g for g in groups if g]
    if groups and len({len(g) for g in groups}) == 1:
      return groups
  if found := _GROUPS.search(text):
    return _iota(*found.groups())
  if found := _MESH.search(text):
    return _over_mesh(*found.groups())
  if re.search(r"replica_groups=(?!\{\})", text):
    raise ValueError(f"Groups of an unknown form: {text:.200}")
  return [list(range(devices))]


def _iota(
  to: str, start: str | None = None, order: str | None = None
) -> np.ndarray:
  """Numbers from 0 on, shaped as `start`, transposed, shaped as `to`."""
  shape, begin, axes = (
    [int(d) for d in part.split(",")] if part else []
    for part in (to, start, order)
  )
  ids = np.arange(math.prod(shape)).reshape(begin or shape)
  ids = ids.transpose(axes) if axes else ids
  return ids.reshape(shape) if begin else ids


def _over_mesh(
  mesh: str, to: str | None, start: str | None, order: str | None, axes: str
) -> np.ndarray:
  """Groups along some axes of a mesh of XLA's own."""
  named = re.findall(r"'([^']*)'=(\d+)", mesh)
  sizes = {name: int(size) for name, size in named}
  shape = list(sizes.values())
  ids = _iota(to, start, order) if to else np.arange(math.prod(shape))
  inside = re.findall(r"'([^']*)'", axes)
  names = list(sizes)
  outer = [names.index(n) for n in names if n not in inside]
  ids = ids.reshape(shape).transpose(outer + [names.index(n) for n in inside])
  return ids.reshape(-1, math.prod(sizes[n] for n in inside))


def _axes(groups: np.ndarray, shape: dict[str, int]) -> str:
  """Axes of the mesh in which the devices of a group differ."""
  places = np.stack(np.unravel_index(groups, tuple(shape.values())), -1)
  differ = (places != places[:, :1]).any(axis=(0, 1))
  return "+".join(n for n, d in zip(shape, differ) if d) or "none"


def _crosses(groups: np.ndarray, devices: int, slices: int) -> bool:
  piece = groups // max(devices // slices, 1)
  return bool((piece != piece[:, :1]).any())
