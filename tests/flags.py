"""How XLA compiles what tests run: without LLVM's passes.

They halve the time of the suite, which is mostly compiling; what they do to
numbers is nothing, and shapes are small. `XLA_FLAGS= make test` has them.
"""

import os

FAST = "--xla_backend_optimization_level=0"


def with_devices(count: int) -> str:
  """XLA_FLAGS of a process that sees so many devices on a CPU."""
  flags = os.environ.get("XLA_FLAGS", FAST)
  return f"{flags} --xla_force_host_platform_device_count={count}".strip()
