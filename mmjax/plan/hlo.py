"""A compiled program's text, read: computations of instructions on arrays.

How often they run is told in loops.py, what they move in traffic.py, what they
multiply in products.py. Only what a plan asks for is read.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

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
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|true_computation|false_computation|"
  r"called_computations|branch_computations)="
  r"(?:%([\w.\-]+)|\{([^}]*)\})"
)


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
  for line in _statements(text):
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


def _statements(text: str) -> Iterator[str]:
  """Lines, but those of one instruction as one.

  Attributes of kernels go over several, one of which looks like the end of a
  computation:

    %a = f32[8] get-tuple-element(%b), frontend_attributes={kernel_metadata={
    "xprof_metadata":"{\\"block_q\\": 128}"
    }}, metadata={op_name="jit(step)"}
  """
  held = ""
  for line in text.splitlines():
    line = held + line
    bare = _STRING.sub("", line) if _LINE.match(line) else ""
    held = line if bare.count("{") > bare.count("}") else ""
    if not held:
      yield line


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


def fused(module: Module, instruction: Instruction) -> Computation:
  """What a fusion does inside; nothing for other instructions."""
  if instruction.opcode != "fusion":
    return {}
  return module.computations[instruction.attribute("calls")]
