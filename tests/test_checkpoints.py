"""What a checkpoint keeps, and what it refuses to go on from."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from mmjax import checkpoints
from mmjax.checkpoints import Checkpoints, fingerprint, load_trainable
from mmjax.sharding import make_mesh
from mmjax.training.state import TrainState

PARAMS = {
  "a": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)},
  "b": jnp.array([1, 2, 3, 4], jnp.bfloat16),
}


def changed(path, value):
  new = jax.tree.map(lambda x: x, PARAMS)
  *parents, last = path
  node = new
  for name in parents:
    node = node[name]
  node[last] = value(node[last])
  return new


@pytest.mark.parametrize(
  "other",
  [
    changed(("a", "kernel"), lambda x: x.at[1, 2].add(1e-6)),
    changed(("a", "kernel"), lambda x: x[::-1]),
    changed(("a", "kernel"), lambda x: x.reshape(3, 2)),
    changed(
      ("a", "kernel"), lambda x: jax.lax.bitcast_convert_type(x, "int32")
    ),
    changed(("b",), lambda x: x.at[0].set(-0.0)),
    {"a": PARAMS["a"], "c": PARAMS["b"]},
    {"a": PARAMS["a"]},
    {},
  ],
)
def test_a_fingerprint_tells_any_change(other):
  copy = jax.tree.map(np.array, PARAMS)
  assert fingerprint(copy) == fingerprint(PARAMS) != fingerprint(other)


def state(step=0, scale=1.0):
  optimizer = optax.adam(0.1)
  trainable = {"w": scale * jnp.arange(4.0)}
  return TrainState(
    step=jnp.asarray(step, jnp.int32),
    trainable=trainable,
    frozen={"f": jnp.ones(2)},
    opt_state=optimizer.init(trainable),
    skipped=jnp.asarray(step + 1, jnp.int32),
    norm=jnp.asarray(0.5 * step),
  )


def where(like):
  mesh = make_mesh({"data": -1})
  return jax.tree.map(lambda _: jax.NamedSharding(mesh, P()), like)


@pytest.fixture
def saved(tmp_path):
  """A directory with the steps 2 and 4, and the frozen part's fingerprint."""
  frozen = fingerprint(state().frozen)
  made = Checkpoints(tmp_path, keep=2)
  for step in (2, 4):
    made.save(state(step, scale=step), {"step": step}, frozen)
  made.close()
  return tmp_path, frozen


def test_everything_but_the_frozen_part_comes_back(saved):
  directory, frozen = saved
  made = Checkpoints(directory)
  assert made.latest == 4
  fresh = state()
  found, data = made.restore(fresh, where(fresh), frozen)
  expected = state(4, scale=4.0)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert data == {"step": 4}
  assert not made.save(found, data, frozen), "it is there already"
  made.close()
  np.testing.assert_array_equal(
    load_trainable(directory, 2)["w"], 2 * np.arange(4.0)
  )


def test_another_frozen_part_is_refused(saved):
  directory, _ = saved
  made = Checkpoints(directory)
  with pytest.raises(ValueError, match="frozen parameters differ"):
    made.restore(state(), where(state()), "another")
  made.close()


def test_arrays_that_are_not_those_that_were_saved(tmp_path, monkeypatch):
  made = Checkpoints(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(checkpoints, "_bit_sums", lambda arrays: [7] * len(arrays))
    made.save(state(1), {}, "none")
    made.close()
  made = Checkpoints(tmp_path)
  with pytest.raises(ValueError, match="Every .* damaged.*not what was saved"):
    made.restore(state(), where(state()), "none")
  made.close()
  with pytest.raises(ValueError, match="opt_state/0/count.* not what was sav"):
    load_trainable(tmp_path)


def test_nothing_is_there(tmp_path):
  made = Checkpoints(tmp_path / "new")
  assert made.latest is None
  with pytest.raises(ValueError, match="No checkpoint in"):
    made.restore(state(), where(state()), "none")
  made.close()
  with pytest.raises(ValueError, match="no directory of checkpoints"):
    load_trainable(tmp_path / "other")
