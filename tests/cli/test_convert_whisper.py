"""Whisper's encoder from Hugging Face's files to ours and back, bit by bit."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from mmjax.cli.convert import convert


def model(whole, width=64):
  config = transformers.WhisperConfig(
    d_model=width,
    encoder_layers=2,
    encoder_attention_heads=4,
    encoder_ffn_dim=24,
    num_mel_bins=8,
    max_source_positions=10,
    activation_function="relu",
    decoder_layers=1,
    decoder_attention_heads=2,
    decoder_ffn_dim=8,
    vocab_size=20,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=1,
    decoder_start_token_id=1,
  )
  name = "WhisperForConditionalGeneration" if whole else "WhisperModel"
  return getattr(transformers, name)(config).eval()


@pytest.mark.parametrize("what", ["whole", "bare", "encoder"])
def test_there_and_back(what, tmp_path):
  made = model(what == "whole")
  if what == "encoder":
    made = made.encoder
  made.save_pretrained(tmp_path / "hf")
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  shown = json.loads((tmp_path / "jax" / "config.json").read_text())
  assert shown["family"] == "whisper" and shown["model"]["num_heads"] == 4
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  back = load_file(tmp_path / "back" / "model.safetensors")
  source = load_file(tmp_path / "hf" / "model.safetensors")
  expected = {k: v for k, v in source.items() if "decoder." not in k}
  assert back.keys() == expected.keys()
  for name, value in expected.items():
    assert back[name].tobytes() == value.tobytes(), name
  again = type(made).from_pretrained(tmp_path / "back").eval()
  encoder, again = (
    m if what == "encoder" else m.get_encoder() for m in (made, again)
  )
  frames = torch.from_numpy(
    np.random.RandomState(0).standard_normal((1, 8, 20)).astype(np.float32)
  )
  with torch.no_grad():
    assert torch.equal(
      encoder(frames).last_hidden_state, again(frames).last_hidden_state
    )


def test_heads_that_nothing_tells(tmp_path):
  model(True, width=80).save_pretrained(tmp_path / "hf")
  path = tmp_path / "hf" / "config.json"
  shown = json.loads(path.read_text())
  del shown["encoder_attention_heads"]
  path.write_text(json.dumps(shown))
  with pytest.raises(ValueError, match="encoder_attention_heads"):
    convert(tmp_path / "hf", tmp_path / "jax", to="jax")
