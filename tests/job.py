"""Jobs of several processes on this machine, each a program of its own."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

# A machine can be busy; a process that hangs is killed after it.
TIMEOUT = 400


def free_port() -> int:
  with socket.socket() as s:
    s.bind(("localhost", 0))
    return s.getsockname()[1]


class Job:
  """Processes that run `python -m MODULE ARGUMENTS...` together."""

  def __init__(
    self,
    module: str,
    *arguments,
    processes: int = 1,
    devices: int | list[int] = 2,
    absent: int | None = None,
  ):
    """Starts them.

    Args:
      module: of the program.
      *arguments: anything else than a string becomes JSON; a list of as many
        as there are processes gives each its own.
      processes: how many.
      devices: of each process; or of all, one by one.
      absent: a process that never comes.
    """
    self.port = port = free_port()
    self.children, self._files, self._over = [], [], []
    for i in range(processes):
      if i == absent:
        continue
      mine = [a[i] if isinstance(a, list) else a for a in arguments]
      mine = [a if isinstance(a, str) else json.dumps(a) for a in mine]
      own = devices[i] if isinstance(devices, list) else devices
      environment = os.environ | {
        "PYTHONPATH": ".",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={own}",
      }
      if processes > 1:
        environment |= {
          "MMJAX_COORDINATOR": f"localhost:{port}",
          "MMJAX_PROCESSES": str(processes),
          "MMJAX_PROCESS": str(i),
        }
      path = Path(os.environ.get("TMPDIR", "/tmp")) / f"job-{port}-{i}.txt"
      self._files.append(path)
      with path.open("w") as file:
        self.children.append(
          subprocess.Popen(
            [sys.executable, "-u", "-m", module, *mine],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
          )
        )

  def __enter__(self) -> "Job":
    return self

  def __exit__(self, *_) -> None:
    for child in self.children:
      # SIGTERM would not do: a run saves first, and one that hangs goes on.
      child.kill()
      child.wait()
    self._over = self.said
    for path in self._files:
      path.unlink()

  @property
  def said(self) -> list[str]:
    """What each has written so far."""
    return self._over or [
      path.read_text(errors="replace") for path in self._files
    ]

  def wait_for(self, pattern: str, process: int = 0) -> str:
    """Until a process has written something that matches."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
      if found := re.search(pattern, self.said[process]):
        return found[0]
      assert self.children[process].poll() is None, "\n".join(self.said)
      time.sleep(0.02)
    raise TimeoutError(f"{pattern!r} is not in {self.said[process]}")

  def codes(self) -> list[int]:
    """Exit codes of all, which have to end."""
    end = time.monotonic() + TIMEOUT
    for child in self.children:
      try:
        child.wait(max(end - time.monotonic(), 0.1))
      except subprocess.TimeoutExpired:
        raise TimeoutError("\n".join(self.said)) from None
    return [child.returncode for child in self.children]
