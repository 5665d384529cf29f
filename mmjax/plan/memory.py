"""Bytes that a program takes of one device's memory, and who says so."""

import dataclasses
import re
from typing import Any

# XLA's dump: the memory report's first section, and a line of the buffer
# assignment for each allocation.
_TOTAL = re.compile(
  r"^Memory Space: default \(color=0\)\nTotal bytes: (\d+)", re.MULTILINE
)
_PARAMETER = re.compile(
  r"^allocation \d+: size (\d+), parameter \d+", re.MULTILINE
)
_AMOUNT = r"([\d.]+)([KMGT])"
# What libtpu says of a program that is too large; arguments are in it.
_REFUSED = re.compile(
  rf"HLO temporaries \({_AMOUNT}\) exceeds available \w+ \({_AMOUNT}\)"
)
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


def reported(report: str, assignment: str, limit: int) -> Memory:
  """The memory that libtpu's dump tells of.

  libtpu refuses a program when and only when the total is over the limit.

  Args:
    report: the file `*-memory-usage-report.txt`.
    assignment: the file `*-buffer-assignment.txt`.
    limit: see Memory.
  """
  total = int(_TOTAL.search(report)[1])
  arguments = sum(map(int, _PARAMETER.findall(assignment)))
  return Memory(arguments, total - arguments, total, limit, compiled=True)


def refused(message: str, arguments: int) -> Memory | None:
  """The memory that libtpu names when it refuses a program.

  It does so before there is a report when the program is too large by far.

  Args:
    message: of the error.
    arguments: bytes of the program's arguments on one device.

  Returns:
    None for another error.
  """
  if not (found := _REFUSED.search(message)):
    return None
  peak, limit = (int(float(found[i]) * _UNITS[found[i + 1]]) for i in (1, 3))
  peak = max(peak, limit + 1)
  return Memory(arguments, max(peak - arguments, 0), peak, limit, compiled=True)


def analysed(compiled: Any, limit: int) -> Memory:
  """The memory of an executable, by `memory_analysis()`.

  XLA compiles for a GPU what no GPU could hold, and two of its figures
  disagree: the larger counts.
  """
  said = compiled.memory_analysis()
  arguments, temporaries = said.argument_size_in_bytes, said.temp_size_in_bytes
  outputs = said.output_size_in_bytes - said.alias_size_in_bytes
  peak = max(said.peak_memory_in_bytes, arguments + temporaries + outputs)
  return Memory(arguments, temporaries, peak, limit, compiled=True)
