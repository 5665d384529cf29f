"""The second stage with low-rank updates of the language model (LLaVA-1.5).

Rank 128 and alpha 256 in all its matrices, ten times the learning rate of
finetune.py; the projector trains as a whole at that one's.
"""

from configs.llava import common, finetune

LORA = dict(rank=128, alpha=256.0, dropout=0.05)


def get_config(size="7b"):
  config = finetune.get_config(size)
  config.model.lm.lora = LORA
  config.train.trainable = [
    (common.CONNECTOR, True),
    ("lm/.*/lora_[ab]", True),
    (".*", False),
  ]
  config.train.optimizer.schedule.peak = 2e-4
  config.train.optimizer.lr_scale = [(common.CONNECTOR, 0.1), (".*", 1.0)]
  return config
