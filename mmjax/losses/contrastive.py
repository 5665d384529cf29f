"""The two-tower contrastive loss over pairs of images and texts."""

import jax
import jax.numpy as jnp

from mmjax.typing import Array, Bool, Float, Int

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
  scores = similarity(images, texts, inverse_temperature)
  own = jnp.eye(images.shape[0], dtype=bool)
  there, count = matching(scores, own, mask, label_smoothing=label_smoothing)
  back, _ = matching(scores.T, own, mask, label_smoothing=label_smoothing)
  return there + back, count


def matching(
  scores: Float[Array, "B B"],
  partners: Bool[Array, "B B"],
  mask: Bool[Array, "B"] | None = None,
  *,
  label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Softmax cross-entropy of finding a row's partners among the columns.

  Args:
    scores: of every row with every column.
    partners: which columns are a row's; they share the target evenly.
    mask: False for a row, and column, that holds nothing.
    label_smoothing: part of the target that is spread over all candidates.

  Returns:
    the sum over rows, and the number of rows.
  """
  if mask is None:
    mask = jnp.ones(scores.shape[0], bool)
  count = mask.sum().astype(jnp.float32)

  def mean(chosen):
    total = jnp.where(chosen, scores, 0.0).sum(axis=1)
    return total / jnp.maximum(chosen.sum(axis=1), 1)

  reach = jax.nn.logsumexp(jnp.where(mask, scores, _NEGATIVE), axis=1)
  target = (1.0 - label_smoothing) * mean(partners & mask)
  target += label_smoothing * mean(jnp.broadcast_to(mask, scores.shape))
  return jnp.where(mask, reach - target, 0.0).sum(), count


def partners(ids: Int[Array, "B"]) -> Bool[Array, "B B"]:
  """Which rows and columns belong together: those of one id."""
  return ids[:, None] == ids[None, :]


def similarity(
  images: Float[Array, "I E"],
  texts: Float[Array, "J E"],
  inverse_temperature: Float[Array, ""] | float = 1.0,
) -> Float[Array, "I J"]:
  """Scores of every image with every text, in float32."""
  return inverse_temperature * jnp.einsum(
    "IE,JE->IJ", images, texts, preferred_element_type=jnp.float32
  )
