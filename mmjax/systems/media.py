"""What all systems do with media first: their frozen encoder's features.

Functions whose first argument is a system's module, with an `encoder` that is
None when batches bring features.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from mmjax.sharding import constrain, parts_of
from mmjax.typing import Array, Float


def features(
  module: Any, media: Mapping[str, Array]
) -> Float[Array, "B M T P E"]:
  """Of the media of a batch, from their pixels or keys, or as they came."""
  found = media.get("features")
  if found is not None:
    return found
  values = media.get("values")
  if values is None:
    values = media["keys"][..., None]
  return module.encode(values)


def encode(module: Any, values: Array) -> Float[Array, "B M T P E"]:
  """Features of images or frames [B M T height width 3], or of keys [B M T].

  All devices share the frames evenly, whatever rows they are of.
  """
  if module.encoder is None:
    raise ValueError(
      "The batch brings pixels, but this model has no encoder. Set "
      "config.model.encoder, or let the pipeline bring features."
    )
  batch, media, frames = values.shape[:3]
  fill = -media % _divisor(parts_of("batch"), batch * frames)
  values = jnp.pad(values, [(0, 0), (0, fill)] + [(0, 0)] * (values.ndim - 2))
  flat = constrain(values.reshape(-1, *values.shape[3:]), "batch")
  found = constrain(module.encoder(flat), "batch")
  found = found.reshape(batch, -1, frames, *found.shape[1:])
  return found[:, :media]


def _divisor(devices: int, frames: int) -> int:
  """A number of media whose frames (of all rows) the devices share evenly."""
  return devices // math.gcd(devices, frames)
