"""Flamingo-9B (arXiv 2204.14198 v2).

Table 4 lists 40 layers and 10 blocks; the counts of Table 5 are those of 32
layers and 8 blocks, which is `get_config("table5")`.
"""

from configs.common import mesh
from configs.flamingo import baseline_3b
from mmjax.lms.chinchilla import SIZES

LMS = {"table4": SIZES["7b"], "table5": SIZES["7b_table5"]}


def get_config(shapes="table4"):
  config = baseline_3b.get_config()
  config.model.lm.update(LMS[shapes])
  config.model.xattn.update(every=4, media_width=config.model.lm.width)
  # The smallest batch has 64 rows, so no more than 64 devices share them.
  config.mesh = mesh(fsdp=-1, tensor=2)
  config.topology = "v5p:4x4x8"
  return config
