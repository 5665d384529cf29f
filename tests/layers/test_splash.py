"""The kernel for TPUs, step by step on a CPU, against the plain path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers import dot_product, splash
from mmjax.layers.dot_product import Visibility
from tests import eight_devices

# Padding on both sides and between, and one, two or three documents.
ROWS = {
  "packed": [(7, 0), (100, 1), (20, 0), (60, 2), (50, 3)],
  "padded": [(150, 1), (87, 0)],
  "one": [(237, 1)],
}
LENGTH = 237


def segments_and_positions(rows):
  segments = [np.repeat([n for _, n in r], [c for c, _ in r]) for r in rows]
  positions = [
    np.concatenate([np.arange(count) for count, _ in row]) for row in rows
  ]
  return jnp.asarray(np.stack(segments)), jnp.asarray(np.stack(positions))


def draw(heads=4, kv_heads=4, length=LENGTH, size=16, batch=3, seed=0):
  random = np.random.RandomState(seed)

  def one(n):
    shape = (batch, length, n, size)
    return jnp.asarray(random.standard_normal(shape), jnp.float32)

  return one(heads), one(kv_heads), one(kv_heads)


def both(visible, arrays, scale=None):
  """(out, gradients) of the plain path, and of the kernel."""
  target = jnp.cos(jnp.arange(arrays[0].size, dtype=jnp.float32))

  def loss(attend):
    def total(*arrays):
      out = attend(*arrays)
      return (out * target.reshape(out.shape)).sum(), out

    return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))

  def plain(q, k, v):
    return dot_product.attend(q, k, v, mask=visible.dense(), scale=scale)

  def fast(q, k, v):
    return splash.attend(q, k, v, visible, scale=scale, interpret=True)

  for attend in (plain, fast):
    (_, out), gradients = loss(attend)(*arrays)
    yield out, gradients


def assert_same(visible, arrays, scale=None):
  (expected, slopes), (out, own) = both(visible, arrays, scale)
  np.testing.assert_allclose(out, expected, atol=1e-5)
  for found, slope in zip(own, slopes):
    np.testing.assert_allclose(found, slope, atol=1e-5 * np.abs(slope).max())


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_packed_and_padded_documents(kv_heads):
  segments, positions = segments_and_positions(ROWS.values())
  visible = Visibility.among(segments, positions).written()
  assert_same(visible, draw(kv_heads=kv_heads))


@pytest.mark.parametrize("scale", [None, 0.3])
def test_all_see_all(scale):
  assert_same(Visibility(), draw(), scale)
  assert_same(Visibility(), draw(length=256, batch=1), scale)


def test_segments_without_an_order():
  segments, _ = segments_and_positions(ROWS.values())
  assert_same(Visibility.among(segments).written(), draw())


def test_padding_gets_zeros():
  segments, positions = segments_and_positions(ROWS.values())
  visible = Visibility.among(segments, positions).written()
  _, (out, slopes) = both(visible, draw())
  for x in (out, *slopes):
    assert not np.asarray(x)[np.asarray(segments) == 0].any()


def test_a_row_out_of_order_is_nan_and_no_other():
  segments, positions = segments_and_positions(ROWS.values())
  positions = positions.at[1, 5].set(9)
  visible = Visibility.among(segments, positions).written()
  out = splash.attend(*draw(), visible, interpret=True)
  assert np.isnan(np.asarray(out)[1]).all()
  assert np.isfinite(np.asarray(out)[[0, 2]]).all()


MESH = """
import jax, numpy as np
from mmjax.layers.dot_product import Visibility
from mmjax.sharding import make_mesh
from tests.layers import test_splash as t

rows = [t.ROWS[k] for k in ("packed", "padded", "one", "packed")]
segments, positions = t.segments_and_positions(rows)
fill = lambda x: np.pad(x, ((0, 0), (0, 256 - t.LENGTH)))
visible = Visibility.among(fill(segments), fill(positions)).written()
for sizes in ({"data": 2, "fsdp": 2, "tensor": 2}, {"sequence": 2, "fsdp": 4}):
  with jax.set_mesh(make_mesh(sizes)):
    t.assert_same(visible, t.draw(kv_heads=2, length=256, batch=4))
with jax.set_mesh(make_mesh({"sequence": 2, "data": 2, "tensor": 2})):
  t.assert_same(visible, t.draw(kv_heads=1, length=256, batch=4))
"""


@pytest.mark.heavy
def test_devices_share_rows_heads_and_queries():
  eight_devices.run(MESH)


TPU = """
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec as P
from mmjax.layers.dispatch import attention
from mmjax.layers.dot_product import Visibility
from mmjax.sharding import BATCH, make_mesh

topology = topologies.get_topology_desc(
  platform="tpu", topology_name="v5e:2x4"
)
mesh = make_mesh(dict(fsdp=2, sequence=2, tensor=2), topology.devices)

def loss(query, key, value, segments, positions):
  visible = Visibility.among(segments, positions).written()
  return attention(query, key, value, visible).sum()

def array(*shape, dtype=jnp.bfloat16):
  where = NamedSharding(mesh, P(BATCH))
  return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

tokens = array(4, 2048, dtype=jnp.int32)
shared = array(4, 2048, 4, 80)
arguments = array(4, 2048, 8, 80), shared, shared, tokens, tokens
with jax.set_mesh(mesh):
  step = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arguments).compile()
assert jax.default_backend() == "cpu"
# Forward, queries' gradient, and keys' and values'.
assert step.as_text().count('custom_call_target="tpu_custom_call"') == 3
# One device's scores, in float32, would be 64 MiB.
assert step.memory_analysis().temp_size_in_bytes < 2**23
"""


@pytest.mark.heavy
def test_it_is_chosen_and_compiled_for_tpus_that_are_not_there():
  pytest.importorskip("libtpu", reason="needs libtpu: pip install jax[tpu]")
  here = dict(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost")
  # More than one process may compile at a time.
  eight_devices.run(TPU, **here, ALLOW_MULTIPLE_LIBTPU_LOAD="1")
