"""What devices say to each other in a program, by kind and mesh axis."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmjax.plan import hlo

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
_IOTA = re.compile(
  r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
)
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")


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
  for instruction, times in hlo.all_instructions(module, tuple(_OPCODES)):
    kind = _OPCODES[instruction.opcode]
    channel = _CHANNEL.search(instruction.rest)
    # The pieces of one that runs beside computation share a channel.
    if channel and (kind, channel[1]) in seen:
      continue
    if channel:
      seen.add((kind, channel[1]))
    group = np.array(_groups(instruction.rest, int(np.prod([*shape.values()]))))
    size = group.shape[-1]
    whole = _whole(kind, instruction, size)
    between = _crosses(group, int(np.prod([*shape.values()])), slices)
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
  """Bytes of the array that a collective is about."""
  shapes = instruction.shapes
  if instruction.opcode.endswith("-start"):
    # (operands, results) and the back end's own, which are small.
    shapes = (max(shapes, key=lambda s: s.bytes),)
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
  if found := _IOTA.search(text):
    to, start, order = (
      [int(d) for d in part.split(",")] if part else []
      for part in found.groups()
    )
    ids = np.arange(int(np.prod(start))).reshape(start)
    ids = ids.transpose(order) if order else ids
    return ids.reshape(to)
  if found := _MESH.search(text):
    sizes = {
      name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", found[1])
    }
    inside = re.findall(r"'([^']*)'", found[2])
    names = list(sizes)
    ids = np.arange(int(np.prod([*sizes.values()]))).reshape(*sizes.values())
    outer = [names.index(n) for n in names if n not in inside]
    ids = ids.transpose(outer + [names.index(n) for n in inside])
    return ids.reshape(-1, int(np.prod([sizes[n] for n in inside])))
  return [list(range(devices))]


def _axes(groups: np.ndarray, shape: dict[str, int]) -> str:
  """Axes of the mesh in which the devices of a group differ."""
  places = np.stack(np.unravel_index(groups, tuple(shape.values())), -1)
  differ = (places != places[:, :1]).any(axis=(0, 1))
  return "+".join(n for n, d in zip(shape, differ) if d) or "none"


def _crosses(groups: np.ndarray, devices: int, slices: int) -> bool:
  piece = groups // max(devices // slices, 1)
  return bool((piece != piece[:, :1]).any())
