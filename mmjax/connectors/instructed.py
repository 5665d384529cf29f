"""Connectors of X-InstructBLIP (arXiv 2311.18799): a frame to a few tokens.

  features [P E] -> norm -> Q-Former, that may read an instruction -> [Q D]
  features [P E] -> norm -> mean -> matrix -> [Q, inner] -> matrix -> [Q D]

The second is the paper's alternative, the linear projection; LAVIS'
checkpoints hold two matrices (`proj_dim: 768`). Every frame of a medium is
read alone, with the medium's instruction; tokens follow in the order of time.
BLIP-2 and InstructBLIP are the first with images of one frame.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.config import call
from mmjax.connectors.projection import TORCH_VARIANCE
from mmjax.connectors.qformer import QFormer, visible
from mmjax.layers.linear import Dtype, Linear, dense
from mmjax.layers.norm import LayerNorm
from mmjax.typing import Array, Bool, Float, Int


class InstructedQFormer(nn.Module):
  """A norm, a Q-Former and a matrix.

  Attributes:
    width: of the language model (D).
    qformer: of the features.
    features_norm_eps: of the norm of the features; LAVIS has 1e-5, the same
      weights in Hugging Face's models 1e-6.
    dtype: of the computation.
  """

  width: int
  qformer: QFormer
  features_norm_eps: float = 1e-5
  dtype: Dtype | None = None

  def setup(self):
    self.features_norm = LayerNorm(self.features_norm_eps)
    self.project = _to_language_model(
      self.qformer.width, self.width, self.dtype
    )

  @property
  def features_width(self) -> int:
    """Of the features (E)."""
    return self.qformer.features_width

  @property
  def vocabulary(self) -> int:
    """Tokens of the text that it can read; 0 where it reads none."""
    return self.qformer.vocab_size

  def __call__(
    self,
    features: Float[Array, "B M T P E"],
    mask: Bool[Array, "B M T"] | None = None,
    text: Int[Array, "B M L"] | None = None,
  ) -> Float[Array, "B M Q D"]:
    """Tokens of all media; those of padding (`mask` is False) are zeros.

    Args:
      features: P of each frame.
      mask: False for frames that are padding.
      text: the instruction that each medium is read with, 0 for padding.
    """
    return _tokens(self, features, mask, text)

  def read(
    self,
    features: Float[Array, "B M T P E"],
    text: Int[Array, "B M L"] | None = None,
  ) -> Float[Array, "R Q D"]:
    """What the queries found in each frame, before the last matrix."""
    _check_width(features, self.features_width)
    frames = features.shape[2]
    flat = features.reshape(-1, *features.shape[3:])
    x = self.features_norm(flat)
    if text is None:
      return self.qformer(x)
    # Row by row as the frames: those of one medium have its instruction.
    text = jnp.repeat(text.reshape(-1, text.shape[-1]), frames, axis=0)
    queries = self.qformer.num_queries
    table = visible("together", queries, text != 0)
    return self.qformer(x, text=text, table=table)[:, :queries]


def instructed(
  width: int,
  qformer: Mapping[str, Any],
  features_norm_eps: float = 1e-5,
  dtype: Dtype | None = None,
) -> InstructedQFormer:
  """The connector whose Q-Former has the fields `qformer`; see there."""
  made = call(QFormer, qformer, dtype=dtype)
  return InstructedQFormer(width, made, features_norm_eps, dtype)


class PooledProjection(nn.Module):
  """The mean of a frame's features to all of its tokens, by two matrices.

  Attributes:
    width: of the language model (D).
    features_width: of the features (E).
    num_queries: tokens of a frame (Q).
    inner: width between the matrices.
    features_norm_eps: of the norm of the features.
    dtype: of the computation.
  """

  width: int
  features_width: int
  num_queries: int = 32
  inner: int = 768
  features_norm_eps: float = 1e-5
  dtype: Dtype | None = None

  def setup(self):
    self.features_norm = LayerNorm(self.features_norm_eps)
    self.queries = Linear(
      "...D,DQF->...QF",
      (self.features_width, self.num_queries, self.inner),
      ("embed", None, None),
      use_bias=True,
      variance=TORCH_VARIANCE,
      bias_bound=self.features_width**-0.5,
      dtype=self.dtype,
    )
    self.project = _to_language_model(self.inner, self.width, self.dtype)

  def __call__(
    self,
    features: Float[Array, "B M T P E"],
    mask: Bool[Array, "B M T"] | None = None,
    text: Int[Array, "B M L"] | None = None,
  ) -> Float[Array, "B M Q D"]:
    """Tokens of all media; an instruction (`text`) is not read."""
    return _tokens(self, features, mask, text)

  def read(
    self,
    features: Float[Array, "B M T P E"],
    text: Int[Array, "B M L"] | None = None,
  ) -> Float[Array, "R Q F"]:
    """What stands for the queries of each frame, before the last matrix."""
    del text
    _check_width(features, self.features_width)
    flat = features.reshape(-1, *features.shape[3:])
    return self.queries(self.features_norm(flat).mean(axis=1))


def _tokens(connector, features, mask, text):
  """Of all media, zeros for those of frames that are padding."""
  tokens = connector.project(connector.read(features, text))
  batch, media, frames = features.shape[:3]
  tokens = tokens.reshape(batch, media, -1, connector.width)
  if mask is None:
    return tokens
  each = tokens.shape[2] // frames
  return jnp.where(jnp.repeat(mask, each, axis=-1)[..., None], tokens, 0)


def _check_width(features, width: int) -> None:
  if features.shape[-1] != width:
    raise ValueError(
      f"Features are {features.shape[-1]} wide, the connector reads {width}. "
      "Set the connector's features_width to the encoder's width."
    )


def _to_language_model(inner: int, width: int, dtype: Dtype | None) -> Linear:
  return dense(
    inner,
    width,
    (None, "embed"),
    use_bias=True,
    variance=TORCH_VARIANCE,
    bias_bound=inner**-0.5,
    dtype=dtype,
  )
