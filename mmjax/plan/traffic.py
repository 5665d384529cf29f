"""Bytes that a compiled program moves to and from a device's main memory."""

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
  return _written(inside, written) + sum(
    _read(inside, number, g) for number, g in enumerate(given)
  )


def _read(inside: hlo.Computation, number: int, given: hlo.Instruction) -> int:
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


def _written(inside: hlo.Computation, whole: int) -> int:
  """Bytes of a fusion's result; of one that is updated in place, the update."""
  root = next(i for i in inside.values() if i.root)
  while root.opcode == "bitcast" and root.operands[0] in inside:
    root = inside[root.operands[0]]
  if root.opcode != "dynamic-update-slice" or not whole:
    return whole
  update = inside[root.operands[1]]
  return min(whole, sum(s.bytes for s in update.shapes))
