"""How Flamingo writes: its state, and the verbs that generation asks for.

Methods of systems/flamingo.py's module, kept apart because training needs none
of them. The first argument is that module.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mmjax.lms.decoder import DecoderCache, last_real, positions_after
from mmjax.typing import Array, Batch, Bool, Float, Int


@struct.dataclass
class Media:
  """What the blocks know of the media.

  Attributes:
    keys_values: of every block, [blocks, B, M, Q, N, H] twice.
    used: slots that are taken, one number for the batch; more than M when
      more media came than there was room for, and logits are NaN.
    last: the medium that new text sees, 0 for none.
  """

  keys_values: tuple[Array, Array]
  used: Int[Array, ""]
  last: Int[Array, "B"]

  @property
  def overflowed(self) -> Bool[Array, ""]:
    """Whether earlier media were overwritten for want of room."""
    return self.used > self.keys_values[0].shape[2]


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

  @property
  def overflowed(self) -> Bool[Array, ""]:
    """Whether more was written than there is room for; all logits are NaN."""
    return self.lm.overflowed | self.media.overflowed

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


def start(module: Any, batch: int, size: int, media: int) -> State:
  """An empty state with room for `size` tokens and `media` media a row.

  Padding takes room as well. What does not fit overwrites what is there;
  from then on all logits are NaN, or, when it could never fit, `prefill` and
  `decode` raise ValueError.
  """
  block = module.block(parent=None)
  shape = (
    len(module.before),
    batch,
    media,
    module.resampler.num_latents,
    block.num_heads,
    block.head_dim,
  )
  zeros = jnp.zeros(shape, module.lm.dtype or jnp.float32)
  none = jnp.zeros((batch,), jnp.int32)
  graft = None
  if module.place == "graft":
    graft = module.graft.empty_cache(batch, size)
  return State(
    module.lm.empty_cache(batch, size),
    graft,
    Media((zeros, zeros), jnp.zeros((), jnp.int32), none),
    none,
  )


def prefill(
  module: Any, batch: Batch, state: State
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
  media, index = _add_media(module, batch, state.media, real)
  positions = positions_after(state.next_position, real)
  batch = dict(batch, positions=positions)
  x, state = _step(module, batch, index, state.replace(media=media))
  return module.lm.logits(last_real(x, real))[:, 0], state


def decode(
  module: Any,
  tokens: Int[Array, "B L"],
  state: State,
  real: Bool[Array, "B L"] | None = None,
) -> tuple[Float[Array, "B L V"], State]:
  """Logits of further tokens; they see the last medium of their row.

  Tokens that are not `real` are padding behind the end of a row.
  """
  length = tokens.shape[1]
  segments = jnp.ones_like(tokens) if real is None else real.astype(jnp.int32)
  batch = {
    "tokens": tokens,
    "positions": state.next_position[:, None] + jnp.arange(length),
    "segments": segments,
  }
  index = jnp.broadcast_to(state.media.last[:, None], tokens.shape)
  x, state = _step(module, batch, index, state)
  return module.lm.logits(x), state


def _step(module, batch, index, state):
  block = module.block(parent=None)

  def run(xs, x):
    params, keys_values = xs
    return block.apply({"params": params}, x, keys_values, index)

  xs = (module.blocks, state.media.keys_values)
  x, lm, graft = module.hidden(batch, run, xs, state.lm, state.graft)
  x = jnp.where(state.media.overflowed, jnp.nan, x)
  count = (batch["segments"] > 0).sum(axis=1)
  return x, state.replace(
    lm=lm, graft=graft, next_position=state.next_position + count
  )


def _add_media(
  module: Any, batch: Batch, media: Media, real: Bool[Array, "B L"]
) -> tuple[Media, Int[Array, "B L"]]:
  """Keys and values of new media behind the old, and the text's map."""
  own = batch.get("media", {}).get("image")
  if own is None:
    index = jnp.broadcast_to(media.last[:, None], real.shape)
    return media, jnp.where(real, index, 0)
  given, slots = own["mask"].shape[1], media.keys_values[0].shape[2]
  if given > slots:
    raise ValueError(
      f"{given} media for a state with room for {slots}. Start the state with "
      "the number of all media that are to come."
    )
  latents, block = module.latents(own), module.block(parent=None)
  new = jax.vmap(
    lambda p: block.apply({"params": p}, latents, method="keys_values")
  )(module.blocks)
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
  used = media.used + given
  last = jnp.maximum(media.last, index.max(axis=1))
  return Media(keys_values, used, last), index
