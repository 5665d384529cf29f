"""What all systems do with media first: features, tokens, and their places.

Encoders are frozen modules, or None when batches bring features; connectors
make a fixed number of tokens of the features of a medium.
"""

import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmjax.sharding import constrain, parts_of, rows_over_all
from mmjax.systems.merge import merge
from mmjax.typing import Array, Float, Int

Media = Mapping[str, Array]


def place(
  x: Float[Array, "B L D"],
  media: Media,
  make: Callable[[Media], Float[Array, "B M Q D"]],
  initializing: bool,
) -> Float[Array, "B L D"]:
  """The text's embeddings with the tokens of media in their places.

  Args:
    x: embeddings.
    media: of one kind, with an `index`; there may be room for none.
    make: tokens of media.
    initializing: parameters are made, of `make` too where there are no media:
      the first of a mixture's datasets may be one without.
  """
  if media["mask"].shape[1]:
    return merge(x, make(media), media["index"])
  if initializing:
    make(_with_a_slot(media))
  return x


def _with_a_slot(media: Media) -> Media:
  """Media of which there are none, with one slot that is padding."""
  slots = {k: x for k, x in media.items() if k != "index"}
  pad = [(0, 0), (0, 1)]
  return {
    k: jnp.pad(x, pad + [(0, 0)] * (x.ndim - 2)) for k, x in slots.items()
  }


def tokens(
  connector: nn.Module, encoder: nn.Module | None, media: Media
) -> Float[Array, "B M Q D"]:
  """Tokens of all media of a batch, each device its share of the work.

  They are shared out one by one, whatever rows they are of; then every row
  gets its own again.
  """
  text = {"text": media["text"]} if "text" in media else {}
  with rows_over_all():
    found = connector(features(encoder, media), media["mask"], **text)
  return constrain(found, "batch")


def features(
  encoder: nn.Module | None, media: Media
) -> Float[Array, "B M T P E"]:
  """Of the media of a batch, from what it brings of them."""
  found = media.get("features")
  if found is not None:
    return found
  values = media.get("values")
  if values is None:
    values = media["keys"][..., None]
  return encode(encoder, values, media.get("lengths"))


def encode(
  encoder: nn.Module | None,
  values: Array,
  lengths: Int[Array, "B M T"] | None = None,
) -> Float[Array, "B M T P E"]:
  """Features of frames, [B M T ...], or of keys [B M T].

  All devices share the frames evenly, whatever rows they are of.

  Args:
    encoder: of frames; where they have lengths, it takes those too.
    values: of the frames.
    lengths: how many values of each frame are real.
  """
  if encoder is None:
    raise ValueError(
      "The batch brings pixels, but this model has no encoder. Set "
      "config.model.encoder, or let the pipeline bring features."
    )
  batch, media, frames = values.shape[:3]
  fill = -media % _divisor(parts_of("batch"), batch * frames)

  def flat(x):
    x = jnp.pad(x, [(0, 0), (0, fill)] + [(0, 0)] * (x.ndim - 2))
    return constrain(x.reshape(-1, *x.shape[3:]), "batch")

  known = () if lengths is None else (flat(lengths),)
  found = constrain(encoder(flat(values), *known), "batch")
  found = found.reshape(batch, -1, frames, *found.shape[1:])
  return found[:, :media]


def _divisor(devices: int, frames: int) -> int:
  """A number of media whose frames (of all rows) the devices share evenly."""
  return devices // math.gcd(devices, frames)
