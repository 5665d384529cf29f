"""What transformers 4 makes of folders, run in a process that has it.

  python -m tests.llava.transformers_4 make FOLDER     a tiny random LLaVA
  python -m tests.llava.transformers_4 logits FOLDER FILE.npz

FILE.npz has `input_ids`, `attention_mask` and `pixel_values`; `logits` are
printed beside it as FILE.npz.logits.npy.
"""

import sys

import numpy as np
import torch
import transformers

LM = dict(
  vocab_size=96,
  hidden_size=32,
  intermediate_size=48,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
)
VISION = dict(
  hidden_size=24,
  intermediate_size=40,
  num_hidden_layers=3,
  num_attention_heads=2,
  image_size=16,
  patch_size=8,
)


def make(folder):
  config = transformers.LlavaConfig(
    text_config=transformers.LlamaConfig(**LM),
    vision_config=transformers.CLIPVisionConfig(**VISION),
    image_token_index=95,
    image_seq_length=4,
    pad_token_id=0,
  )
  torch.manual_seed(0)
  model = transformers.LlavaForConditionalGeneration(config)
  model.save_pretrained(folder, safe_serialization=True)


def logits(folder, file):
  model = transformers.LlavaForConditionalGeneration.from_pretrained(
    folder
  ).eval()
  with np.load(file, allow_pickle=False) as given:
    given = {k: torch.tensor(given[k]) for k in given.files}
  with torch.no_grad():
    found = model(**given).logits.numpy()
  np.save(f"{file}.logits.npy", found, allow_pickle=False)


if __name__ == "__main__":
  assert transformers.__version__.startswith("4."), transformers.__version__
  {"make": make, "logits": logits}[sys.argv[1]](*sys.argv[2:])
