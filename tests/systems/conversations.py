"""Conversations as rows of ids, and a LLaVA small enough to compare on.

In a conversation -n is picture n, which is the same wherever it stands; any
other number is the id of a token:

  (3, -1, 7)   ->   tokens  3 0 0 0 0 7      index  0 1 1 1 1 0
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from flax import linen as nn

from mmjax.systems import llava

VOCAB, SIDE, Q = 40, 16, 4
LENGTH, MEDIA = 24, 3
ENCODER = dict(
  name="vit",
  width=8,
  num_layers=3,
  num_heads=2,
  patch=8,
  image_size=SIDE,
  output_layer=-2,
)
MODEL = dict(
  encoder=ENCODER,
  connector=dict(name="projection", width=16, depth=2),
  lm=dict(
    name="llama",
    vocab_size=VOCAB,
    width=16,
    num_layers=2,
    num_heads=2,
    hidden=24,
  ),
)
Conversation = Sequence[int]


@functools.cache
def picture(number: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
  rng = np.random.default_rng(number)
  return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def batch(
  rows: Sequence[Sequence[Conversation]],
  *,
  length: int = LENGTH,
  media: int = MEDIA,
  tokens: int = Q,
  left: bool = False,
  sides: tuple[int, int] = (SIDE, SIDE),
) -> dict:
  """Rows of one conversation or more, padded on one side.

  Args:
    rows: conversations of each row.
    length: of a row.
    media: slots of a row.
    tokens: places of a picture.
    left: pads before a row instead of behind it.
    sides: of a picture, height and width.
  """
  shape = (len(rows), length)
  found = {k: np.zeros(shape, int) for k in ("tokens", "targets")}
  found |= {k: np.zeros(shape, int) for k in ("positions", "segments")}
  found["weights"] = np.zeros(shape, np.float32)
  image = dict(
    values=np.zeros((len(rows), media, 1, *sides, 3), np.uint8),
    mask=np.zeros((len(rows), media, 1), bool),
    index=np.zeros(shape, int),
  )
  for r, row in enumerate(rows):
    at = length - sum(size(c, tokens) for c in row) if left else 0
    seen = 0
    for number, conversation in enumerate(row, 1):
      ids, index = [], []
      for token in conversation:
        if token < 0:
          image["values"][r, seen, 0] = picture(-token, *sides)
          image["mask"][r, seen] = True
          seen += 1
        ids += [token] if token >= 0 else [0] * tokens
        index += [0] if token >= 0 else [seen] * tokens
      to = slice(at, at + len(ids))
      found["tokens"][r, to], image["index"][r, to] = ids, index
      found["segments"][r, to] = number
      found["positions"][r, to] = np.arange(len(ids))
      found["targets"][r, to] = [*ids[1:], 0]
      found["weights"][r, to] = [*(i == 0 for i in index[1:]), False]
      at += len(ids)
  return found | dict(media=dict(image=image))


def size(conversation: Conversation, tokens: int = Q) -> int:
  """Places that it takes."""
  return sum(tokens if token < 0 else 1 for token in conversation)


def drawn(module: nn.Module, example: dict, seed: int = 0) -> dict:
  """Parameters that are large enough for everything to matter."""
  like = jax.eval_shape(module.init, jax.random.key(0), example)["params"]
  random = np.random.RandomState(seed)

  def draw(path, x):
    value = 0.3 * random.standard_normal(x.shape)
    return (value + (path[-1].key == "scale")).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, nn.unbox(like))


@functools.cache
def model():
  """The module, its parameters, and its compiled logits."""
  module = llava.build(MODEL)
  params = drawn(module, batch([[(1,)]]))
  logits = jax.jit(lambda p, b: module.apply({"params": p}, b).logits)
  return module, params, logits
