"""Programs that see eight devices on a CPU; it takes a process of their own."""

import os
import subprocess
import sys
from collections.abc import Callable

import jax
import numpy as np


def run(code: str, *arguments: str, **environment: str) -> None:
  """Runs Python code, and fails with what it said when it fails."""
  flags = "--xla_force_host_platform_device_count=8"
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


def gradients(objective: Callable, params, batch, count: int):
  """Value and gradients with the rows of a batch on `count` devices.

  Returns:
    them, and the compiled program's text.
  """
  axis, spec = jax.sharding.AxisType.Auto, jax.sharding.PartitionSpec
  mesh = jax.make_mesh((count,), ("data",), axis_types=(axis,))
  rows = jax.sharding.NamedSharding(mesh, spec("data"))
  whole = jax.sharding.NamedSharding(mesh, spec())
  params = jax.device_put(params, whole)
  # A key is no row.
  where = jax.tree.map(lambda x: rows if x.ndim else whole, batch)
  batch = jax.device_put(batch, where)
  step = jax.jit(jax.value_and_grad(objective))
  compiled = step.lower(params, batch).compile()
  return compiled(params, batch), compiled.as_text()


def check_gathered(module: str, on_devices: Callable, path) -> None:
  """Eight devices give what one gives, and gather to get it.

  Args:
    module: of `on_devices`, by its dotted name.
    on_devices: count -> what `gradients` returns.
    path: of a file for what the other process finds.
  """
  run(
    "import jax, numpy as np\n"
    f"from {module} import on_devices\n"
    "found, text = on_devices(8)\n"
    "assert 'all-gather' in text\n"
    f"np.savez({str(path)!r}, *jax.tree.leaves(found))\n"
  )
  found, _ = on_devices(1)
  with np.load(path) as eight:
    theirs = [eight[name] for name in eight.files]
  for ours, other in zip(jax.tree.leaves(found), theirs, strict=True):
    scale = np.abs(ours).max()
    assert np.abs(ours - other).max() <= 1e-5 * scale + 1e-7
