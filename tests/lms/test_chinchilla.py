"""Relative attention against Transformer-XL's formula, term by term."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers.attention import Context
from mmjax.layers.dot_product import Visibility
from mmjax.lms.chinchilla import RelativeAttention

WIDTH, HEADS, SIZE, LENGTH = 6, 2, 4, 5


def test_a_score_has_a_content_and_a_position_part():
  """(q_i + u) k_j + (q_i + v) W r(i - j), over j up to i."""
  module = RelativeAttention(HEADS, SIZE)
  random = np.random.RandomState(0)
  x = random.randn(1, LENGTH, WIDTH).astype(np.float32)
  positions = jnp.arange(LENGTH)[None]
  ones = jnp.ones_like(positions)
  visible = Visibility.among(ones, positions)
  context = Context(positions, positions, visible)
  like = nn.unbox(
    jax.eval_shape(module.init, jax.random.key(0), x, context, None)
  )
  params = jax.tree.map(lambda s: random.randn(*s.shape), like["params"])
  found, _ = module.apply({"params": params}, x, context, None)

  kernels = {k: v["kernel"] for k, v in params.items() if "bias" not in k}
  query, key, value = (
    np.einsum("ld,dnh->lnh", x[0], kernels[k])
    for k in ("query", "key", "value")
  )
  frequency = 10000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)
  out = np.zeros((LENGTH, HEADS, SIZE))
  for i in range(LENGTH):
    for n in range(HEADS):
      scores = []
      for j in range(i + 1):
        angle = (i - j) * frequency
        r = np.concatenate([np.sin(angle), np.cos(angle)])
        position = r @ kernels["position"][:, n]
        content = (query[i, n] + params["content_bias"][n]) @ key[j, n]
        place = (query[i, n] + params["position_bias"][n]) @ position
        scores.append((content + place) / np.sqrt(SIZE))
      weights = np.exp(scores - np.max(scores))
      out[i, n] = weights / weights.sum() @ value[: i + 1, n]
  expected = np.einsum("lnh,nhd->ld", out, kernels["out"])
  np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)
