"""A released LLaVA-1.5 to evaluate, or to train on from where it ended.

  mmjax convert llava-1.5-7b-hf $MMJAX_DATA/llava_1.5_7b --to jax
  mmjax evaluate --config configs/llava/released.py:7b --workdir runs/llava
  mmjax train --config configs/llava/released.py:7b --workdir runs/mine
  mmjax convert runs/mine llava-mine --to hf

Hugging Face's has rows for the token of an image and for padding, and more up
to a multiple of 64; that of LLaVA's own code (converted with --tower, here
"7b_original") has 32,000.
"""

from configs.flamingo.common import converted, local
from configs.llava import finetune

ROWS = 32_064


def get_config(size="7b"):
  name = size.removesuffix("_original")
  config = finetune.get_config(name)
  folder = f"llava_1.5_{name}"
  config.init = dict(all=converted(folder))
  config.tokenizer.path = local(folder)
  if size == name:
    config.model.lm.vocab_size = ROWS
    config.data.datasets.chats.prompt.image = "<image>"
    config.tokenizer.pad = "<pad>"
  return config
