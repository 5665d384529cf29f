"""A sentence encoder: all-MiniLM-L6-v2 and others of its build.

BERT's last hidden states, averaged over all tokens of a text, at length 1
(Reimers and Gurevych, arXiv 1908.10084). Read from the folder as Hugging Face
has it: config.json, model.safetensors, and tokenizer.json or vocab.txt.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.convert.families import bert as family
from mmjax.convert.read import Safetensors, read_json
from mmjax.convert.rules import load
from mmjax.lms.bert import Bert
from mmjax.text.tokenizer import Tokenizer
from mmjax.typing import Float

# Tokens of a text; what all-MiniLM-L6-v2 was made for.
LENGTH = 256
_LEFT_OUT = re.compile(rf"{family.BUFFERS.pattern}|pooler\..*")


class Sentences:
  """Texts to rows whose products are cosines."""

  def __init__(self, folder: str | Path, batch_size: int = 64):
    """Reads a folder.

    Raises:
      ValueError: for one that holds no BERT, or lacks a part.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    sizes = {
      "width": "hidden_size",
      "num_layers": "num_hidden_layers",
      "num_heads": "num_attention_heads",
      "vocab_size": "vocab_size",
      "hidden": "intermediate_size",
      "max_positions": "max_position_embeddings",
    }
    wrong = [k for k in sizes.values() if type(config.get(k)) is not int]
    if config.get("model_type") != "bert" or wrong:
      raise ValueError(
        f"{folder}/config.json is of a {config.get('model_type')!r} without "
        f"{wrong}; expected a BERT, such as all-MiniLM-L6-v2."
      )
    fields = {ours: config[theirs] for ours, theirs in sizes.items()}
    self._module = Bert(**fields, norm_eps=config.get("layer_norm_eps", 1e-12))
    self._length = min(LENGTH, fields["max_positions"])
    names = {"bos": "[CLS]", "eos": "[SEP]", "pad": "[PAD]"}
    self._tokenizer = Tokenizer.from_file(folder, **names)
    self._params = _load(self._module, folder)
    self._rows = batch_size
    self._run = jax.jit(self._pooled)

  def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "texts D"]:
    """A row for each text; one that is too long is cut."""
    every = [self._ids(text) for text in texts]
    # Those of alike lengths together, so that little is padding.
    order = sorted(range(len(every)), key=lambda i: len(every[i]))
    found = np.zeros((len(every), self._module.width), np.float32)
    for start in range(0, len(order), self._rows):
      part = order[start : start + self._rows]
      found[part] = self._encode([every[i] for i in part])
    return found

  def _ids(self, text: str) -> list[int]:
    tokenizer = self._tokenizer
    ids = tokenizer.encode(text)[: self._length - 2]
    return [tokenizer.bos, *ids, tokenizer.eos]

  def _encode(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
    # Few lengths, so that few functions are compiled.
    length = min(-(-max(map(len, ids)) // 16) * 16, self._length)
    shape = (self._rows, length)
    tokens = np.full(shape, self._tokenizer.pad, np.int32)
    segments = np.zeros(shape, np.int32)
    for i, row in enumerate(ids):
      tokens[i, : len(row)] = row
      segments[i, : len(row)] = 1
    return np.asarray(self._run(self._params, tokens, segments))[: len(ids)]

  def _pooled(self, params, tokens, segments):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    x = self._module.apply({"params": params}, tokens, positions, segments)
    real = (segments > 0)[..., None].astype(x.dtype)
    mean = (x * real).sum(1) / jnp.maximum(real.sum(1), 1)
    norm = jnp.linalg.norm(mean, axis=-1, keepdims=True)
    return mean / jnp.maximum(norm, 1e-12)


def _load(module: Bert, folder: Path):
  one = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  made = jax.eval_shape(module.init, jax.random.key(0), one, one, one)
  like = nn.unbox(made)["params"]
  ignore = _LEFT_OUT.fullmatch
  return load(
    Safetensors(folder), family.bert(), like, ignore=lambda x: bool(ignore(x))
  )
