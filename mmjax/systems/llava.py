"""LLaVA (arXiv 2304.08485) and LLaVA-1.5 (arXiv 2310.03744).

  encode each image, project every feature to the language model's width, put
  the tokens where the text left room for them, decode

The sequence is causal throughout, its images included. Features are those of
CLIP's last layer but one, without the class token and the last norm: an option
of the encoder (`output_layer=-2`). What differs between the versions is the
connector and the size of the images.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.config import build as build_entry
from mmjax.config import nearest, require
from mmjax.connectors import CONNECTORS
from mmjax.encoders import ENCODERS
from mmjax.lms import LMS
from mmjax.systems.media import Media, encode, place, tokens
from mmjax.systems.text import TextModel, loss, monitor
from mmjax.typing import Array, Batch, Float

__all__ = ["Llava", "build", "loss", "monitor"]


class Llava(TextModel):
  """A language model whose sequence has images in it.

  Attributes, beyond the language model:
    connector: features to tokens.
    encoder: pixels to features; None when batches bring features.
  """

  connector: nn.Module = None
  encoder: nn.Module | None = None

  def sequence(self, batch: Batch) -> Float[Array, "B L D"]:
    """Embeddings of the text, with the tokens of the images in their places.

    A batch without media, or with room for none, is text.
    """
    x = super().sequence(batch)
    media = batch.get("media", {}).get("image")
    if media is None:
      return x
    return place(x, media, self.media_tokens, self.is_initializing())

  def media_tokens(
    self, media: Media, kind: str = "image"
  ) -> Float[Array, "B M Q D"]:
    """Tokens of all images of a batch; there is no other kind."""
    del kind
    return tokens(self.connector, self.encoder, media)

  def encode(self, values: Array) -> Float[Array, "B M T P E"]:
    """Features of images, or of keys; see media.encode."""
    return encode(self.encoder, values)


def build(config: Mapping[str, Any]) -> Llava:
  """The module that `config.model` describes.

  Args:
    config: `connector` and `lm` with a `name` each, `encoder` likewise or None
      for features that batches bring, and `dtype`.
  """
  config = dict(config)
  require(config, ("lm", "connector"), "config.model")
  dtype = jnp.dtype(config.pop("dtype", "float32"))
  encoder, lm = config.pop("encoder", None), config.pop("lm")
  connector = config.pop("connector")
  for key in config:
    known = ("connector", "dtype", "encoder", "lm")
    raise ValueError(f"LLaVA takes no {key!r}. {nearest(key, known)}")
  lm = build_entry(LMS, lm, dtype=dtype)
  connector = build_entry(CONNECTORS, connector, dtype=dtype)
  if connector.width != lm.width:
    raise ValueError(
      f"The connector's width is {connector.width}, the language model's "
      f"{lm.width}. Set config.model.connector.width={lm.width}."
    )
  if encoder is not None:
    encoder = build_entry(ENCODERS, encoder, dtype=dtype)
  return Llava(lm=lm, connector=connector, encoder=encoder)
