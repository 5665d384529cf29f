"""Flamingo-80B (arXiv 2204.14198 v2): blocks before layers 0, 7, ..., 77.

The paper trained it on 1536 TPU v4 with 16-way tensor parallelism. On two
slices: --config.mesh.data=2 --config.mesh.tensor=16 --topology 2*v5p:8x8x8.
"""

from configs.common import mesh
from configs.flamingo import baseline_3b
from mmjax.lms.chinchilla import SIZES


def get_config():
  config = baseline_3b.get_config()
  config.model.lm.update(SIZES["70b"], remat="full")
  config.model.xattn.update(every=7, media_width=config.model.lm.width)
  # The smallest batch has 64 rows, so no more than 64 devices share them.
  config.mesh = mesh(fsdp=-1, tensor=8)
  config.topology = "v5p:8x8x8"
  return config
