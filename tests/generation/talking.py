"""A LLaVA of a few words, and what it is asked."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from mmjax.data import build as data
from mmjax.data.batching import empty, stack
from mmjax.data.document import Document, Media, Text
from mmjax.evaluation.model import Model
from mmjax.systems import llava
from mmjax.text.tokenizer import Tokenizer
from tests.data.pictures import photo

WORDS, SIDE, PATCH = 92, 16, 8
SPECIAL = ("<unk>", "<s>", "</s>", "<image>")


def backend() -> tokenizers.Tokenizer:
  """w0 ... w91, each a token, and four special ones."""
  names = [*(f"w{i}" for i in range(WORDS)), *SPECIAL]
  made = tokenizers.Tokenizer(
    models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>")
  )
  made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  made.add_special_tokens(list(SPECIAL))
  return made


def words() -> Tokenizer:
  return Tokenizer(backend(), bos="<s>", eos="</s>", pad="<unk>")


def model(*, length=128, media=4, seed=0, **fields) -> Model:
  """A model drawn at random that says words and, at times, that it is done.

  Args:
    length, media: of its prompt.
    seed: of its weights.
    **fields: of evaluation.model.Model.
  """
  tokenizer, module = words(), _module()
  prompt = dict(
    name="chat", length=length, media=media, media_tokens=4, image="<image>"
  )
  size = (dict(name="clip_val", size=SIDE),)
  encoder = data.encoder(tokenizer, prompt, transforms=size)
  example = stack([empty(length, encoder.slots)])
  params = _drawn(module, example, tokenizer, seed)
  fields = dict(max_new_tokens=10, batch_size=1) | fields
  return Model(module, params, encoder, tokenizer, **fields)


@functools.cache
def _module() -> llava.Llava:
  """One for all, so that what was compiled for it is used again."""
  return llava.build(
    dict(
      encoder=dict(
        name="vit",
        width=8,
        num_layers=1,
        num_heads=2,
        patch=PATCH,
        image_size=SIDE,
      ),
      connector=dict(name="projection", width=32),
      lm=dict(
        name="llama",
        vocab_size=WORDS + len(SPECIAL),
        width=32,
        num_layers=2,
        num_heads=2,
        hidden=32,
      ),
    )
  )


def _drawn(module, example, tokenizer, seed):
  shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), example))
  random = np.random.RandomState(seed)
  params = jax.tree.map(
    lambda x: (0.5 * random.standard_normal(x.shape)).astype(np.float32),
    shapes["params"],
  )
  # What is no text would be lost where an answer is read again.
  head = params["lm"]["head"]["table"]
  for name in ("<unk>", "<s>", "<image>"):
    head[tokenizer.id(name)] = 0.0
  head[tokenizer.eos] *= 1.6
  return params


def ask(text: str, *pictures: int) -> Document:
  """A question about pictures of these numbers."""
  media = tuple(
    Media("image", photo(20, 30, seed=i), f"{i}.png") for i in pictures
  )
  return Document((*media, Text(text)), id=text)


def joined(documents) -> Document:
  segments = tuple(s for document in documents for s in document.segments)
  return dataclasses.replace(documents[-1], segments=segments)
