"""The contrastive loss against PyTorch's cross-entropy, and its mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmjax.losses.contrastive import contrastive


def vectors(count, seed):
  x = np.random.RandomState(seed).randn(count, 5).astype(np.float32)
  return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_sum_of_both_directions(smoothing):
  images, texts = vectors(6, 0), vectors(6, 1)
  scores = (
    14.0 * torch.tensor(np.array(images)) @ torch.tensor(np.array(texts)).T
  )
  own = torch.arange(6)
  kwargs = dict(reduction="sum", label_smoothing=smoothing)
  expected = F.cross_entropy(scores, own, **kwargs)
  expected += F.cross_entropy(scores.T, own, **kwargs)
  total, count = contrastive(images, texts, 14.0, label_smoothing=smoothing)
  assert count == 6
  np.testing.assert_allclose(total, expected.item(), rtol=1e-5)


def test_masked_rows_are_neither_pairs_nor_candidates():
  images, texts = vectors(6, 0), vectors(6, 1)
  mask = jnp.array([1, 0, 1, 1, 0, 1], bool)
  kwargs = dict(label_smoothing=0.1)

  def run(x, mask):
    return contrastive(x, texts, 14.0, mask=mask, **kwargs)[0]

  total, grad = jax.value_and_grad(run)(images, mask)
  expected = contrastive(images[mask], texts[mask], 14.0, **kwargs)
  np.testing.assert_allclose(total, expected[0], rtol=1e-6)
  assert expected[1] == 4
  assert (grad[~mask] == 0).all() and (np.abs(grad[mask]).max(-1) > 0).all()


def test_a_batch_without_pairs_is_zero():
  x = vectors(3, 0)
  run = jax.value_and_grad(
    lambda x: contrastive(x, x, 14.0, mask=jnp.zeros(3, bool))[0]
  )
  total, grad = run(x)
  assert total == 0 and (grad == 0).all()
