"""Next-token cross-entropy."""

import jax
import jax.numpy as jnp

from mmjax.typing import Array, Batch, Float, Int


def cross_entropy(
  logits: Float[Array, "B L V"],
  targets: Int[Array, "B L"],
  weights: Float[Array, "B L"],
  label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Weighted negative log-likelihood as (sum, count).

  A sum and a count instead of a mean, so that averages stay right over
  packing, accumulated micro-batches and hosts.

  Args:
    logits: scores of every token at each place.
    targets: the token to predict there.
    weights: its weight, 0 where nothing is predicted.
    label_smoothing: part of the target that is spread over all tokens.
  """
  logits = logits.astype(jnp.float32)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  if label_smoothing:
    chosen *= 1.0 - label_smoothing
    chosen += label_smoothing * logits.mean(axis=-1)
  losses = jax.nn.logsumexp(logits, axis=-1) - chosen
  return (losses * weights).sum(), weights.sum()


def accuracy(
  logits: Float[Array, "B L V"],
  targets: Int[Array, "B L"],
  weights: Float[Array, "B L"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Share of weighted tokens that are the best guess, as (sum, count)."""
  right = jnp.argmax(logits, axis=-1) == targets
  return (right * weights).sum(), weights.sum()


def next_token(
  logits: Float[Array, "B L V"], batch: Batch
) -> dict[str, tuple[Array, Array]]:
  """Loss and accuracy of a batch's `targets`, each as (sum, count)."""
  targets, weights = batch["targets"], batch["weights"]
  return {
    "loss": cross_entropy(logits, targets, weights),
    "accuracy": accuracy(logits, targets, weights),
  }
