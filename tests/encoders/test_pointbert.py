"""ULIP-2's PointBERT: names, sizes, and what does not change its output.

What it computes is compared with the original in tests/golden.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.convert.families import pointbert as family
from mmjax.convert.rules import ConversionError, load, save
from mmjax.encoders.pointbert import PointBERT, pool, ulip2
from mmjax.tree import count, flatten, unflatten
from tests.golden.file import read
from tests.golden.pointbert import build

FILE = Path("golden/arrays/pointbert/pointbert.safetensors")
TINY = PointBERT(
  width=16,
  num_layers=2,
  num_heads=2,
  groups=8,
  group_size=4,
  group_width=8,
  projection=12,
)


def shapes_of(model, points=64):
  points = jax.ShapeDtypeStruct((1, points, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), points)
  return nn.unbox(shapes)["params"]


@pytest.fixture(scope="module")
def params():
  random = np.random.RandomState(0)

  def draw(path, shape):
    x = random.standard_normal(shape).astype(np.float32) * 0.3
    return np.square(x) + 0.5 if path.endswith(("scale", "var")) else x

  flat = {k: draw(k, x.shape) for k, x in flatten(shapes_of(TINY)).items()}
  return {"params": unflatten(flat)}


@pytest.fixture(scope="module")
def clouds():
  return jnp.asarray(np.random.RandomState(1).randn(3, 64, 3), jnp.float32)


@pytest.fixture(scope="module")
def run(params):
  return lambda points, start: apply(TINY, params, points, start)


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def apply(module, params, *args, method=None, **kwargs):
  return module.apply(params, *args, method=method, **kwargs)


START = jnp.array([3, 0, 9])


def same(one, other):
  one, other = np.asarray(one), np.asarray(other)
  np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(one).max())


def test_the_order_of_points_does_not_matter(run, clouds):
  y = run(clouds, START)
  assert y.shape == (3, 1, 12)
  order = np.random.RandomState(2).permutation(64)
  moved = jnp.array([np.flatnonzero(order == i)[0] for i in START])
  same(y, run(clouds[:, order], moved))
  # The clouds are told apart all the same.
  assert np.abs(y[0] - y[1]).max() > 1e-2 * np.abs(y).max()


def test_place_and_size_of_a_cloud_do_not_matter(run, clouds, params):
  y = run(clouds, START)
  same(y, run(clouds * 25 + jnp.array([4.0, -2.0, 8.0]), START))
  raw = TINY.clone(normalise=False)
  other = apply(raw, params, clouds, START)
  assert np.abs(y - other).max() > 1e-2 * np.abs(y).max()


def test_clouds_of_a_batch_do_not_meet(run, clouds):
  y = run(clouds, START)
  alone = run(clouds[jnp.array([1, 1, 1])], START[jnp.array([1, 1, 1])])
  same(y[1], alone[0])
  broken = run(clouds.at[1, 5].set(jnp.nan), START)
  assert np.isnan(broken[1]).all()
  np.testing.assert_array_equal(broken[::2], y[::2])


def test_the_first_point_is_fixed_given_or_drawn(run, clouds, params):
  zeros = jnp.zeros(3, jnp.int32)
  same(apply(TINY, params, clouds), run(clouds, zeros))
  key = jax.random.key(1)
  drawn = jax.random.randint(key, (3,), 0, 64)
  same(apply(TINY, params, clouds, key=key), run(clouds, drawn))
  assert np.abs(run(clouds, zeros) - run(clouds, START)).max() > 1e-4


def test_tokens_are_what_is_pooled(run, clouds, params):
  """Our variant has no projection; all else is as it was."""
  tokens = TINY.clone(projection=0)
  rest = {k: v for k, v in params["params"].items() if k != "projection"}
  assert shapes_of(tokens).keys() == rest.keys()
  y = apply(tokens, {"params": rest}, clouds, START)
  assert y.shape == (3, 9, 16)
  kernel = params["params"]["projection"]["kernel"]
  same(run(clouds, START)[:, 0], pool(y) @ kernel)


def test_points_are_grouped_in_float32(clouds, params):
  """Small differences are lost in bfloat16 only behind the centres."""
  half = TINY.clone(dtype=jnp.bfloat16, normalise=False)
  exact = TINY.clone(normalise=False)
  far = clouds * 0.01 + 10
  given = [apply(m, params, far, method="embed") for m in (half, exact)]
  x, expected = (np.asarray(pair[0][:, 1:], np.float32) for pair in given)
  assert given[0][0].dtype == jnp.bfloat16
  assert np.abs(x - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
  "shape, message",
  [
    ((2, 64, 6), "expected .B points 3."),
    ((64, 3), "expected .B points 3."),
    ((2, 3, 3), "3 points have no 4 neighbours"),
  ],
)
def test_other_shapes_are_refused(shape, message):
  points = jax.ShapeDtypeStruct(shape, jnp.float32)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(TINY.init, jax.random.key(0), points)


def test_published_counts():
  """Running statistics, which no training changes, are not counted there."""
  flat = flatten(shapes_of(ulip2(), 8192))
  named = {
    k: v for k, v in flat.items() if k.split("/")[-1] not in ("mean", "var")
  }
  assert len(flat) - len(named) == 4
  assert count(named) == 21_858_816 + 393_216
  assert named["projection/kernel"].size == 393_216
  points = jax.ShapeDtypeStruct((2, 8192, 3), jnp.float32)
  for pooled, shape in ((True, (2, 1, 512)), (False, (2, 513, 384))):
    model = ulip2(pooled=pooled)
    shapes = {"params": shapes_of(model, 8192)}
    assert jax.eval_shape(model.apply, shapes, points).shape == shape


def test_an_unknown_variant_is_named():
  with pytest.raises(ValueError, match="Did you mean '8k-xyz'"):
    ulip2("8k_xyz")


@pytest.fixture(scope="module")
def original():
  """Weights of the original class, and our module for them."""
  golden = read(Path(__file__).parents[1] / FILE)
  return golden.weights, shapes_of(build(golden))


@pytest.mark.parametrize("root", ["", "module."])
def test_weights_return_bit_by_bit(original, root):
  weights, like = original
  state = {root + k: v for k, v in weights.items()}
  params = load(state, family.ulip2(), like, ignore=family.BUFFERS.fullmatch)
  back = save(params, family.ulip2())
  kept = {k for k in weights if not family.BUFFERS.fullmatch(k)}
  assert back.keys() == kept and len(weights) == len(kept) + 2
  for name in kept:
    assert back[name].tobytes() == weights[name].tobytes(), name


def test_weights_for_all_tokens(original):
  """The projection is left in the file, by name."""
  weights, like = original
  like = {k: v for k, v in like.items() if k != "projection"}
  with pytest.raises(ConversionError, match="pc_projection"):
    load(weights, family.ulip2(), like, ignore=family.BUFFERS.fullmatch)

  def ignore(key):
    return family.BUFFERS.fullmatch(key) or family.PROJECTION.fullmatch(key)

  assert (
    load(weights, family.ulip2(), like, ignore=ignore).keys() == like.keys()
  )
