"""Encoders by the name that a config gives."""

from mmjax.encoders import efficientnet, features, nfnet, vit

ENCODERS = {
  "clip_vit": vit.clip_vit,
  "custom_nfnet": nfnet.NFNet,
  "efficientnet_lite": efficientnet.efficientnet_lite,
  "features": features.FeatureTable,
  "nfnet": nfnet.nfnet,
  "vit": vit.ViT,
}
