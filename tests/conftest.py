"""Set before jax is imported: CPU, and one quick compile for all runs."""

import collections
import gc
import os
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
cache = Path(tempfile.gettempdir()) / f"mmjax-jit-{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Compiling is most of what the suite does. Without LLVM's passes it takes 60 to
# 75 % of the time, also of the tests that train for hundreds of steps. What is
# compiled for a TPU or a GPU keeps them (plan/conftest.py).
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def pytest_collection_modifyitems(items):
  """Files with the most heavy tests first: the last to end is a light one."""
  heavy = collections.Counter(
    item.path for item in items if item.get_closest_marker("heavy")
  )
  items.sort(key=lambda item: -heavy[item.path])


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
  """Drops what a file compiled, before the kernel refuses the worker memory.

  A compiled function on a CPU takes several memory maps for as long as JAX
  keeps it. A worker that kept all of them came within a tenth of
  `vm.max_map_count` here, and went past it elsewhere: a segmentation fault.
  """
  yield
  try:
    maps = Path("/proc/self/maps").read_bytes().count(b"\n")
    most = int(Path("/proc/sys/vm/max_map_count").read_text())
  except OSError:  # no Linux, no such limit
    return
  if maps > most / 3:
    import jax

    jax.clear_caches()
    gc.collect()
