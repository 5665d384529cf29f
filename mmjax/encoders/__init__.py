"""Encoders by the name that a config gives."""

from mmjax.encoders.efficientnet import efficientnet_lite
from mmjax.encoders.features import FeatureTable
from mmjax.encoders.nfnet import NFNet, nfnet
from mmjax.encoders.vit import ViT, clip_vit

ENCODERS = {
  "clip_vit": clip_vit,
  "custom_nfnet": NFNet,
  "efficientnet_lite": efficientnet_lite,
  "features": FeatureTable,
  "nfnet": nfnet,
  "vit": ViT,
}
