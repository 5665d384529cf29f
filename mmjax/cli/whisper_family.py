"""Whisper's encoder for `mmjax convert`, out of Hugging Face's files.

Files of the whole model name it `model.encoder.`, those of WhisperModel
`encoder.`; the decoder stays behind. Of an export transformers loads the
encoder, in either class, and draws a decoder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.cli.shapes import depth, heads, like, require
from mmjax.convert.configs import activation, their_activation
from mmjax.convert.families import whisper
from mmjax.convert.rules import Rule
from mmjax.encoders.whisper import Whisper

Fields = dict[str, Any]
# What names begin with: a whole model's, WhisperModel's and the encoder's own.
_ROOTS = ("model.encoder.", "encoder.", "")


def fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings of a `Whisper`.

  Args:
    config: its `encoder_attention_heads` (else heads have 64 features, as the
      published ones) and `activation_function` (else gelu).
    weights: tensors by name.
  """
  root = next(r for r in _ROOTS if f"{r}conv1.weight" in weights or not r)
  conv, table, mlp = require(
    weights,
    {
      f"{root}conv1.weight": 3,
      f"{root}embed_positions.weight": 2,
      f"{root}layers.0.fc1.weight": 2,
    },
  )
  given = {}
  if "encoder_attention_heads" in config:
    given["num_attention_heads"] = config["encoder_attention_heads"]
  return dict(
    root=root,
    width=conv[0],
    num_layers=depth(weights, f"{root}layers."),
    num_heads=heads(given, conv[0], 64, '{"encoder_attention_heads": N}'),
    hidden=mlp[0],
    bands=conv[1],
    positions=table[0],
    activation=activation(config.get("activation_function", "gelu")),
  )


def module(fields: Fields) -> Whisper:
  return Whisper(**{k: v for k, v in fields.items() if k != "root"})


def inputs(fields: Fields) -> tuple:
  return (like((1, 2, fields["bands"])),)


def rules(fields: Fields) -> Sequence[Rule]:
  return whisper.hugging_face(fields["root"])


def ignore(key: str, fields: Fields) -> bool:
  """The decoder, and what only it has."""
  root = fields["root"] or ("conv", "embed_positions", "layer")
  return not key.startswith(root)


def config(fields: Fields) -> dict[str, Any]:
  """A config.json for Hugging Face."""
  whole = fields["root"].startswith("model.")
  name = "WhisperForConditionalGeneration" if whole else "WhisperModel"
  return dict(
    model_type="whisper",
    architectures=[name],
    d_model=fields["width"],
    encoder_layers=fields["num_layers"],
    encoder_attention_heads=fields["num_heads"],
    encoder_ffn_dim=fields["hidden"],
    num_mel_bins=fields["bands"],
    max_source_positions=fields["positions"],
    activation_function=their_activation(fields["activation"]),
  )
