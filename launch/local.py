"""All processes of a job on this machine: a try-out, or its GPUs.

Each is a session of its own, so that Ctrl-C reaches them once, through here.
"""

import contextlib
import dataclasses
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from launch.job import (
  CONTRACT,
  COORDINATOR,
  PROCESS,
  PROCESSES,
  Job,
  again,
  option,
  verdict,
)

_FORCED = "--xla_force_host_platform_device_count"


@dataclasses.dataclass(frozen=True)
class Local:
  """What only this target is told."""

  grace: float = option(
    60.0, "seconds that the others get when a process has failed"
  )

  def __post_init__(self):
    if not 0 <= self.grace < 1e6:
      raise ValueError(f"grace is {self.grace}, expected seconds from 0 on.")


def render(job: Job, options: Local | None = None) -> str:
  """The processes as shell lines, one each."""
  del options
  port = _free_port()
  return "".join(
    shlex.join(
      ["env", *(f"{k}={v}" for k, v in _variables(job, i, port).items())]
      + job.command(sys.executable)
    )
    + "\n"
    for i in range(job.total)
  )


def run(job: Job, options: Local | None = None) -> int:
  """Runs a job to its end, with another start where `again` says so.

  Returns:
    its exit code, by `verdict`; one of a restart when none is left, or when
    this process was told to stop.
  """
  options = options or Local()
  for restart in range(job.max_restarts + 1):
    if restart:
      print(f"launch: restart {restart} of {job.max_restarts}", flush=True)
    code, stopped = _Gang(job, options.grace).run()
    if stopped or not again(code):
      return code
  return code


class _Gang:
  """The processes of one attempt."""

  def __init__(self, job: Job, grace: float):
    self._job, self._grace = job, grace
    self._processes: list[subprocess.Popen] = []
    self._signals: list[int] = []
    # Codes of those that ended by themselves, in the order of their ends.
    self._codes: list[int] = []

  def run(self) -> tuple[int, bool]:
    """The exit code, and whether this process was told to stop."""
    port = _free_port()
    with self._forwarded():
      try:
        readers = [
          reader
          for i in range(self._job.total)
          for reader in self._start(i, port)
        ]
        self._wait()
      finally:
        for process in self._processes:
          _kill(process)
    for reader in readers:
      reader.join(timeout=5)
    return verdict(self._codes), bool(self._signals)

  def _start(self, index: int, port: int) -> list[threading.Thread]:
    env = {k: v for k, v in os.environ.items() if k not in CONTRACT}
    # One process keeps the terminal, with its progress bars.
    piped = self._job.total > 1
    process = subprocess.Popen(
      self._job.command(sys.executable),
      env=env | _variables(self._job, index, port),
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE if piped else None,
      stderr=subprocess.STDOUT if piped else None,
      start_new_session=True,
    )
    self._processes.append(process)
    for number in self._signals:  # One that came while others were started.
      process.send_signal(number)
    if not piped:
      return []
    reader = threading.Thread(
      target=_copy, args=(process.stdout, index), daemon=True
    )
    reader.start()
    return [reader]

  def _wait(self) -> None:
    """Until all have ended, or one failed and the others had their time."""
    left, deadline = list(self._processes), None
    while left:
      ended = [p for p in left if p.poll() is not None]
      left = [p for p in left if p not in ended]
      self._codes += [p.returncode for p in ended]
      if deadline is None and any(p.returncode for p in ended):
        deadline = time.monotonic() + self._grace
      if left and deadline is not None and time.monotonic() > deadline:
        print(
          f"launch: {len(left)} process(es) still run {self._grace:g} s after "
          "another failed, and are killed",
          flush=True,
        )
        return
      time.sleep(0.05)

  @contextlib.contextmanager
  def _forwarded(self) -> Iterator[None]:
    """SIGTERM and SIGINT go to all; a second SIGINT kills them."""

    def handle(number, frame):
      del frame
      again = number == signal.SIGINT and number in self._signals
      self._signals.append(number)
      for process in self._processes:
        if again:
          _kill(process)
        elif process.poll() is None:
          process.send_signal(number)

    old = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
      yield
    finally:
      for number, handler in old.items():
        signal.signal(number, handler)


def _variables(job: Job, index: int, port: int) -> dict[str, str]:
  """What one process is told on top of this environment."""
  variables = {"PYTHONUNBUFFERED": "1"}
  if job.total > 1:
    variables |= {
      COORDINATOR: f"localhost:{port}",
      PROCESSES: str(job.total),
      PROCESS: str(index),
    }
  if job.cpu:
    # It would contradict JAX_NUM_CPU_DEVICES, which JAX refuses.
    flags = os.environ.get("XLA_FLAGS", "").split()
    kept = [flag for flag in flags if not flag.startswith(_FORCED)]
    if kept != flags:
      variables["XLA_FLAGS"] = " ".join(kept)
  else:
    variables["CUDA_VISIBLE_DEVICES"] = _gpus(job, index, os.environ)
  return variables | job.device_env()


def _gpus(job: Job, index: int, env: Mapping[str, str]) -> str:
  """A process's share of the GPUs that this one may use."""
  wanted = job.nodes * job.devices
  visible = env.get("CUDA_VISIBLE_DEVICES")
  ids = [str(i) for i in range(wanted)]
  if visible is not None:
    ids = [x for x in visible.split(",") if x]
    if len(ids) < wanted:
      raise ValueError(
        f"{job.nodes} nodes of {job.devices} devices want {wanted} GPUs, but "
        f"CUDA_VISIBLE_DEVICES is {visible!r}. Ask for fewer, or for --cpu."
      )
  return ",".join(ids[index * job.each : (index + 1) * job.each])


def _copy(lines, index: int) -> None:
  for line in lines:
    text = line.decode(errors="replace").rstrip("\r\n")
    # One write, so that lines of several processes do not mix.
    sys.stdout.write(f"[{index}] {text}\n")
    sys.stdout.flush()


def _kill(process: subprocess.Popen) -> None:
  """Ends a process and those that it started."""
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return probe.getsockname()[1]
