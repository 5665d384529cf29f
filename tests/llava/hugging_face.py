"""Tiny random LLaVAs of Hugging Face, and their batches beside ours."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import torch
import transformers

from mmjax import tree
from mmjax.cli.convert import convert
from mmjax.convert.read import Safetensors, read_json
from mmjax.systems import llava

IMAGE = 95  # The id of an image's places.
LM = dict(
  vocab_size=96,
  hidden_size=32,
  intermediate_size=48,
  num_hidden_layers=2,
  num_attention_heads=4,
  rms_norm_eps=1e-5,
  max_position_embeddings=256,
)
VISION = dict(
  hidden_size=24,
  intermediate_size=40,
  num_hidden_layers=3,
  num_attention_heads=2,
  image_size=16,
  patch_size=8,
)
# What changes for each: the language model, the vision tower, the whole.
VARIANTS = {
  "plain": (dict(), dict(), dict()),
  "grouped queries": (dict(num_key_value_heads=2), dict(patch_size=4), dict()),
  "one key head, tied": (
    dict(num_key_value_heads=1, tie_word_embeddings=True),
    dict(image_size=24),
    dict(tie_word_embeddings=True),
  ),
  "class token, last layer": (
    dict(rope_theta=5e5),
    dict(hidden_act="gelu"),
    dict(
      vision_feature_select_strategy="full",
      vision_feature_layer=-1,
      multimodal_projector_bias=False,
    ),
  ),
}


def make(variant: str, seed: int = 0):
  """A model whose weights are large enough to matter."""
  lm, vision, whole = VARIANTS[variant]
  config = transformers.LlavaConfig(
    text_config=transformers.LlamaConfig(**LM | lm),
    vision_config=transformers.CLIPVisionConfig(**VISION | vision),
    image_token_index=IMAGE,
    pad_token_id=0,
    **whole,
  )
  torch.manual_seed(seed)
  model = transformers.LlavaForConditionalGeneration(config).eval()
  with torch.no_grad():
    for name, value in model.named_parameters():
      norm = "norm" in name or "layrnorm" in name
      value.copy_(torch.randn_like(value) * 0.2 + norm)
  return model


def image_tokens(config) -> int:
  vision = config.vision_config
  side = vision.image_size // vision.patch_size
  return side**2 + (config.vision_feature_select_strategy == "full")


def converted(folder: str | Path, target: str | Path):
  """Our module and parameters of a folder of Hugging Face's."""
  convert(folder, target, to="jax")
  fields = read_json(Path(target) / "config.json")["model"]
  module = llava.build(model_config(fields))
  weights = Safetensors(target)
  return module, tree.unflatten({k: weights[k] for k in weights})


def model_config(fields):
  return dict(
    encoder=dict(name="vit") | fields["encoder"],
    connector=dict(name="projection") | fields["connector"],
    lm=fields["lm"],
  )


def prompts(config, rows: Sequence[Sequence[int]], pad_left: bool = False):
  """Rows of text, in which 0 stands for an image, for both.

  Returns:
    arguments of Hugging Face's model, and our batch.
  """
  count = image_tokens(config)
  rng = np.random.default_rng(0)
  side = config.vision_config.image_size
  media = max(sum(t == 0 for t in row) for row in rows)
  pixels = np.zeros((len(rows), media, 1, side, side, 3), np.uint8)
  mask = np.zeros((len(rows), media, 1), bool)
  written, index = [], []
  for r, row in enumerate(rows):
    ids, places, m = [], [], 0
    for token in row:
      if token:
        ids.append(token)
        places.append(0)
        continue
      pixels[r, m] = rng.integers(0, 256, pixels.shape[2:])
      mask[r, m] = True
      m += 1
      ids += [IMAGE] * count
      places += [m] * count
    written.append(ids)
    index.append(places)
  length = max(map(len, written))

  def padded(row):
    fill = [0] * (length - len(row))
    return fill + row if pad_left else row + fill

  tokens = np.array([padded(row) for row in written])
  segments = np.array([padded([1] * len(row)) for row in written])
  batch = dict(
    tokens=tokens,
    segments=segments,
    positions=np.maximum(np.cumsum(segments, axis=1) - 1, 0),
    media=dict(
      image=dict(
        values=pixels,
        mask=mask,
        index=np.array([padded(row) for row in index]),
      )
    ),
  )
  given = dict(
    input_ids=torch.tensor(tokens), attention_mask=torch.tensor(segments)
  )
  if mask.any():
    given["pixel_values"] = normalised(pixels[mask[..., 0]][:, 0])
  return given, jax.tree.map(np.asarray, batch)


def normalised(pixels: np.ndarray) -> torch.Tensor:
  """As CLIP's processor does with pictures of the right size."""
  processor = transformers.CLIPImageProcessorPil(
    do_resize=False, do_center_crop=False
  )
  made = processor(
    list(pixels), return_tensors="pt", input_data_format="channels_last"
  )
  return made["pixel_values"]
