"""Flamingo-80B (arXiv 2204.14198 v2): blocks before layers 0, 7, ..., 77."""

from configs.flamingo import baseline_3b
from mmjax.lms.chinchilla import SIZES


def get_config():
  config = baseline_3b.get_config()
  config.model.lm.update(SIZES["70b"], remat="full")
  config.model.xattn.update(every=7, media_width=config.model.lm.width)
  config.mesh = dict(data=-1, tensor=16)
  return config
