"""What the originals do and ours, on purpose, does not.

Their mask fills scores with the lowest number. Where it leaves a token no
medium at all, the softmax is even over all media of the row; ours gives zero.
And while OpenFlamingo writes, a new `<image>` changes what all rows see.
"""

import jax.numpy as jnp
from flax import struct

from mmjax.connectors.gated_attention import GatedCrossAttention, MediaAttention
from mmjax.systems.flamingo import Flamingo
from mmjax.systems.flamingo_decoding import State


def attend(attention: MediaAttention, x, keys_values, index):
  """The attention, with the even reading where the mask leaves nothing."""
  if index is None:
    return attention(x, keys_values, index)
  media = keys_values[1].shape[1]
  lost = index > media
  if attention.previous:  # Further images than there are see all of them.
    index, lost = jnp.minimum(index, media), index == 0
  y = attention(x, keys_values, index)
  even = keys_values[1].mean(axis=(1, 2))[:, None]
  return jnp.where(lost[..., None], attention.out(even), y)


class OriginalBlock(GatedCrossAttention):
  """The gated block over that attention."""

  def attended(self, x, keys_values, index):
    return attend(self.attention, x, keys_values, index)


@struct.dataclass
class OriginalState(State):
  """Which image a row sees belongs to its place, not to the beam in it."""

  def rows(self, indices):
    state = super().rows(indices)
    if len(indices) != len(self.next_position):
      return state
    return state.replace(media=state.media.replace(last=self.media.last))


class OriginalRule(Flamingo):
  """Decodes as the original does when the model itself writes `<image>`.

  With a cache, a step in which any row of the batch writes it forgets, in
  every row, which images were seen: tokens that are `<image>` now see the
  first image, all others none. Without one the whole text is read again, and
  the row goes on to its next image. Ours keep seeing the last image of their
  own row.

  Attributes:
    image_token: id of `<image>`.
    uses_cache: the language model's setting.
  """

  image_token: int = -1
  uses_cache: bool = True

  def start(self, batch, size, media):
    state = super().start(batch, size, media)
    if not self.uses_cache:
      return state
    return OriginalState(
      state.lm, state.graft, state.media, state.next_position
    )

  def decode(self, tokens, state, real=None):
    if tokens.shape[1] == 1:
      image = tokens[:, 0] == self.image_token
      new, last = image.astype(jnp.int32), state.media.last
      if self.uses_cache:
        last = jnp.where(image.any(), new, last)
      else:
        last += new
      state = state.replace(media=state.media.replace(last=last))
    return super().decode(tokens, state, real)
