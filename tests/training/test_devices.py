"""One device and eight give the same losses and parameters."""

import pytest

from tests import eight_devices

SCRIPT = """
import sys
import jax, numpy as np
from mmjax.cli import train as verb
from mmjax.training import loop
from tests.training.child import tiny

def run(name, devices, **mesh):
  verb.make_mesh = lambda sizes: make(mesh, jax.devices()[:devices])
  workdir = f"{sys.argv[1]}/{name}"
  config = tiny(3, **mesh)
  del config.data.datasets.questions
  state = verb.train(config, workdir)
  return jax.tree.map(np.asarray, state.trainable), state

make = verb.make_mesh
one, _ = run("one", 1, data=1)
for name, mesh in {
  "data": dict(data=8),
  "mixed": dict(data=2, fsdp=2, tensor=2),
}.items():
  many, state = run(name, 8, **mesh)
  worst = max(jax.tree.leaves(jax.tree.map(
    lambda a, b: float(np.abs(a - b).max() / (np.abs(a).max() + 1e-3)),
    one, many)))
  cut = sum(len(x.sharding.device_set) > 1 and not x.is_fully_replicated
            for x in jax.tree.leaves(state.trainable))
  print(name, worst, cut, flush=True)
  assert worst < 2e-4, (name, worst)
  assert cut or name == "data", "nothing is cut over the devices"
"""


@pytest.mark.heavy
def test_eight_devices_give_the_one_device_run(tmp_path):
  eight_devices.run(SCRIPT, str(tmp_path))
