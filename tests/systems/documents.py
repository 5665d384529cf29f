"""Interleaved documents on disk and a Flamingo small enough to train on them.

Document i has i % 3 + 1 pictures; one sentence goes before the first.
"""

import base64
import json
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn

from mmjax.data.build import batches
from mmjax.systems import flamingo
from mmjax.text.tokenizer import drawn
from tests.data.pictures import encode, photo

SIDE = 16
WORDS = ("one", "two", "three", "four", "red", "dog", "cat", "house")
LM = dict(
  name="llama",
  vocab_size=1866,
  width=16,
  num_layers=2,
  num_heads=2,
  hidden=16,
  tie_embeddings=True,
)
MODEL = dict(
  encoder=dict(
    name="vit", width=8, num_layers=1, num_heads=2, patch=8, image_size=SIDE
  ),
  resampler=dict(
    name="perceiver", width=8, depth=1, num_heads=2, head_dim=4, num_latents=2
  ),
  lm=LM,
  xattn=dict(every=1, hidden=16),
)


def write(path: Path, count: int = 4) -> str:
  """A jsonl in MMC4's form."""
  lines = []
  for i in range(count):
    images = i % 3 + 1
    pictures = [encode(photo(SIDE, SIDE, 10 * i + j)) for j in range(images)]
    lines.append(
      dict(
        text_list=[WORDS[(i + j) % len(WORDS)] for j in range(images + 1)],
        similarity_matrix=np.ones((images, images + 1)).tolist(),
        image_info=[
          dict(
            image_name=f"{j}.png",
            image_base64=base64.b64encode(picture).decode(),
            matched_text_index=j + 1,
          )
          for j, picture in enumerate(pictures)
        ],
      )
    )
  path.write_text("\n".join(map(json.dumps, lines)))
  return str(path)


def data(path: str, *, batch: int = 4, p_next: float = 0.0, **fields) -> dict:
  """`config.data` for them."""
  documents = dict(
    source=dict(name="jsonl", paths=path),
    format=dict(name="mmc4", assignment="matched", min_kilobytes=-1),
    prompt=dict(
      name="flamingo",
      length=16,
      media=3,
      image_as_text=False,
      p_next=p_next,
    ),
    transforms=[dict(name="square", size=SIDE)],
    shuffle=False,
    batch=batch,
    **fields,
  )
  return dict(max_bad_fraction=0.0, datasets=dict(documents=documents))


def first_batch(config: dict) -> dict:
  with batches(config, drawn()) as found:
    return next(found)["documents"]


def drawn_model(batch: dict, **changes) -> tuple[flamingo.Flamingo, dict]:
  """A module, and parameters with open gates and large values."""
  module = flamingo.build(MODEL | changes)
  like = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), batch))
  random = np.random.RandomState(0)

  def draw(path, x):
    value = 0.3 * random.standard_normal(x.shape)
    gate = path[-1].key in ("scale", "attention_gate", "mlp_gate")
    return (value + gate).astype(np.float32)

  return module, jax.tree_util.tree_map_with_path(draw, like["params"])
