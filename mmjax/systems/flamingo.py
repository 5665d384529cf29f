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
import jax
import jax.numpy as jnp
from flax import struct

from mmjax.config import build as build_entry
from mmjax.config import call, lookup
from mmjax.connectors import RESAMPLERS
from mmjax.connectors.gated_attention import (
  GatedCrossAttention,
  gates,
  layers_before,
)
from mmjax.encoders import ENCODERS
from mmjax.layers.linear import dense
from mmjax.layers.stack import Injection, stacked_init
from mmjax.lms import LMS
from mmjax.lms.decoder import Decoder, DecoderCache, stack_like
from mmjax.losses.token import accuracy, cross_entropy
from mmjax.typing import Array, Batch, Bool, Float, Int, Output, Params

PLACES = ("before", "vanilla", "graft")


@struct.dataclass
class Media:
  """What the blocks know of the media.

  Attributes:
    keys_values: of every block, [blocks, B, M, Q, N, H] twice.
    used: slots that are taken, one number for the batch.
    last: the medium that new text sees, 0 for none.
  """

  keys_values: tuple[Array, Array]
  used: Int[Array, ""]
  last: Int[Array, "B"]


@struct.dataclass
class State:
  """All that decoding carries from step to step.

  Attributes:
    lm, graft: caches of the language model and of grafted layers.
    media: see Media.
    next_position: of the next token.
  """

  lm: DecoderCache
  graft: DecoderCache | None
  media: Media
  next_position: Int[Array, "B"]

  def rows(self, indices: Int[Array, "R"]) -> "State":
    """The state of other rows of the batch, for beams."""
    media = self.media
    keys_values = jax.tree.map(lambda x: x[:, indices], media.keys_values)
    return self.replace(
      lm=self.lm.rows(indices),
      graft=None if self.graft is None else self.graft.rows(indices),
      media=media.replace(keys_values=keys_values, last=media.last[indices]),
      next_position=self.next_position[indices],
    )


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

    x, *_ = self._hidden(batch, run, self.blocks)
    return Output(self.lm.logits(x))

  def latents(self, media: Mapping[str, Array]) -> Float[Array, "B M Q E"]:
    """Encodes and resamples all media of a batch."""
    features = media.get("features")
    if features is None:
      values = media.get("values")
      features = self.encode(
        media["keys"][..., None] if values is None else values
      )
    latents = self.resampler(features, media["mask"])
    if self.block(parent=None).media_width == latents.shape[-1]:
      return latents
    return self.media_project(latents)

  def encode(self, values: Array) -> Float[Array, "B M T P E"]:
    """Features of images or frames [B M T height width 3]."""
    if self.encoder is None:
      raise ValueError(
        "The batch brings pixels, but this model has no encoder. Set "
        "config.model.encoder, or let the pipeline bring features."
      )
    flat = values.reshape(-1, *values.shape[3:])
    features = self.encoder(flat)
    return features.reshape(*values.shape[:3], *features.shape[1:])

  def _hidden(self, batch, run, xs, lm_cache=None, graft_cache=None):
    """The language model with blocks in their places, up to the last layer."""
    positions, segments = batch["positions"], batch["segments"]
    x = self.lm.embed(batch["tokens"], positions)
    injection = Injection(run, xs, self.before)
    if self.place == "vanilla":
      x, lm_cache = self.lm.hidden(
        x, positions, segments, cache=lm_cache, between=run, between_xs=xs
      )
    elif self.place == "graft":
      x, lm_cache = self.lm.hidden(x, positions, segments, cache=lm_cache)
      x, graft_cache = self.graft(
        x, positions, segments, cache=graft_cache, injection=injection
      )
    else:
      x, lm_cache = self.lm.hidden(
        x, positions, segments, cache=lm_cache, injection=injection
      )
    return x, lm_cache, graft_cache

  def start(self, batch: int, size: int, media: int) -> State:
    """An empty state with room for `size` tokens and `media` media a row."""
    block = self.block(parent=None)
    shape = (
      len(self.before),
      batch,
      media,
      self.resampler.num_latents,
      block.num_heads,
      block.head_dim,
    )
    zeros = jnp.zeros(shape, self.lm.dtype or jnp.float32)
    none = jnp.zeros((batch,), jnp.int32)
    graft = None
    if self.place == "graft":
      graft = self.graft.empty_cache(batch, size)
    return State(
      self.lm.empty_cache(batch, size),
      graft,
      Media((zeros, zeros), jnp.zeros((), jnp.int32), none),
      none,
    )

  def prefill(
    self, batch: Batch, state: State
  ) -> tuple[Float[Array, "B V"], State]:
    """Reads a prompt, or the next turn of a conversation, into the state.

    Rows may be padded on either side. `batch` may lack media; new ones take
    the slots behind those already used, and `index` counts from 1 within the
    batch.

    Returns:
      logits of the token after each row's last one, and the new state.
    """
    segments = batch["segments"]
    real = segments > 0
    media, index = self._add_media(batch, state.media, real)
    positions = jnp.cumsum(real, axis=1) - 1 + state.next_position[:, None]
    batch = dict(batch, positions=jnp.maximum(positions, 0))
    x, state = self._step(batch, index, state.replace(media=media))
    at = jnp.arange(x.shape[1])
    last = jnp.max(jnp.where(real, at, 0), axis=1)
    x = jnp.take_along_axis(x, last[:, None, None], axis=1)
    return self.lm.logits(x)[:, 0], state

  def decode(
    self, tokens: Int[Array, "B L"], state: State
  ) -> tuple[Float[Array, "B L V"], State]:
    """Logits of further tokens; they see the last medium of their row."""
    length = tokens.shape[1]
    batch = {
      "tokens": tokens,
      "positions": state.next_position[:, None] + jnp.arange(length),
      "segments": jnp.ones_like(tokens),
    }
    index = jnp.broadcast_to(state.media.last[:, None], tokens.shape)
    x, state = self._step(batch, index, state)
    return self.lm.logits(x), state

  def _step(self, batch, index, state):
    block = self.block(parent=None)

    def run(xs, x):
      params, keys_values = xs
      return block.apply({"params": params}, x, keys_values, index)

    xs = (self.blocks, state.media.keys_values)
    x, lm, graft = self._hidden(batch, run, xs, state.lm, state.graft)
    count = (batch["segments"] > 0).sum(axis=1)
    return x, state.replace(
      lm=lm, graft=graft, next_position=state.next_position + count
    )

  def _add_media(
    self, batch: Batch, media: Media, real: Bool[Array, "B L"]
  ) -> tuple[Media, Int[Array, "B L"]]:
    """Keys and values of new media behind the old, and the text's map."""
    own = batch.get("media", {}).get("image")
    if own is None:
      index = jnp.broadcast_to(media.last[:, None], real.shape)
      return media, jnp.where(real, index, 0)
    latents, block = self.latents(own), self.block(parent=None)
    new = jax.vmap(
      lambda p: block.apply({"params": p}, latents, method="keys_values")
    )(self.blocks)
    start = (0, 0, media.used, 0, 0, 0)
    keys_values = jax.tree.map(
      lambda old, new: jax.lax.dynamic_update_slice(
        old, new.astype(old.dtype), start
      ),
      media.keys_values,
      new,
    )
    index = jnp.where(own["index"] > 0, own["index"] + media.used, 0)
    index = jnp.where(real, jnp.maximum(index, media.last[:, None]), 0)
    used = media.used + latents.shape[1]
    last = jnp.maximum(media.last, index.max(axis=1))
    return Media(keys_values, used, last), index


