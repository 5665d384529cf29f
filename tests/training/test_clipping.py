"""Clipping against optax, layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax.training.clipping import clip_gradients


def draw(seed, scale):
  random = np.random.RandomState(seed)
  shapes = {
    "image": {
      "stem": {"kernel": (3, 3, 2, 4), "bias": (4,), "gain": ()},
      "rest": {"kernel": (3, 1, 2, 4, 5), "bias": (3, 5), "gain": (3,)},
      "head": {"kernel": (4, 6)},
    },
    "text": {"layers": {"kernel": (2, 4, 4)}, "table": {"table": (7, 4)}},
  }
  return jax.tree.map(
    lambda s: jnp.asarray(scale * random.standard_normal(s), jnp.float32),
    shapes,
    is_leaf=lambda s: isinstance(s, tuple),
  )


def clipped(limits, norm):
  params, grads = draw(0, 1.0), draw(1, 0.05)
  tx = clip_gradients(limits, norm)
  return params, grads, tx.update(grads, tx.init(params), params)[0]


def constant(value):
  return jax.tree.map(lambda _: value, draw(0, 1.0))


def assert_equal(ours, theirs):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, theirs
  )


def test_layers_of_a_stack_are_clipped_one_by_one():
  """optax sees each layer alone, as it would without a stack."""
  params, grads, ours = clipped(constant(0.04), 0.0)
  tx = optax.adaptive_grad_clip(0.04)
  rest = jax.tree.map(
    lambda p, g: tx.update(g, tx.init(p), p)[0],
    *(
      {k: [*x] for k, x in t["image"]["rest"].items()} for t in (params, grads)
    ),
  )
  for name, rows in rest.items():
    np.testing.assert_allclose(
      ours["image"]["rest"][name], np.stack(rows), rtol=1e-5
    )
  flat = [{k: t["image"][k] for k in ("stem", "head")} for t in (params, grads)]
  expected = tx.update(flat[1], tx.init(flat[0]), flat[0])[0]
  assert_equal({k: ours["image"][k] for k in expected}, expected)
  assert (np.abs(ours["image"]["stem"]["kernel"]) != 0).all()
  assert not np.allclose(
    ours["image"]["stem"]["kernel"], grads["image"]["stem"]["kernel"]
  )


def test_one_tower_adaptively_and_the_other_by_norm():
  limits = constant(0.0) | {"image": constant(0.04)["image"]}
  _, grads, ours = clipped(limits, 0.1)
  expected = optax.clip_by_global_norm(0.1).update(
    grads["text"], optax.EmptyState()
  )[0]
  assert_equal(ours["text"], expected)
  assert_equal(ours["image"], clipped(constant(0.04), 0.0)[2]["image"])


def test_nothing_is_clipped_by_default():
  _, grads, ours = clipped(constant(0.0), 0.0)
  jax.tree.map(np.testing.assert_array_equal, ours, grads)


def test_zero_gradients_stay_zero():
  params = draw(0, 1.0)
  zeros = jax.tree.map(jnp.zeros_like, params)
  for limit in (0.0, 0.01):
    tx = clip_gradients(constant(limit), 1.0)
    ours = tx.update(zeros, tx.init(params), params)[0]
    jax.tree.map(np.testing.assert_array_equal, ours, zeros)


def test_weights_of_zero_still_learn():
  grads = {"head": draw(1, 0.05)["image"]["head"]["kernel"]}
  params = jax.tree.map(jnp.zeros_like, grads)
  ours = clip_gradients({"head": 0.04}).update(grads, None, params)[0]
  tx = optax.adaptive_grad_clip(0.04)
  expected = tx.update(grads, tx.init(params), params)[0]
  assert_equal(ours, expected)
  assert np.abs(ours["head"]).max() > 1e-6
