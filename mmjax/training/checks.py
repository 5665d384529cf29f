"""What of a config has to fit together, before anything is computed."""

import flax.linen as nn
import jax

from mmjax.data.batching import stack
from mmjax.data.stream import Encoder
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


def check_media_tokens(encoder: Encoder, module: nn.Module, name: str) -> None:
  """Whether a prompt leaves as many places for an image as it has tokens.

  Args:
    encoder: with the prompt, and the size of the images.
    module: a system that puts media into the sequence; others are not asked.
    name: of the prompt in the config.

  Raises:
    ValueError: when the numbers differ.
  """
  places = getattr(encoder.prompt, "image_tokens", None)
  asked = places is not None and hasattr(module, "media_tokens")
  if not asked or not encoder.slots.count:
    return
  media = stack([encoder.slots.empty(1)])

  def made(key):
    return module.init_with_output(key, media, method="media_tokens")[0]

  tokens = jax.eval_shape(made, jax.random.key(0)).shape[2]
  if tokens != places:
    raise ValueError(
      f"The prompt leaves {places} places for an image, of which encoder and "
      f"connector make {tokens} tokens. Set {name}.image_tokens={tokens}."
    )
