"""Set before jax is imported: CPU, and one quick compile for all runs."""

import collections
import os
import tempfile
from pathlib import Path

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
