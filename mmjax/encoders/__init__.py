"""Encoders by the name that a config gives."""

from mmjax.encoders.efficientnet import efficientnet_lite
from mmjax.encoders.features import FeatureTable

ENCODERS = {
  "efficientnet_lite": efficientnet_lite,
  "features": FeatureTable,
}