def build(config: Mapping[str, Any]) -> Flamingo:
  """The module that `config.model` describes.

  Args:
    config: `encoder`, `resampler` and `lm` with a `name` each (None for no
      encoder), `xattn` with `every`, `first`, `place`, `graft_layers` and the
      fields of GatedCrossAttention, and `dtype`. Latents are projected once
      when `xattn.media_width` is given and not theirs.
  """
  config = dict(config)
  dtype = jnp.dtype(config.pop("dtype", "float32"))
  encoder, lm = config.pop("encoder", None), config.pop("lm")
  resampler, xattn = config.pop("resampler"), dict(config.pop("xattn"))
  if config:
    raise ValueError(f"Flamingo takes no {sorted(config)}.")
  lm = build_entry(LMS, lm, dtype=dtype)
  if encoder is not None:
    encoder = build_entry(ENCODERS, encoder, dtype=dtype)
  resampler = build_entry(RESAMPLERS, resampler, dtype=dtype)
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
  targets, weights = batch["targets"], batch["weights"]
  return {
    "loss": cross_entropy(logits, targets, weights),
    "accuracy": accuracy(logits, targets, weights),
  }


def monitor(trainable: Params) -> dict[str, Array]:
  """tanh of every gate, for the paper's Figure 6."""
  return {
    f"gates/{name.removesuffix('_gate')}/{i}": value
    for name, values in gates(trainable.get("blocks", {})).items()
    for i, value in enumerate(values)
  }
