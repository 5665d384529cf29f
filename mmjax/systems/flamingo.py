"""Flamingo (arXiv 2204.14198): media read by gated layers inside a frozen LM.

  encode each image or video, resample it to a few latents, decode the text
  with a cross-attention block before every n-th layer of the language model

What differs between the paper and open code is a field of one of the parts;
see connectors/perceiver.py and connectors/gated_attention.py. Two ablations
of the paper's Table 3 change the shape of the whole and live here: `vanilla`
puts the attention between self-attention and feed-forward of each layer, and
`graft` leaves the language model alone and stacks new layers on top.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.config import build as build_entry
from mmjax.config import call, lookup, require
from mmjax.connectors import CONNECTORS
from mmjax.connectors.gated_attention import (
  GatedCrossAttention,
  gates,
  layers_before,
)
from mmjax.encoders import ENCODERS
from mmjax.layers.linear import dense
from mmjax.layers.stack import Injection, stacked_init
from mmjax.lms import LMS
from mmjax.lms.decoder import Decoder, stack_like
from mmjax.losses.token import next_token
from mmjax.systems import flamingo_decoding as decoding
from mmjax.systems.media import Media, encode, tokens
from mmjax.typing import Array, Batch, Float, Output, Params

PLACES = ("before", "vanilla", "graft")


class Flamingo(nn.Module):
  """The whole model.

  Attributes:
    lm: the language model.
    resampler: features to latents.
    block: constructor of a GatedCrossAttention.
    before: layers of the language model (of the graft) that a block precedes.
    encoder: pixels to features; None when batches bring features.
    place: where blocks go, one of PLACES.
    graft_layers: depth of the graft.
  """

  lm: Decoder
  resampler: nn.Module
  block: Callable[..., nn.Module]
  before: tuple[int, ...]
  encoder: nn.Module | None = None
  place: str = "before"
  graft_layers: int = 0

  def setup(self):
    if self.place == "graft":
      self.graft = stack_like(self.lm, self.graft_layers)
    block = self.block(parent=None)
    if block.media_width != self.resampler.width:
      self.media_project = dense(
        self.resampler.width,
        block.media_width,
        (None, "embed"),
        dtype=self.lm.dtype,
        name="media_project",
      )
    x = jnp.zeros((1, 1, block.width))
    latents = jnp.zeros((1, 1, 1, block.media_width))
    one = jnp.ones((1, 1), jnp.int32)

    example = (x, latents, one)
    self.blocks = self.param(
      "blocks",
      stacked_init(block, len(self.before), *example, method="from_media"),
    )

  def __call__(self, batch: Batch) -> Output:
    """Logits of a batch with `media.image`; see typing.Batch."""
    media = batch["media"]["image"]
    latents = self.latents(media)
    block = self.block(parent=None)

    def run(params, x):
      return block.apply(
        {"params": params}, x, latents, media["index"], method="from_media"
      )

    x, *_ = self.hidden(batch, run, self.blocks)
    return Output(self.lm.logits(x))

  def latents(self, media: Media) -> Float[Array, "B M Q E"]:
    """Encodes and resamples all media of a batch."""
    latents = tokens(self.resampler, self.encoder, media)
    if self.block(parent=None).media_width == latents.shape[-1]:
      return latents
    return self.media_project(latents)

  def encode(self, values: Array) -> Float[Array, "B M T P E"]:
    """Features of images or frames, or of keys; see media.encode."""
    return encode(self.encoder, values)

  def hidden(self, batch, run, xs, lm_cache=None, graft_cache=None):
    """The language model with blocks in their places, up to the last layer."""
    positions, segments = batch["positions"], batch["segments"]
    x = self.lm.embed(batch["tokens"], positions)
    dropout = batch.get("key")
    injection = Injection(run, xs, self.before)
    if self.place == "vanilla":
      x, lm_cache = self.lm.hidden(
        x,
        positions,
        segments,
        cache=lm_cache,
        between=run,
        between_xs=xs,
        dropout=dropout,
      )
    elif self.place == "graft":
      x, lm_cache = self.lm.hidden(
        x, positions, segments, cache=lm_cache, dropout=dropout
      )
      x, graft_cache = self.graft(
        x, positions, segments, cache=graft_cache, injection=injection
      )
    else:
      x, lm_cache = self.lm.hidden(
        x,
        positions,
        segments,
        cache=lm_cache,
        injection=injection,
        dropout=dropout,
      )
    return x, lm_cache, graft_cache

  start = decoding.start
  prefill = decoding.prefill
  decode = decoding.decode


def build(config: Mapping[str, Any]) -> Flamingo:
  """The module that `config.model` describes.

  Args:
    config: `encoder`, `resampler` and `lm` with a `name` each (None for no
      encoder), `xattn` with `every`, `first`, `place`, `graft_layers` and the
      fields of GatedCrossAttention, and `dtype`. Latents are projected once
      when `xattn.media_width` is given and not theirs.
  """
  config = dict(config)
  require(config, ("lm", "resampler", "xattn"), "config.model")
  dtype = jnp.dtype(config.pop("dtype", "float32"))
  encoder, lm = config.pop("encoder", None), config.pop("lm")
  resampler, xattn = config.pop("resampler"), dict(config.pop("xattn"))
  if config:
    raise ValueError(f"Flamingo takes no {sorted(config)}.")
  lm = build_entry(LMS, lm, dtype=dtype)
  if encoder is not None:
    encoder = build_entry(ENCODERS, encoder, dtype=dtype)
  resampler = build_entry(CONNECTORS, resampler, dtype=dtype)
  place = xattn.pop("place", "before")
  lookup(dict.fromkeys(PLACES), place, "place of blocks")
  graft_layers = xattn.pop("graft_layers", 0)
  depth = graft_layers if place == "graft" else lm.num_layers
  every, first = xattn.pop("every", 1), xattn.pop("first", 0)
  own = dict(num_heads=lm.num_heads, head_dim=lm.head_dim)
  xattn = own | dict(media_width=resampler.width) | xattn

  fields = dict(width=lm.width, dtype=dtype)
  call(GatedCrossAttention, xattn, parent=None, **fields)
  return Flamingo(
    lm=lm,
    resampler=resampler,
    block=functools.partial(GatedCrossAttention, **fields, **xattn),
    before=layers_before(depth, every, first),
    encoder=encoder,
    place=place,
    graft_layers=graft_layers,
  )


def loss(
  module: Flamingo, params: Params, batch: Batch
) -> dict[str, tuple[Array, Array]]:
  """Next-token loss and accuracy as (sum, count)."""
  logits = module.apply({"params": params}, batch).logits
  return next_token(logits, batch)


def monitor(trainable: Params) -> dict[str, Array]:
  """tanh of every gate, for the paper's Figure 6."""
  return {
    f"gates/{name.removesuffix('_gate')}/{i}": value
    for name, values in gates(trainable.get("blocks", {})).items()
    for i, value in enumerate(values)
  }
