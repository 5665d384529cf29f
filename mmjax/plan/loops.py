"""How often the instructions of a compiled program run.

XLA's own cost analysis counts the body of a loop once; here an instruction
counts as often as it runs.
"""

import re
from collections.abc import Iterator, Sequence

from mmjax.plan import hlo

_INDEX = re.compile(r"\bindex=(\d+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


def executions(module: hlo.Module) -> dict[str, int]:
  """How often each computation runs that is no part of an instruction.

  Those are the entry, bodies of loops, and what is called; a fusion is one
  instruction. All branches of a condition count.
  """
  times = {module.entry: 1}
  queue = [module.entry]
  for name in queue:
    for instruction in module.computations[name].values():
      if instruction.opcode == "while":
        rounds = trips(module, module.computations[name], instruction)
        inner = {instruction.attribute("body"): rounds}
      elif instruction.opcode in ("call", "conditional", "async-start"):
        inner = dict.fromkeys(instruction.called, 1)
      else:
        continue
      for called, count in inner.items():
        times[called] = times.get(called, 0) + times[name] * count
        queue.append(called)
  return times


def trips(
  module: hlo.Module, scope: hlo.Computation, loop: hlo.Instruction
) -> int:
  """How often a loop runs.

  XLA:GPU writes it down; else loops count up to a constant with which their
  condition compares: those that JAX makes from 0 by 1, those in which a product
  is computed while its operand is gathered by 2.

  Args:
    module: all of the program.
    scope: the computation that the loop is in.
    loop: a `while`.

  Raises:
    ValueError: for another loop.
  """
  if known := _TRIPS.search(loop.rest):
    return int(known[1])
  condition = module.computations[loop.attribute("condition")]
  bounds = {
    value
    for i in _closure(module, condition)
    if (value := _constant({i.name: i}, i.name)) is not None
  }
  counters = {
    int(_INDEX.search(i.rest)[1])
    for i in condition.values()
    if i.opcode == "get-tuple-element"
  }
  if len(bounds) != 1 or len(counters) != 1:
    raise ValueError(
      f"Loop {loop.name} has no known number of rounds: its condition compares "
      f"with {sorted(bounds) or 'no constant'}."
    )
  (bound,), (counter,) = bounds, counters
  start = _of_tuple(scope, loop.operands[0], counter)
  begin = _constant(scope, start) if start else None
  step = _step(module, module.computations[loop.attribute("body")], counter)
  return -(-(bound - (begin or 0)) // step)


def _closure(
  module: hlo.Module, computation: hlo.Computation
) -> Iterator[hlo.Instruction]:
  for instruction in computation.values():
    yield instruction
    for name in instruction.called:
      yield from _closure(module, module.computations[name])


def _step(module: hlo.Module, body: hlo.Computation, counter: int) -> int:
  """What a round adds to the counter."""
  root = next(i for i in body.values() if i.root)
  name = _of_tuple(body, root.name, counter)
  scope, given = body, []
  while name and scope[name].opcode in ("copy", "bitcast", "fusion"):
    i = scope[name]
    if inside := hlo.fused(module, i):
      given = [_constant(scope, operand) for operand in i.operands]
      scope, name = inside, next(x.name for x in inside.values() if x.root)
    else:
      name = i.operands[0]
  if not name or scope[name].opcode != "add":
    raise ValueError(f"What counts the rounds of {root.name} is no addition.")
  found = [_constant(scope, operand, given) for operand in scope[name].operands]
  (step,) = [value for value in found if value is not None]
  return step


def _of_tuple(scope: hlo.Computation, name: str, index: int) -> str | None:
  """Name of a tuple's element; None when the tuple is not made here."""
  made = scope.get(name)
  return made.operands[index] if made and made.opcode == "tuple" else None


def _constant(
  scope: hlo.Computation, name: str, given: Sequence[int | None] = ()
) -> int | None:
  """An integer constant's value, `given` those of a fusion's parameters."""
  i = scope.get(name)
  while i and i.opcode in ("copy", "bitcast") and i.operands:
    i = scope.get(i.operands[0])
  if i and i.opcode == "parameter" and given:
    return given[int(i.argument)]
  number = i and i.opcode == "constant" and i.argument.lstrip("-").isdigit()
  return int(i.argument) if number else None


def all_instructions(
  module: hlo.Module, opcodes: Sequence[str]
) -> Iterator[tuple[hlo.Instruction, int]]:
  """Instructions of some kinds with how often they run, fused ones too."""
  times = executions(module)
  for name, count in times.items():
    for instruction in module.computations[name].values():
      if instruction.opcode in opcodes:
        yield instruction, count
      for inner in hlo.fused(module, instruction).values():
        if inner.opcode in opcodes:
          yield inner, count
