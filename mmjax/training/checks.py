"""What of a config has to fit together, before anything is computed."""

import flax.linen as nn
import jax

from mmjax.data.batching import stack
from mmjax.data.encoder import Encoder
from mmjax.text.tokenizer import Tokenizer


def check_tokens(tokenizer: Tokenizer, module: nn.Module) -> None:
  """Whether every id has its row; new tokens' are those that train.

  Raises:
    ValueError: when a language model has too few rows, or the tokenizer's new
      tokens would read rows of its vocabulary and not those made for them.
  """
  lm = getattr(module, "lm", None)
  if lm is None:
    return
  rows = lm.vocab_size + lm.extra_tokens
  if tokenizer.vocab_size > rows:
    raise ValueError(
      f"The tokenizer has {tokenizer.vocab_size} tokens, the language model "
      f"{lm.vocab_size} rows and {lm.extra_tokens} for new tokens. Raise "
      "config.model.lm.vocab_size or extra_tokens."
    )
  first = tokenizer.base_size
  if lm.extra_tokens and tokenizer.added and first != lm.vocab_size:
    raise ValueError(
      f"The tokenizer's new tokens begin at {first}, the language model's rows "
      f"for them at {lm.vocab_size}. Set config.model.lm.vocab_size={first}; "
      "where a published table is padded, cut_vocabulary=True in "
      "config.init.lm cuts it."
    )


def check_media(encoder: Encoder, module: nn.Module, name: str) -> None:
  """Whether a system reads the media, and a prompt has places for them.

  Args:
    encoder: with the prompt, and the room for media.
    module: a system that puts media into the sequence; others are not asked.
    name: of the prompt in the config.

  Raises:
    ValueError: for a kind of media that it does not read, or when the places
      are not as many as the tokens.
  """
  known = getattr(module, "kinds", ("image",))
  if unread := sorted(encoder.slots.keys() - set(known)):
    raise ValueError(
      f"The data have media of the kinds {unread}, the model reads "
      f"{sorted(known)}. Name them so in the dataset's `media`, or give "
      "config.model.media the kinds."
    )
  _check_readings(encoder, module, name)
  places = getattr(encoder.prompt, "media_tokens", None)
  if places is None or not hasattr(module, "media_tokens"):
    return
  for kind, slots in encoder.slots.items():
    if not slots.count:
      continue
    media = stack([slots.empty(1)])

    def made(key):
      asked = dict(kind=kind, method="media_tokens")
      return module.init_with_output(key, media, **asked)[0]

    tokens = jax.eval_shape(made, jax.random.key(0)).shape[2]
    if tokens != places:
      raise ValueError(
        f"The prompt leaves {places} places for a medium ({kind}), of which "
        f"encoder and connector make {tokens} tokens. Set {name}.media_tokens="
        f"{tokens}."
      )


def _check_readings(encoder: Encoder, module: nn.Module, name: str) -> None:
  """Whether connectors that read text are given some, in their vocabulary."""
  length = getattr(encoder.prompt, "reader_length", 0)
  tokenizer = getattr(encoder.prompt, "tokenizer", None)
  reader = getattr(tokenizer, "reader", None)
  for kind, slots in encoder.slots.items():
    connector = getattr(module, "connectors", {}).get(kind)
    rows = getattr(connector, "vocabulary", 0)
    if not (slots.count and rows):
      continue
    if not length:
      raise ValueError(
        f"The Q-Former of {kind!r} can read a text (a vocabulary of {rows} "
        f"tokens), but the prompt gives it none. Set {name}.reader_length to "
        "the tokens that it is to read, or the Q-Former's vocab_size=0."
      )
    if reader is not None and reader.vocab_size > rows:
      raise ValueError(
        f"config.tokenizer.reader has {reader.vocab_size} tokens, the Q-Former "
        f"of {kind!r} {rows} rows. Raise its vocab_size, or give the reader "
        "the tokenizer that it was trained with."
      )
