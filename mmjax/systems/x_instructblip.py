"""X-InstructBLIP (arXiv 2311.18799), and BLIP-2 and InstructBLIP within it.

  encode each medium, let its kind's connector make 32 tokens of every frame
  with the instruction in mind, put them where the text left room, decode

Kinds of media are entries: an encoder, which several kinds may share, and a
connector. Cues, their order and the text around them are the prompt's. BLIP-2
(arXiv 2301.12597) is one kind, images, and a Q-Former without text;
InstructBLIP (arXiv 2305.06500) one that reads the instruction.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict

from mmjax.config import build as build_entry
from mmjax.config import lookup, nearest, require
from mmjax.connectors import CONNECTORS
from mmjax.encoders import ENCODERS
from mmjax.lms import LMS
from mmjax.systems.media import Media, place, tokens
from mmjax.systems.text import TextModel, loss, monitor
from mmjax.typing import Array, Batch, Float

__all__ = ["XInstructBlip", "build", "loss", "monitor"]


class XInstructBlip(TextModel):
  """A language model whose sequence has media of several kinds in it.

  Attributes, beyond the language model:
    connectors: kind of medium to what makes its tokens.
    encoders: by name; the media of a kind without one come as features.
    reads: kind to the name of its encoder.
  """

  connectors: Mapping[str, nn.Module] = FrozenDict()
  encoders: Mapping[str, nn.Module] = FrozenDict()
  reads: Mapping[str, str] = FrozenDict()

  def sequence(self, batch: Batch) -> Float[Array, "B L D"]:
    """Embeddings of the text, with the tokens of all media in their places.

    A batch may lack kinds, but not the one that parameters are made from.
    """
    x, given = super().sequence(batch), batch.get("media", {})
    for kind in self.connectors:
      if kind in given:
        make = functools.partial(self.media_tokens, kind=kind)
        x = place(x, given[kind], make, self.is_initializing())
      elif self.is_initializing():
        raise ValueError(
          f"The model has a connector for {kind!r}, but the first batch has "
          f"media of {sorted(given)} only. Give it room for none of them."
        )
    return x

  @property
  def kinds(self) -> tuple[str, ...]:
    """Of the media that the model reads."""
    return tuple(self.connectors)

  def media_tokens(self, media: Media, kind: str) -> Float[Array, "B M Q D"]:
    """Tokens of all media of one kind."""
    name = self.reads.get(kind)
    encoder = None if name is None else self.encoders[name]
    return tokens(self.connectors[kind], encoder, media)


def build(config: Mapping[str, Any]) -> XInstructBlip:
  """The module that `config.model` describes.

  Args:
    config: `lm` with a `name`; `encoders` by name; `media`, kind to a
      `connector` and the name of its `encoder` (None: batches bring features);
      and `dtype`.
  """
  config = dict(config)
  require(config, ("lm", "media"), "config.model")
  dtype = jnp.dtype(config.pop("dtype", "float32"))
  lm = build_entry(LMS, config.pop("lm"), dtype=dtype)
  encoders = {
    name: build_entry(ENCODERS, entry, dtype=dtype)
    for name, entry in dict(config.pop("encoders", None) or {}).items()
  }
  connectors, reads = {}, {}
  for kind, entry in dict(config.pop("media")).items():
    entry = dict(entry)
    require(entry, ("connector",), f"config.model.media.{kind}")
    connectors[kind] = _connector(kind, entry.pop("connector"), lm.width, dtype)
    encoder = entry.pop("encoder", None)
    if encoder is not None:
      lookup(encoders, encoder, "encoder")
      reads[kind] = encoder
    for key in entry:
      raise ValueError(
        f"A kind of media takes no {key!r}. "
        f"{nearest(key, ('connector', 'encoder'))}"
      )
  for key in config:
    known = ("dtype", "encoders", "lm", "media")
    raise ValueError(f"X-InstructBLIP takes no {key!r}. {nearest(key, known)}")
  if unread := sorted(encoders.keys() - set(reads.values())):
    raise ValueError(f"No kind of media has the encoder(s) {unread}.")
  # Frozen, as what is compiled for a module asks for its hash.
  tables = (FrozenDict(x) for x in (connectors, encoders, reads))
  return XInstructBlip(lm, *tables)


def _connector(kind: str, entry: Any, width: int, dtype: Any) -> nn.Module:
  connector = build_entry(CONNECTORS, entry, dtype=dtype)
  if connector.width != width:
    raise ValueError(
      f"The connector of {kind!r} is {connector.width} wide, the language "
      f"model {width}. Set config.model.media.{kind}.connector.width={width}."
    )
  return connector
