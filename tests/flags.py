"""How XLA compiles what tests run: without LLVM's passes.

Most of the suite's time is compiling, which takes less than half without them;
shapes are small, so that slower programs cost little. `XLA_FLAGS= make test`
compiles as users do.
"""

import os

FAST = "--xla_backend_optimization_level=0"


def with_devices(count: int) -> str:
  """XLA_FLAGS of a process that sees so many devices on a CPU."""
  flags = os.environ.get("XLA_FLAGS", FAST)
  return f"{flags} --xla_force_host_platform_device_count={count}".strip()
