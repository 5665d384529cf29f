import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import tree
from mmjax.config import build
from mmjax.connectors import CONNECTORS
from mmjax.connectors.projection import Projection
from mmjax.connectors.resampler_ablations import (
  FLAMINGO_MLP,
  FLAMINGO_TRANSFORMER,
  MLPResampler,
  TransformerResampler,
)

SMALL = dict(width=8, depth=2, num_latents=3, max_frames=2, project_input=True)
HEADS = dict(num_heads=2, head_dim=4)
# Those of many frames and few latents; the others have tests of their own.
TINY = {
  "mlp": SMALL,
  "perceiver": SMALL | HEADS,
  "projection": dict(width=8),
  "transformer": SMALL | HEADS,
}


@pytest.fixture(params=sorted(TINY))
def made(request):
  fields = {"name": request.param} | TINY[request.param]
  module = build(CONNECTORS, fields)
  features = jax.random.normal(jax.random.key(0), (2, 2, 3, 4, 6))
  variables = module.init(jax.random.key(1), features)
  boxes = jax.tree.leaves(
    variables, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
  )
  assert all(isinstance(x, nn.LogicallyPartitioned) for x in boxes)
  return module, nn.unbox(variables), features


def test_nothing_reads_padded_frames(made):
  module, variables, features = made
  mask = jnp.ones((2, 2, 3), bool).at[0, 1, 2].set(False)
  changed = features.at[0, 1, 2].add(5.0)
  first, second = (
    module.apply(variables, x, mask) for x in (features, changed)
  )
  tokens = 12 if isinstance(module, Projection) else 3
  assert first.shape == (2, 2, tokens, 8)
  np.testing.assert_array_equal(first, second)
  unmasked = module.apply(variables, changed)
  assert not np.allclose(first[0, 1], unmasked[0, 1])
  np.testing.assert_allclose(first[0, 0], unmasked[0, 0], rtol=1e-5, atol=1e-6)


def test_media_without_frames_stay_finite(made):
  module, variables, features = made
  out = module.apply(variables, features, jnp.zeros((2, 2, 3), bool))
  assert np.isfinite(out).all()


def test_what_comes_out_of_a_transformer_are_its_latents():
  """With layers that do nothing, they are the table itself."""
  module = build(CONNECTORS, {"name": "transformer"} | SMALL | HEADS)
  features = jax.random.normal(jax.random.key(0), (2, 2, 3, 4, 6))
  params = nn.unbox(module.init(jax.random.key(1), features))["params"]
  params["layers"] = jax.tree.map(jnp.zeros_like, params["layers"])
  out = module.apply({"params": params}, features)
  expected = jnp.broadcast_to(params["latents"], out.shape)
  np.testing.assert_array_equal(out, expected)


def test_gradient_reaches_every_parameter(made):
  module, variables, features = made
  like = module.apply(variables, features[:, :, :2])
  weights = jax.random.normal(jax.random.key(2), like.shape)

  def loss(variables):
    return (module.apply(variables, features[:, :, :2]) * weights).sum()

  for path, g in tree.flatten(jax.grad(loss)(variables)["params"]).items():
    assert np.abs(g).max() > 0, path


def test_width_of_features_is_checked():
  module = MLPResampler(width=8)
  with pytest.raises(ValueError, match="project_input"):
    module.init(jax.random.key(0), jnp.zeros((1, 1, 1, 4, 6)))


@pytest.mark.parametrize(
  "module",
  [MLPResampler(**FLAMINGO_MLP), TransformerResampler(**FLAMINGO_TRANSFORMER)],
  ids=["mlp", "transformer"],
)
def test_budget_is_the_perceivers(module):
  features = jax.ShapeDtypeStruct((1, 1, 8, 100, 3072), jnp.float32)
  params = jax.eval_shape(module.init, jax.random.key(0), features)["params"]
  assert abs(tree.count(params) - 193_628_160) < 0.002 * 193_628_160
