"""A language model alone: what the text of the documents says by itself.

The baseline of every system that reads media: trained on the same tokens, the
marks of media included, it learns what can be guessed without seeing. And the
ground of those that put media into the sequence: they change its `sequence`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from mmjax.config import build as build_entry
from mmjax.config import require
from mmjax.lms import LMS
from mmjax.lms.decoder import (
  Decoder,
  DecoderCache,
  last_real,
  positions_after,
)
from mmjax.losses.token import next_token
from mmjax.typing import Array, Batch, Bool, Float, Int, Output, Params


@struct.dataclass
class State:
  """What decoding carries: the cache, and the position of the next token."""

  lm: DecoderCache
  next_position: Int[Array, "B"]

  @property
  def overflowed(self) -> Bool[Array, ""]:
    """Whether more was written than there is room for; all logits are NaN."""
    return self.lm.overflowed

  def rows(self, indices: Int[Array, "R"]) -> "State":
    """The state of other rows of the batch, for beams."""
    return State(self.lm.rows(indices), self.next_position[indices])

  def freed(self, places: Int[Array, ""]) -> "State":
    """The state with the places of padding that was read last free again."""
    return self.replace(lm=self.lm.freed(places))


class TextModel(nn.Module):
  """A decoder that takes the batches of any system and ignores their media.

  Attributes:
    lm: the language model.
  """

  lm: Decoder

  # Stacks that are scanned as they are: see training/step.py.
  in_place: ClassVar[tuple[str, ...]] = ("lm/layers/",)

  def __call__(self, batch: Batch) -> Output:
    """Logits of `tokens`; see typing.Batch."""
    positions, segments = batch["positions"], batch["segments"]
    x, _ = self.lm.hidden(
      self.inputs(batch), positions, segments, dropout=batch.get("key")
    )
    return Output(self.lm.logits(x))

  def inputs(self, batch: Batch) -> Float[Array, "B L D"]:
    """What the first layer reads."""
    return self.lm.positioned(self.sequence(batch), batch["positions"])

  def sequence(self, batch: Batch) -> Float[Array, "B L D"]:
    """Embeddings, without the positions that some families learn."""
    return self.lm.words(batch["tokens"])

  def start(self, batch: int, size: int, media: int = 0) -> State:
    """An empty state with room for `size` tokens a row."""
    del media
    none = jnp.zeros((batch,), jnp.int32)
    return State(self.lm.empty_cache(batch, size), none)

  def prefill(
    self, batch: Batch, state: State
  ) -> tuple[Float[Array, "B V"], State]:
    """Reads prompts that are padded on either side.

    Returns:
      logits of the token after each row's last one, and the new state.
    """
    segments = batch["segments"]
    real = segments > 0
    positions = positions_after(state.next_position, real)
    x, state = self._step(dict(batch, positions=positions), state)
    return self.lm.logits(last_real(x, real))[:, 0], state

  def decode(
    self,
    tokens: Int[Array, "B L"],
    state: State,
    real: Bool[Array, "B L"] | None = None,
  ) -> tuple[Float[Array, "B L V"], State]:
    """Logits of further tokens; those not `real` are padding behind a row."""
    segments = jnp.ones_like(tokens)
    if real is not None:
      segments = real.astype(jnp.int32)
    positions = state.next_position[:, None] + jnp.arange(tokens.shape[1])
    batch = dict(tokens=tokens, positions=positions, segments=segments)
    x, state = self._step(batch, state)
    return self.lm.logits(x), state

  def _step(self, batch, state):
    positions, segments = batch["positions"], batch["segments"]
    x = self.inputs(batch)
    x, cache = self.lm.hidden(x, positions, segments, cache=state.lm)
    count = (segments > 0).sum(axis=1)
    return x, State(cache, state.next_position + count)


def build(config: Mapping[str, Any]) -> TextModel:
  """The module that `config.model` describes: `lm` with a `name`, `dtype`."""
  config = dict(config)
  require(config, ("lm",), "config.model")
  dtype = jnp.dtype(config.pop("dtype", "float32"))
  lm = config.pop("lm")
  if config:
    raise ValueError(f"A language model alone takes no {sorted(config)}.")
  return TextModel(build_entry(LMS, lm, dtype=dtype))


def loss(
  module: TextModel, params: Params, batch: Batch
) -> dict[str, tuple[Array, Array]]:
  """Next-token loss and accuracy as (sum, count)."""
  rngs = dropout_key(batch)
  return next_token(
    module.apply({"params": params}, batch, rngs=rngs).logits, batch
  )


def dropout_key(batch: Batch) -> dict[str, Array]:
  """What modules draw from that leave something out by chance in training.

  Layers that are scanned are given keys of their own instead.
  """
  return {"dropout": batch["key"]} if "key" in batch else {}


def monitor(trainable: Params) -> dict[str, Array]:
  """Nothing worth a curve."""
  del trainable
  return {}
