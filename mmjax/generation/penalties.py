"""What an answer has already changes what it goes on with."""

import dataclasses
import math

import jax.numpy as jnp

from mmjax.typing import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class Penalties:
  """Changes the scores of the next token by the new ones before it.

  As Hugging Face's `generate` does from embeddings, of which it knows no ids:
  a prompt's tokens count for nothing.

  Attributes:
    repetition: what the score of a token that is there already is divided by
      where it is positive, and multiplied by where it is negative (Keskar et
      al., arXiv 1909.05858); 1 changes nothing. LAVIS takes 1.5.
    min_new_tokens: no stop id comes before so many.
  """

  repetition: float = 1.0
  min_new_tokens: int = 0

  def __post_init__(self):
    if not 0 < self.repetition < math.inf:
      raise ValueError(
        f"repetition_penalty is {self.repetition}; expected a positive number, "
        "1 for none."
      )
    if self.min_new_tokens < 0:
      raise ValueError(
        f"min_new_tokens is {self.min_new_tokens}; expected 0 or more."
      )

  def __call__(
    self,
    scores: Float[Array, "B V"],
    written: Int[Array, "B L"],
    count: Int[Array, ""],
    stop: Int[Array, "_"],
  ) -> Float[Array, "B V"]:
    """The scores as the penalties leave them.

    Args:
      scores: logits, or log-probabilities, as a beam search has them.
      written: new tokens of each row, of which the first `count` are there.
      count: of them.
      stop: ids that end a row.
    """
    if self.repetition != 1:
      # In place of a mask that is kept: it would be as large as the scores.
      there = jnp.arange(written.shape[1]) < count
      rows = jnp.arange(len(written))[:, None]
      seen = jnp.zeros(scores.shape, bool).at[rows, written].max(there)
      worse = jnp.where(
        scores > 0, scores / self.repetition, scores * self.repetition
      )
      scores = jnp.where(seen, worse, scores)
    if self.min_new_tokens:
      ends = jnp.isin(jnp.arange(scores.shape[1]), stop)
      early = ends & (count < self.min_new_tokens)
      scores = jnp.where(early, -jnp.inf, scores)
    return scores


NONE = Penalties()
