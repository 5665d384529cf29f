"""A compiled program's text, read: what runs, how often, on which bytes.

XLA's own cost analysis counts the body of a loop once; here an instruction
counts as often as it runs. Only what a plan asks for is read.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

# Bits of an element.
_BITS = {
  "pred": 8,
  **{f"{kind}{bits}": bits for kind in "su" for bits in (1, 2, 4, 8, 16, 32)},
  **{"s64": 64, "u64": 64, "f16": 16, "bf16": 16, "f32": 32, "f64": 64},
  **{"c64": 64, "c128": 128, "token": 0, "opaque": 0},
}
_SHAPE = re.compile(r"([a-z][a-z0-9]*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|true_computation|false_computation|"
  r"called_computations|branch_computations)="
  r"(?:%([\w.\-]+)|\{([^}]*)\})"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Shape:
  """An array.

  Attributes:
    dtype: as XLA names it.
    dims: of the part on one device.
    space: of memory; 0 is the device's main memory.
  """

  dtype: str
  dims: tuple[int, ...]
  space: int = 0

  @property
  def bytes(self) -> int:
    """Without what a tiled layout pads."""
    bits = _BITS.get(self.dtype, 8)  # The rest are kinds of float8.
    return math.prod(self.dims) * bits // 8

  @property
  def main(self) -> int:
    """Bytes in the main memory."""
    return self.bytes if self.space == 0 else 0


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line.

  Attributes:
    name: without its %.
    opcode: "fusion", "all-gather", ...
    shapes: of the result; several for a tuple.
    operands: names.
    rest: what follows the operands.
    argument: between the parentheses, as it stands.
    root: whether it is its computation's result.
  """

  name: str
  opcode: str
  shapes: tuple[Shape, ...]
  operands: tuple[str, ...]
  rest: str
  argument: str
  root: bool

  @property
  def called(self) -> list[str]:
    """Computations that it runs, or applies to elements."""
    names = []
    for one, several in _CALLED.findall(self.rest):
      names += [one] if one else _OPERAND.findall(several)
    return names

  def attribute(self, name: str) -> str | None:
    """The computation that `name=%...` names."""
    found = re.search(rf"\b{name}=%([\w.\-]+)", self.rest)
    return found and found[1]


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Module:
  """A program: its computations, and which is run first."""

  computations: Mapping[str, Computation]
  entry: str


def parse(text: str) -> Module:
  """A module from `compiled.as_text()`."""
  computations: dict[str, dict[str, Instruction]] = {}
  entry, current = "", None
  for line in text.splitlines():
    if current is None:
      head = _HEAD.match(line)
      if head and not line.startswith("HloModule"):
        current = computations.setdefault(head[2], {})
        entry = head[2] if head[1] else entry
    elif line.startswith("}"):
      current = None
    elif found := _LINE.match(line):
      instruction = _instruction(line, found)
      current[instruction.name] = instruction
  if not entry:
    raise ValueError("The text is no HLO module: it has no ENTRY.")
  return Module(computations, entry)


def _instruction(line: str, found: re.Match) -> Instruction:
  body = line[found.end() :]
  end = _closing(body, 0) if body.startswith("(") else body.index(" ")
  kind, body = body[:end], body[end:].lstrip()
  start = body.index("(")
  stop = _closing(body, start)
  argument = body[start + 1 : stop - 1]
  return Instruction(
    name=found[2],
    opcode=body[:start],
    shapes=tuple(_shapes(kind)),
    operands=tuple(_OPERAND.findall(argument)),
    rest=body[stop:],
    argument=argument,
    root=bool(found[1]),
  )


