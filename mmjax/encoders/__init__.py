"""Encoders by the name that a config gives."""

from collections.abc import Mapping
from typing import Any

from mmjax.config import build
from mmjax.encoders import (
  beats,
  efficientnet,
  features,
  nfnet,
  pointbert,
  vit,
  whisper,
)


def reduced(
  encoder: Mapping[str, Any], width: int, dtype: Any = None
) -> features.Reduced:
  """Another encoder, by its config, with a fixed linear map behind it."""
  inner = build(ENCODERS, encoder, dtype=dtype)
  return features.Reduced(inner, width, dtype)


ENCODERS = {
  "beats": beats.beats,
  "clip_vit": vit.clip_vit,
  "custom_beats": beats.BEATs,
  "custom_nfnet": nfnet.NFNet,
  "custom_pointbert": pointbert.PointBERT,
  "custom_whisper": whisper.Whisper,
  "efficientnet_lite": efficientnet.efficientnet_lite,
  "eva_vit": vit.eva_vit,
  "features": features.FeatureTable,
  "nfnet": nfnet.nfnet,
  "reduced": reduced,
  "ulip2": pointbert.ulip2,
  "vit": vit.ViT,
  "whisper": whisper.whisper,
}
