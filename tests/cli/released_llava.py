"""A tiny LLaVA of Hugging Face with a tokenizer, and its folder converted."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmjax.cli.convert import convert
from tests.data.pictures import photo
from tests.generation import talking
from tests.llava import hugging_face as hf

SETTINGS = dict(
  tokenizer_class="PreTrainedTokenizerFast",
  bos_token="<s>",
  eos_token=dict(
    __type="AddedToken",
    content="</s>",
    lstrip=False,
    normalized=False,
    rstrip=False,
    single_word=False,
    special=True,
  ),
  unk_token="<unk>",
)


def make(folder: Path):
  """Writes `hf` and, converted, `jax`; returns Hugging Face's model."""
  model = hf.make("plain")
  model.save_pretrained(folder / "hf")
  talking.backend().save(str(folder / "hf" / "tokenizer.json"))
  settings = json.dumps(SETTINGS)
  (folder / "hf" / "tokenizer_config.json").write_text(settings)
  convert(folder / "hf", folder / "jax", to="jax")
  return model


def picture(folder: Path, seed: int = 0) -> str:
  path = folder / f"{seed}.png"
  Image.fromarray(photo(40, 20, seed)).save(path)
  return str(path)


def square(path: str, transforms) -> np.ndarray:
  """A file's pixels as the model sees them."""
  pixels = np.asarray(Image.open(path))
  for transform in transforms:
    pixels = transform(pixels, None)
  return pixels
