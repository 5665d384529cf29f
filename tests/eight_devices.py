"""Programs that see eight devices on a CPU; it takes a process of their own."""

import os
import subprocess
import sys

# LLVM's passes take longer than they save such small programs: of meshes they
# are more than half of the time.
FLAGS = "--xla_backend_optimization_level=0"


def run(code: str, *arguments: str, **environment: str) -> None:
  """Runs Python code, and fails with what it said when it fails."""
  flags = f"{FLAGS} --xla_force_host_platform_device_count=8"
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
