"""Tiny random BLIP-2s and InstructBLIPs of Hugging Face, and their batches."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import torch
import transformers

from mmjax import tree
from mmjax.cli.convert import convert
from mmjax.convert.read import Safetensors, read_json
from mmjax.systems import x_instructblip
from tests.llava.hugging_face import LM, VISION, normalised

MEDIA = 95  # The id of the places of an image or a video.
QUERIES, FRAMES = 3, 4
LLAMA = dict(model_type="llama", **LM)
OPT = dict(
  model_type="opt",
  vocab_size=96,
  hidden_size=32,
  ffn_dim=48,
  num_hidden_layers=2,
  num_attention_heads=4,
  max_position_embeddings=128,
  word_embed_proj_dim=32,
)
QFORMER = dict(
  vocab_size=41,
  hidden_size=16,
  intermediate_size=20,
  num_hidden_layers=3,
  num_attention_heads=4,
  max_position_embeddings=12,
)
# Class, and what changes of: the language model, the tower, the Q-Former.
VARIANTS = {
  "BLIP-2, OPT": ("Blip2", OPT, dict(), dict()),
  "grouped queries": (
    "InstructBlip",
    LLAMA | dict(num_key_value_heads=2),
    dict(patch_size=4),
    dict(cross_attention_frequency=1),
  ),
  "tied, bias of keys": (
    "InstructBlip",
    LLAMA | dict(tie_word_embeddings=True),
    dict(image_size=24, hidden_act="quick_gelu", layer_norm_eps=1e-3),
    dict(num_hidden_layers=2),
  ),
  "video": (
    "InstructBlipVideo",
    LLAMA | dict(num_key_value_heads=1, rope_theta=5e5),
    dict(),
    dict(layer_norm_eps=1e-3),
  ),
}


def make(variant: str, seed: int = 0):
  """A model whose weights are large enough to matter."""
  name, lm, vision, reader = VARIANTS[variant]
  kind = "video" if name.endswith("Video") else "image"
  config = getattr(transformers, f"{name}Config")(
    text_config=dict(lm),
    vision_config=VISION | vision,
    qformer_config=QFORMER | reader,
    num_query_tokens=QUERIES,
    **{f"{kind}_token_index": MEDIA},
  )
  torch.manual_seed(seed)
  model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
  with torch.no_grad():
    for name, value in model.named_parameters():
      value.copy_(torch.randn_like(value) * 0.2 + ("norm" in name.lower()))
      if name.endswith("qkv.bias") and "bias of keys" not in variant:
        value[len(value) // 3 : 2 * len(value) // 3] = 0
  return model.eval()


def converted(folder: str | Path, target: str | Path):
  """Our module and parameters of a folder of Hugging Face's."""
  convert(folder, target, to="jax")
  fields = read_json(Path(target) / "config.json")["model"]
  weights = Safetensors(target)
  params = tree.unflatten({k: weights[k] for k in weights})
  return x_instructblip.build(model_config(fields)), params


def model_config(fields):
  return {part: fields[part] for part in ("lm", "encoders", "media")}


def prompts(model, rows: Sequence[Sequence[int]], instructions, pad_left=False):
  """Rows of text with one medium each, whose place is 0, for both.

  Args:
    model: Hugging Face's.
    rows: ids of each row.
    instructions: ids that the Q-Former reads with each row's medium.
    pad_left: puts padding before the rows.

  Returns:
    arguments of Hugging Face's model, and our batch.
  """
  config = model.config
  video, blip2 = "Video" in type(model).__name__, "Blip2" in str(type(model))
  frames = FRAMES if video else 1
  count, side = frames * QUERIES, config.vision_config.image_size
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (len(rows), 1, frames, side, side, 3), np.uint8)
  tokens = _padded(
    [[i for t in row for i in ([t] if t else [MEDIA] * count)] for row in rows],
    pad_left,
  )
  segments = (tokens > 0).astype(np.int64)
  text = _padded(instructions, False)
  media = dict(
    values=pixels,
    mask=np.ones(pixels.shape[:3], bool),
    index=(tokens == MEDIA).astype(np.int64),
  )
  given = dict(
    input_ids=torch.tensor(tokens),
    attention_mask=torch.tensor(segments),
    pixel_values=_pixels(pixels, video),
  )
  if not blip2:
    media["text"] = text[:, None]
    given["qformer_input_ids"] = torch.tensor(text)
    given["qformer_attention_mask"] = torch.tensor((text > 0).astype(int))
  return given, dict(
    tokens=tokens,
    segments=segments,
    positions=np.maximum(np.cumsum(segments, axis=1) - 1, 0),
    media={"video" if video else "image": media},
  )


def _pixels(pixels: np.ndarray, video: bool) -> torch.Tensor:
  flat = normalised(pixels.reshape(-1, *pixels.shape[3:]))
  return flat.reshape(len(pixels), -1, *flat.shape[1:]) if video else flat


def _padded(rows: Sequence[Sequence[int]], left: bool) -> np.ndarray:
  length = max(map(len, rows))
  fills = [[0] * (length - len(row)) for row in rows]
  pairs = zip(fills, map(list, rows))
  return np.array([f + r if left else r + f for f, r in pairs])


def row(batch, i: int):
  """A batch of one."""
  return jax.tree.map(lambda x: x[i : i + 1], batch)
