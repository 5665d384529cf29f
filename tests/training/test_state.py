"""How a state is born, where it lies, and that it comes back elsewhere."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import tree
from mmjax.layers.linear import dense
from mmjax.sharding import make_mesh
from mmjax.training.state import init_state, parameter_table
from tests import eight_devices


class System(nn.Module):
  """Two matrices and a vector; 6 of a dim of `wide` are no multiple of 4."""

  wide: int = 16

  @nn.compact
  def __call__(self, batch):
    x = dense(8, self.wide, ("embed", "mlp"), name="first")(batch["x"])
    return dense(self.wide, 8, ("mlp", "embed"), use_bias=True, name="last")(x)


BATCH = {"x": jnp.ones((2, 8))}
RULES = [("first/.*", False), (".*", True)]


def born(mesh, loaded=None, wide=16, frozen_dtype=jnp.bfloat16):
  return init_state(
    System(wide),
    BATCH,
    rules=RULES,
    optimizer=lambda params: optax.adam(0.1),
    mesh=mesh,
    seed=3,
    loaded=loaded,
    frozen_dtype=frozen_dtype,
  )


def test_what_trains_is_float32_and_what_is_frozen_is_as_asked():
  mesh = make_mesh({"data": 1})
  value = np.linspace(0, 1, 128, dtype=np.float16).reshape(8, 16)
  drawn, _ = born(mesh)
  half = np.ones((16, 8), np.float16)
  state, _ = born(mesh, {"first/kernel": value, "last/kernel": half})
  for found in (drawn, state):
    dtypes = {k: str(x.dtype) for k, x in tree.flatten(found.params).items()}
    assert dtypes == {
      "first/kernel": "bfloat16",
      "last/kernel": "float32",
      "last/bias": "float32",
    }
  np.testing.assert_array_equal(
    state.frozen["first"]["kernel"], jnp.asarray(value, jnp.bfloat16)
  )
  assert (state.trainable["last"]["kernel"] == 1).all()
  # What is not loaded is drawn as if nothing were.
  np.testing.assert_array_equal(
    state.trainable["last"]["bias"], drawn.trainable["last"]["bias"]
  )
  assert "first" not in state.trainable and "first" not in str(
    state.saved()["trainable"]
  )


@pytest.mark.parametrize(
  "loaded, said",
  [
    ({"middle/kernel": np.ones(2)}, "'middle/kernel' is not in the model"),
    ({"last/bias": np.ones(9)}, r"'last/bias' is \(9,\).*\(8,\)"),
  ],
)
def test_what_does_not_fit_is_named(loaded, said):
  with pytest.raises(ValueError, match=said):
    born(make_mesh({"data": 1}), loaded)


def test_the_table_counts_what_trains():
  state, _ = born(make_mesh({"data": 1}))
  mask = {
    path: not path.startswith("first") for path in tree.paths(state.params)
  }
  lines = [
    line.split() for line in parameter_table(state.params, mask).split("\n")
  ]
  assert lines[1:] == [
    ["last", "136", "0"],
    ["first", "0", "128"],
    ["total", "136", "128"],
  ]


SCRIPT = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from safetensors.numpy import save_file
from mmjax.checkpoints import Checkpoints
from mmjax.convert.read import Safetensors
from mmjax.sharding import make_mesh
from mmjax.training.sources import Stored
from mmjax.training.state import _put
from tests.training.test_state import born

def specs(state):
  adam = state.opt_state[0]
  parts = [state.trainable, adam.mu, adam.nu]
  return [part["last"]["kernel"].sharding.spec for part in parts]

wide = make_mesh({"fsdp": 2, "tensor": 4})
loaded = {"first/kernel": np.arange(128.0).reshape(8, 16)}
state, where = born(wide, loaded)
# Moments lie as their parameters do, and loaded parts as drawn ones would.
assert specs(state) == [P("tensor", "fsdp")] * 3, specs(state)
assert state.frozen["first"]["kernel"].sharding.spec == P("fsdp", "tensor")
assert (state.frozen["first"]["kernel"] == loaded["first/kernel"]).all()
assert where.trainable["last"]["kernel"].spec == P("tensor", "fsdp")
# A dim that an axis does not divide is left whole.
odd, _ = born(wide, wide=6)
assert specs(odd) == [P(None, "fsdp")] * 3, specs(odd)

# Of what is on disk, each share is read once, and never two at a time.
file = f"{sys.argv[1]}/weights.safetensors"
save_file(loaded, file)
read = []

class Counted(Safetensors):
  def part(self, name, index):
    read.append(super().part(name, index))
    return read[-1]

  def __getitem__(self, name):
    raise AssertionError("read as a whole")

mixed = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
stored = {"first/kernel": Stored(Counted(file), "first/kernel")}
streamed, _ = born(mixed, stored)
assert (streamed.frozen["first"]["kernel"] == loaded["first/kernel"]).all()
assert [x.shape for x in read] == [(4, 8)] * 4, [x.shape for x in read]
# So are the rows of a table of which some are left out.
shards = _put(Stored(Counted(file), "first/kernel", slice(2, 6)), np.float32,
              NamedSharding(mixed, P("fsdp")))
assert (shards == loaded["first/kernel"][2:6]).all()
assert [x.shape for x in read[4:]] == [(2, 16)] * 2, [x.shape for x in read]

made = Checkpoints(sys.argv[1] + "/run")
made.save(state.replace(step=state.step + 1), {}, "none", wait=True)
other = make_mesh({"fsdp": -1}, jax.devices()[:4])
fresh, there = born(other, loaded)
found, _ = made.restore(fresh, there, "none")
made.close()
assert specs(found) == [P("tensor", "fsdp")] * 3, specs(found)
kernel = found.trainable["last"]["kernel"]
assert kernel.sharding.mesh == other
assert kernel.addressable_shards[0].data.shape == (16, 2)
same = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()),
                    found.saved(), state.replace(step=state.step + 1).saved())
assert all(jax.tree.leaves(same)), same
"""


@pytest.mark.heavy
def test_eight_devices_share_it_and_four_go_on_with_it(tmp_path):
  eight_devices.run(SCRIPT, str(tmp_path))
