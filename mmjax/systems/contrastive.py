"""Contrastive pretraining of an encoder of media (Flamingo, v2 B.1.3).

  mean over the medium's tokens -> matrix -> length 1
  mean over the text's tokens   -> matrix -> length 1    (two towers)
  scores = learned inverse temperature * products of all pairs

The paper's towers are NFNet-F6 and BERT, its joint width is 1376. It states
no first temperature; ours is CLIP's (arXiv 2103.00020). Media may be of any
kind: ULIP (arXiv 2212.05171) does the same with clouds of points.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.config import build as build_entry
from mmjax.config import call, require
from mmjax.encoders import ENCODERS
from mmjax.layers.linear import dense
from mmjax.lms import TEXT_ENCODERS
from mmjax.losses.contrastive import contrastive, similarity
from mmjax.sharding import constrain, rows_over_all
from mmjax.typing import Array, Batch, Bool, Float, Int, Output, Params


class TwoTowers(nn.Module):
  """An encoder of media and one of text that meet in a joint space.

  Attributes:
    media: encoder of media to tokens.
    text: encoder of token ids to hidden states.
    kind: of the media.
    width: of the joint space.
    first_temperature: that scores are divided by at the start.
    label_smoothing: part of the target spread over all candidates.
  """

  media: nn.Module
  text: nn.Module
  kind: str = "image"
  width: int = 1376
  first_temperature: float = 0.07
  label_smoothing: float = 0.1

  @property
  def kinds(self) -> tuple[str, ...]:
    """Of the media that are read."""
    return (self.kind,)

  def setup(self):
    self.media_head = Head(self.width)
    self.text_head = Head(self.width)
    # Learned as its logarithm, so that it stays positive.
    start = initializers.constant(-math.log(self.first_temperature))
    init = nn.with_logical_partitioning(start, ())
    self.log_scale = self.param("log_inverse_temperature", init, ())

  def __call__(self, batch: Batch) -> Output:
    """Scores of one medium and one text a row; see typing.Batch.

    Returns:
      logits [B 1 B], of every text for each medium, and in `aux` the vectors
      `media` and `texts`, and `inverse_temperature`.
    """
    given = batch["media"][self.kind]
    lengths = (given["lengths"][:, 0, 0],) if "lengths" in given else ()
    media = self.embed_media(given["values"][:, 0, 0], *lengths)
    texts = self.embed_texts(
      batch["tokens"], batch["positions"], batch["segments"]
    )
    scale = jnp.exp(self.log_scale)
    aux = {"media": media, "texts": texts, "inverse_temperature": scale}
    return Output(similarity(media, texts, scale)[:, None], aux)

  def embed_media(
    self, values: Array, lengths: Int[Array, "B"] | None = None
  ) -> Float[Array, "B E"]:
    """Vectors of length 1.

    Args:
      values: of a frame each, as the encoder takes them.
      lengths: how many of them are real, for an encoder that asks.
    """
    more = () if lengths is None else (constrain(lengths, "batch"),)
    with rows_over_all():
      x = constrain(self.media(constrain(values, "batch"), *more), "batch")
      x = self.media_head(x, jnp.ones(x.shape[:2], bool))
    return constrain(x, "batch")

  def embed_texts(
    self,
    tokens: Int[Array, "B L"],
    positions: Int[Array, "B L"],
    segments: Int[Array, "B L"],
  ) -> Float[Array, "B E"]:
    """Vectors of length 1; a row is one text."""
    return self.text_head(self.text(tokens, positions, segments), segments > 0)


class Head(nn.Module):
  """The mean over real tokens, times a matrix, brought to length 1."""

  width: int

  @nn.compact
  def __call__(
    self, x: Float[Array, "B L D"], mask: Bool[Array, "B L"]
  ) -> Float[Array, "B E"]:
    weights = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    x = jnp.einsum("BLD,BL->BD", x, weights.astype(x.dtype))
    x = dense(x.shape[-1], self.width, ("embed", None), name="projection")(x)
    x = x.astype(jnp.float32)
    # A row of zeros (padding) has no direction; the term keeps its gradient.
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


def pairs(batch: Batch, kind: str = "image") -> Bool[Array, "B"]:
  """The rows that hold a medium of a kind and a text."""
  there = batch["media"][kind]["mask"][:, 0, 0]
  return there & (batch["segments"] > 0).any(axis=1)


def loss(
  module: TwoTowers, params: Params, batch: Batch
) -> dict[str, tuple[Array, Array]]:
  """The loss, and how often each side finds its partner, as (sum, count).

  The candidates are those of one batch: micro-batches have fewer.
  """
  output = module.apply({"params": params}, batch)
  mask = pairs(batch, module.kind)
  media, texts, scale = (
    output.aux[name] for name in ("media", "texts", "inverse_temperature")
  )
  total = contrastive(
    media, texts, scale, mask=mask, label_smoothing=module.label_smoothing
  )
  scores = output.logits[:, 0]
  return {
    "loss": total,
    "media_to_text": retrieved(scores, mask),
    "text_to_media": retrieved(scores.T, mask),
  }


def retrieved(
  scores: Float[Array, "B B"], mask: Bool[Array, "B"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Rows whose own column is the best, among the pairs, as (sum, count)."""
  best = jnp.argmax(jnp.where(mask, scores, -jnp.inf), axis=1)
  right = (best == jnp.arange(len(scores))) & mask
  return right.sum().astype(jnp.float32), mask.sum().astype(jnp.float32)


def monitor(trainable: Params) -> dict[str, Array]:
  """The learned inverse temperature."""
  if "log_inverse_temperature" not in trainable:
    return {}
  value = jnp.exp(trainable["log_inverse_temperature"])
  return {"inverse_temperature": value}


def build(config: Mapping[str, Any]) -> TwoTowers:
  """The module that `config.model` describes.

  Args:
    config: `media` and `text` with a `name` each, `dtype`, and the fields of
      TwoTowers.
  """
  config = dict(config)
  require(config, ("media", "text"), "config.model")
  dtype = jnp.dtype(config.pop("dtype", "float32"))
  media = build_entry(ENCODERS, config.pop("media"), dtype=dtype)
  text = build_entry(TEXT_ENCODERS, config.pop("text"), dtype=dtype)
  return call(TwoTowers, config, media=media, text=text)
