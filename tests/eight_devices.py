"""Programs that see eight devices on a CPU; it takes a process of their own."""

import os
import subprocess
import sys

from tests.flags import with_devices


def run(code: str, *arguments: str, **environment: str) -> None:
  """Runs Python code, and fails with what it said when it fails."""
  flags = with_devices(8)
  done = subprocess.run(
    [sys.executable, "-c", code, *arguments],
    env=os.environ
    | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": "."}
    | environment,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stdout + done.stderr[-4000:]
