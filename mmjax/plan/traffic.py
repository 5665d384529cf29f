"""Bytes that a compiled program moves to and from a device's main memory."""

from collections.abc import Sequence

from mmjax.plan import hlo, loops

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


def memory_traffic(module: hlo.Module) -> int:
  """Bytes that a device reads from and writes to its main memory.

  Every instruction reads its operands and writes its results, fusions as one;
  slices of larger arrays count as what is sliced. What a compiler keeps in
  faster memory (S(1) on TPUs) does not count.
  """
  total = 0
  for name, times in loops.executions(module).items():
    computation = module.computations[name]
    total += times * sum(
      _traffic(module, computation, i) for i in computation.values()
    )
  return total


def _traffic(
  module: hlo.Module, scope: hlo.Computation, i: hlo.Instruction
) -> int:
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
  inside = hlo.fused(module, i)
  if not inside:
    return written + sum(s.main for g in given for s in g.shapes)
  return _written(module, inside, i.shapes) + sum(
    _read(module, inside, number, sum(s.main for s in g.shapes))
    for number, g in enumerate(given)
  )


def _read(
  module: hlo.Module, inside: hlo.Computation, number: int, whole: int
) -> int:
  """Bytes of a fusion's operand that are read, of `whole` ones."""
  name = next(
    (
      i.name
      for i in inside.values()
      if i.opcode == "parameter" and i.argument == str(number)
    ),
    None,
  )
  users = any(name in i.operands for i in inside.values())
  return _used(module, inside, name, whole) if whole and users else whole


def _used(
  module: hlo.Module, scope: hlo.Computation, name: str, whole: int
) -> int:
  """Bytes of an array that is computed with, fusions in fusions included."""
  read = 0
  for user in scope.values():
    if name not in user.operands:
      continue
    if user.opcode in ("dynamic-slice", "slice", "gather"):
      read += sum(s.bytes for s in user.shapes)
    elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
      continue  # Written in place.
    elif user.opcode == "tuple":
      continue  # Handed on.
    elif user.opcode == "bitcast":
      read += _used(module, scope, user.name, whole)
    elif user.opcode == "fusion":
      read += sum(
        _read(module, hlo.fused(module, user), number, whole)
        for number, operand in enumerate(user.operands)
        if operand == name
      )
    else:
      return whole
  return min(read, whole)


def _written(
  module: hlo.Module, inside: hlo.Computation, shapes: Sequence[hlo.Shape]
) -> int:
  """Bytes of a fusion's results; of what is updated in place, the update."""
  root = next(i for i in inside.values() if i.root)
  names = root.operands if root.opcode == "tuple" else (root.name,)
  if len(names) != len(shapes):
    return sum(s.main for s in shapes)
  return sum(
    min(s.main, _made(module, inside, name, s.bytes))
    for s, name in zip(shapes, names)
  )


def _made(
  module: hlo.Module, scope: hlo.Computation, name: str, whole: int
) -> int:
  """Bytes of a fusion's result that are new."""
  i = scope[name]
  while i.opcode == "bitcast" and i.operands[0] in scope:
    i = scope[i.operands[0]]
  if i.opcode == "parameter":
    return 0  # Handed on.
  if i.opcode == "dynamic-update-slice":
    return sum(s.bytes for s in scope[i.operands[1]].shapes)
  inner = hlo.fused(module, i)
  if inner and len(i.shapes) == 1:
    return _written(module, inner, i.shapes)
  return whole
