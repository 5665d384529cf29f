"""A BLIP-2 or InstructBLIP of Hugging Face, converted, as the config of a run.

Pictures, the text before them and what the Q-Former reads are those of Hugging
Face's processors; where a text is longer than LAVIS lets the Q-Former read, it
is cut as there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from mmjax.cli.released_parts import default_dtype, tokenizer_files
from mmjax.text import folders

# Of a sequence. LAVIS asks with 128 tokens at most, and answers with 256.
LENGTH = 512
# Tokens that LAVIS' Q-Formers read.
READ = 128
# Of a video, as InstructBLIP's processor counts its places.
FRAMES = 4
# What LLaMA and OPT end with where their config.json does not say.
_END = 2


def blip(
  folder: Path,
  config: Mapping[str, Any],
  *,
  template: str = "instructblip",
  dtype: str | None = None,
  length: int = LENGTH,
) -> dict[str, Any]:
  """The config of a BLIP-2, an InstructBLIP or an InstructBlipVideo.

  Args:
    folder: with weights, a tokenizer, and `qformer_tokenizer` where the
      Q-Former reads the prompt.
    config: its config.json.
    template: of text.prompts.cued.FORMATS: what stands around media and
      question. X-InstructBLIP's have cues.
    dtype: of weights and computation; None is float32 on a CPU, else bfloat16.
    length: tokens of a prompt at most.

  Raises:
    ValueError: for a folder that lacks a part.
  """
  fields = config["model"]
  if not fields["lm"]:
    raise ValueError(
      f"{folder} has no language model: LAVIS' files hold what was trained. "
      "Name it, and the language model's folder, in config.init of a run."
    )
  ((kind, entry),) = fields["media"].items()
  qformer, dtype = entry["connector"]["qformer"], dtype or default_dtype()
  tokenizer, start = _tokenizer(folder, config)
  reads = 0
  if qformer["vocab_size"]:
    reads = min(READ, qformer["max_positions"])
    tokenizer["reader"] = _reader(folder)
  prompt = dict(
    name="cued",
    format=template,
    length=length,
    media={kind: 1},
    media_tokens=qformer["num_queries"],
    start=start,
    reader_length=reads,
    question_length=length,
  )
  data = dict(prompt=prompt, media={kind: _pictures(kind, fields)})
  parts = {part: fields[part] for part in ("lm", "encoders", "media")}
  return dict(
    system="x_instructblip",
    model=dict(parts, dtype=dtype),
    tokenizer=tokenizer,
    data=dict(datasets=dict(questions=data)),
    init=dict(all=dict(name="converted", path=str(folder), dtype=dtype)),
    train=dict(trainable=[(".*", True)]),
  )


def _pictures(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
  """Their reader: all of a picture is brought to a square."""
  encoder = fields["encoders"][fields["media"][kind]["encoder"]]
  square = dict(name="square", size=encoder["image_size"], resample="bicubic")
  frames = dict(frames=FRAMES, fps=None) if kind == "video" else {}
  return dict(name="pictures", transforms=[square], **frames)


def _tokenizer(
  folder: Path, config: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
  """The language model's, and the token that a text begins with, or \"\"."""
  _, path = tokenizer_files(folder)
  backend = folders.read(path)
  text = config.get("hugging_face", {}).get("text_config", {})
  end = text.get("eos_token_id", _END)
  name = backend.id_to_token(end) if type(end) is int else None
  if name is None:
    raise ValueError(
      f"config.json says that answers of {folder} end with the token {end!r}, "
      "which its tokenizer does not have. Is it the model's own?"
    )
  first, _ = _around(backend)
  return dict(name="file", path=str(path), eos=name), first


def _reader(folder: Path) -> dict[str, Any]:
  """The Q-Former's, with the tokens around a text."""
  inner = folder / "qformer_tokenizer"
  if not inner.is_dir():
    raise ValueError(
      f"The Q-Former in {folder} reads the prompt, but there is no {inner}. "
      "Copy that folder of the model there."
    )
  _, path = tokenizer_files(inner)
  first, last = _around(folders.read(path))
  ends = {"bos": first or None, "eos": last or None}
  return dict(name="file", path=str(path), **ends)


def _around(backend: tokenizers.Tokenizer) -> tuple[str, str]:
  """The tokens that a tokenizer puts before and behind a text; "" for none."""
  plain = backend.encode("a", add_special_tokens=False).tokens
  whole = backend.encode("a").tokens
  before = next(
    i for i in range(len(whole)) if whole[i : i + len(plain)] == plain
  )
  behind = whole[before + len(plain) :]
  if before > 1 or len(behind) > 1:
    raise ValueError(
      f"The tokenizer puts {whole[:before]} and {behind} around a text; "
      "expected one token or none."
    )
  return "".join(whole[:before]), "".join(behind)