def _closing(text: str, start: int) -> int:
  """Behind the parenthesis that closes the one at `start`."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == "(") - (text[i] == ")")
    if not depth:
      return i + 1
  raise ValueError(f"A parenthesis is never closed: {text[:80]!r}.")


def _shapes(text: str) -> Iterator[Shape]:
  for dtype, dims, layout in _SHAPE.findall(text):
    if dtype in ("token", "opaque"):
      continue
    space = re.search(r"S\((\d+)\)", layout or "")
    yield Shape(
      dtype,
      tuple(int(d) for d in dims.split(",") if d),
      int(space[1]) if space else 0,
    )


def executions(module: Module) -> dict[str, int]:
  """How often each computation runs that is no part of an instruction.

  Those are the entry, bodies of loops, and what is called; a fusion is one
  instruction. All branches of a condition count.
  """
  times = {module.entry: 1}
  queue = [module.entry]
  for name in queue:
    for instruction in module.computations[name].values():
      if instruction.opcode == "while":
        inner = {instruction.attribute("body"): trips(module, instruction)}
      elif instruction.opcode in ("call", "conditional", "async-start"):
        inner = dict.fromkeys(instruction.called, 1)
      else:
        continue
      for called, count in inner.items():
        times[called] = times.get(called, 0) + times[name] * count
        queue.append(called)
  return times


def trips(module: Module, loop: Instruction) -> int:
  """How often a loop runs.

  XLA:GPU writes it down; else the loops that JAX makes count from 0 to a
  constant, with which their condition compares.

  Raises:
    ValueError: for another loop.
  """
  if known := _TRIPS.search(loop.rest):
    return int(known[1])
  condition = module.computations[loop.attribute("condition")]
  bounds = [
    int(i.argument)
    for i in _closure(module, condition)
    if i.opcode == "constant" and i.argument.lstrip("-").isdigit()
  ]
  if len(set(bounds)) != 1:
    raise ValueError(
      f"Loop {loop.name} has no known number of rounds: its condition compares "
      f"with {bounds or 'no constant'}."
    )
  return bounds[0]


def _closure(module: Module, computation: Computation) -> Iterator[Instruction]:
  for instruction in computation.values():
    yield instruction
    for name in instruction.called:
      yield from _closure(module, module.computations[name])


def fused(module: Module, instruction: Instruction) -> Computation:
  """What a fusion does inside; nothing for other instructions."""
  if instruction.opcode != "fusion":
    return {}
  return module.computations[instruction.attribute("calls")]


# They move nothing themselves.
_FREE = {
  *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
  *("while", "conditional", "call", "after-all", "partition-id", "replica-id"),
  *("copy-done", "slice-done", "async-done", "async-update", "async-start"),
  *("all-gather-done", "all-reduce-done", "collective-permute-done"),
  *("send-done", "recv-done", "opt-barrier", "iota", "broadcast"),
}
# They read or write a part of what they are given.
_PARTIAL = {"dynamic-slice", "slice", "gather", "slice-start", "copy-start"}


def memory_traffic(module: Module) -> int:
  """Bytes that a device reads from and writes to its main memory.

  Every instruction reads its operands and writes its results, fusions as one;
  slices of larger arrays count as what is sliced. What a compiler keeps in
  faster memory (S(1) on TPUs) does not count.
  """
  total = 0
  for name, times in executions(module).items():
    computation = module.computations[name]
    total += times * sum(
      _traffic(module, computation, i) for i in computation.values()
    )
  return total


def _traffic(module: Module, scope: Computation, i: Instruction) -> int:
  if i.opcode in _FREE:
    return 0
  given = [scope[name] for name in i.operands if name in scope]
  if i.opcode in ("copy-start", "slice-start"):
    # (source, destination, context), where the source is the whole array.
    source, destination = (
      i.shapes[:2]
      if i.opcode == "slice-start"
      else (
        given[0].shapes[0],
        i.shapes[0] if len(i.shapes) < 2 else i.shapes[1],
      )
    )
    read = destination.bytes if source.space == 0 else 0
    return read + destination.main
  written = sum(s.main for s in i.shapes)
  if i.opcode in _PARTIAL:
    return 2 * written
  if i.opcode == "dynamic-update-slice":
    return 2 * sum(s.main for s in given[1].shapes)
  inside = fused(module, i)
  if not inside:
    return written + sum(s.main for g in given for s in g.shapes)
  return _written(inside, written) + sum(
    _read(inside, number, g) for number, g in enumerate(given)
  )


def _read(inside: Computation, number: int, given: Instruction) -> int:
  """Bytes of a fusion's operand that are read."""
  whole = sum(s.main for s in given.shapes)
  name = next(
    (
      i.name
      for i in inside.values()
      if i.opcode == "parameter" and i.argument == str(number)
    ),
    None,
  )
  users = [i for i in inside.values() if name in i.operands]
  if not whole or not users:
    return whole
  read = 0
  for user in users:
    if user.opcode in ("dynamic-slice", "slice", "gather"):
      read += sum(s.bytes for s in user.shapes)
    elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
      continue  # Written in place.
    else:
      return whole
  return min(read, whole)


def _written(inside: Computation, whole: int) -> int:
  """Bytes of a fusion's result; of one that is updated in place, the update."""
  root = next(i for i in inside.values() if i.root)
  while root.opcode == "bitcast" and root.operands[0] in inside:
    root = inside[root.operands[0]]
  if root.opcode != "dynamic-update-slice" or not whole:
    return whole
  update = inside[root.operands[1]]
  return min(whole, sum(s.bytes for s in update.shapes))


def all_instructions(
  module: Module, opcodes: Sequence[str]
) -> Iterator[tuple[Instruction, int]]:
  """Instructions of some kinds with how often they run, fused ones too."""
  times = executions(module)
  for name, count in times.items():
    for instruction in module.computations[name].values():
      if instruction.opcode in opcodes:
        yield instruction, count
      for inner in fused(module, instruction).values():
        if inner.opcode in opcodes:
          yield inner, count
