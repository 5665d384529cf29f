"""The two-tower contrastive loss over pairs of images and texts."""

import jax
import jax.numpy as jnp

from mmjax.typing import Array, Bool, Float

# Finite, so that a batch without any pair gives no NaN.
_NEGATIVE = -1e30


def contrastive(
  images: Float[Array, "B E"],
  texts: Float[Array, "B E"],
  inverse_temperature: Float[Array, ""] | float,
  *,
  mask: Bool[Array, "B"] | None = None,
  label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Softmax cross-entropy of finding the partner, in both directions.

  Row i of `similarity` should pick column i, and column i row i. The two
  directions are added, not averaged (Flamingo, arXiv 2204.14198 v2, B.1.3).
  All pairs of the batch are candidates for all: where the batch is sharded,
  XLA gathers the vectors of one side from all devices.

  Args:
    images, texts: one vector each of every pair, of length 1.
    inverse_temperature: factor of the scores.
    mask: False for a row that holds no pair; it is no candidate either.
    label_smoothing: part of the target that is spread over all candidates.

  Returns:
    the sum over pairs, and the number of pairs.
  """
  if mask is None:
    mask = jnp.ones(images.shape[0], bool)
  count = mask.sum().astype(jnp.float32)
  scores = similarity(images, texts, inverse_temperature)
  own = inverse_temperature * jnp.einsum(
    "BE,BE->B", images, texts, preferred_element_type=jnp.float32
  )
  total = jnp.zeros(())
  for axis in (0, 1):
    candidate = jnp.expand_dims(mask, 1 - axis)
    reach = jax.nn.logsumexp(jnp.where(candidate, scores, _NEGATIVE), axis=axis)
    mean = jnp.where(candidate, scores, 0.0).sum(axis) / jnp.maximum(count, 1.0)
    target = (1.0 - label_smoothing) * own + label_smoothing * mean
    total += jnp.where(mask, reach - target, 0.0).sum()
  return total, count


def similarity(
  images: Float[Array, "I E"],
  texts: Float[Array, "J E"],
  inverse_temperature: Float[Array, ""] | float = 1.0,
) -> Float[Array, "I J"]:
  """Scores of every image with every text, in float32."""
  return inverse_temperature * jnp.einsum(
    "IE,JE->IJ", images, texts, preferred_element_type=jnp.float32
  )
