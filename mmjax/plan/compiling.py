"""Programs as a compiler leaves them: their text, and places in memory.

XLA for GPUs compiles in seconds, in this process. libtpu takes seconds for its
passes, the schedule and the memory, and minutes for machine code, of which a
plan reads nothing: it works in a process of its own (optimise.py) that writes
what it decides as XLA's dump, and is ended as soon as that is whole.
"""

import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmjax.plan.memory import Memory, analysed, refused, reported
from mmjax.plan.program import Program
from mmjax.plan.topology import Topology

# Options of XLA that make it write what is read here.
DUMP: Mapping[str, Any] = {"xla_dump_hlo_as_text": True}
# Without a GPU there is nothing to time kernels on, and Triton's, whose tiles
# are chosen by that, are refused for some shapes. cuBLAS needs no such choice.
UNTIMED: Mapping[str, Any] = {
  "xla_gpu_enable_triton_gemm": False,
  "xla_gpu_autotune_level": 0,
}
# Ends of the names of its files, the last one that is written first.
_TEXT = "after_optimizations_after_buffer_assignment.txt"
_REPORT = "after_optimizations-memory-usage-report.txt"
_ASSIGNMENT = "after_optimizations-buffer-assignment.txt"
# Seconds between two looks at the dump.
_PAUSE = 0.1


class CompilerError(ValueError):
  """A program that the compiler refuses, or ends with."""


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What a compiler made of a program.

  Attributes:
    text: the optimised program; see hlo.py. None of one that is too large by
      so much that libtpu gave it up before.
    memory: see Memory.
    seconds: from the start, tracing included, to these.
  """

  text: str | None
  memory: Memory
  seconds: float


def compile_here(program: Program, mesh: Any, topology: Topology) -> Compiled:
  """By the compiler in this process, to the end."""
  started = time.monotonic()
  with jax.set_mesh(mesh), warnings.catch_warnings():
    # JAX's cache keeps such programs, and cannot read them again.
    warnings.filterwarnings("ignore", "Error reading persistent compilation")
    on_gpu = topology.chip.platform == "cuda"
    options = dict(UNTIMED) if on_gpu else None
    made = program.lower().compile(compiler_options=options)
  memory = analysed(made, int(topology.chip.usable))
  return Compiled(made.as_text(), memory, time.monotonic() - started)


def compile_apart(
  config: Mapping[str, Any],
  topology: Topology,
  program: Program,
  *,
  generates: bool,
  finishes: bool,
) -> Compiled:
  """By libtpu in a process of its own.

  Args:
    config: plain, with its mesh.
    topology: of TPUs.
    program: one of `planning.programs` of that config.
    generates: see there.
    finishes: makes machine code, too, which takes minutes and finds out
      whether the memory next to the cores is enough.

  Raises:
    CompilerError: when libtpu refuses the program for something else than the
      size of its memory, or writes no dump.
  """
  request = dict(
    config=config,
    topology=topology.name,
    program=program.name,
    generates=generates,
  )
  started = time.monotonic()
  with tempfile.TemporaryDirectory(prefix="mmjax-plan-") as name:
    folder = Path(name)
    (folder / "request.json").write_text(json.dumps(request))
    died = _run(folder, finishes)
    _retell(folder / "log.txt")
    found = _read(folder, program, int(topology.chip.usable), died)
    return Compiled(*found, time.monotonic() - started)


def _run(folder: Path, finishes: bool) -> bool:
  """Runs optimise.py to its end, or until the dump is whole.

  Returns:
    whether it ended by itself, and not well.
  """
  command = [sys.executable, "-m", "mmjax.plan.optimise"]
  command += [str(folder), str(os.getpid())]
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  with (
    (folder / "said.txt").open("w") as said,
    subprocess.Popen(
      *(command, -1),
      stdin=subprocess.DEVNULL,
      stdout=said,
      stderr=said,
      env=environment,
    ) as process,
  ):
    try:
      while process.poll() is None and (finishes or not _whole(folder)):
        time.sleep(_PAUSE)
      return bool(process.poll())
    finally:
      process.kill()


def _retell(log: Path) -> None:
  """Logs what optimise.py did: which kernels run, what is not cut."""
  for line in log.read_text().splitlines() if log.exists() else ():
    level, _, rest = line.partition(" ")
    name, _, message = rest.partition(" ")
    if level.isdigit():
      logging.getLogger(name).log(int(level), "%s", message)


def _whole(folder: Path) -> bool:
  """Whether libtpu has written the last of the files that are read."""
  path = next(folder.glob(f"*{_TEXT}"), None)
  if path is None:
    return False
  # The entry is the last of a program's computations.
  _, entry, body = path.read_text().partition("\nENTRY ")
  return bool(entry) and "\n}\n" in body


def _read(
  folder: Path, program: Program, limit: int, died: bool
) -> tuple[str | None, Memory]:
  """The program and its memory, or what ended optimise.py without them."""
  error = folder / "error.txt"
  reason = error.read_text() if error.exists() else ""
  text, memory = None, refused(reason, program.argument_bytes)
  if _whole(folder):
    text, report, assignment = (
      next(folder.glob(f"*{end}")).read_text()
      for end in (_TEXT, _REPORT, _ASSIGNMENT)
    )
    memory = reported(report, assignment, limit)
  if memory is not None and not (died and memory.fits):
    return text, memory
  if reason:
    raise CompilerError(
      f"The compiler refuses the program {program.name!r}: {reason[:1000]}"
    )
  said = (folder / "said.txt").read_text().strip()
  what = "died of" if died else "left no dump of"
  raise CompilerError(
    f"libtpu {what} the program {program.name!r}. Is it the one that jax asks "
    "for (pip install -r requirements-tpu.txt)? The last that it said: "
    f"{said[-500:]}"
  )
