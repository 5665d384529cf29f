"""Connectors by the name that a config gives."""

from mmjax.connectors.instructed import PooledProjection, instructed
from mmjax.connectors.perceiver import PerceiverResampler
from mmjax.connectors.projection import Projection
from mmjax.connectors.resampler_ablations import (
  MLPResampler,
  TransformerResampler,
)

# What turns the features of one medium into a fixed number of tokens.
CONNECTORS = {
  "mlp": MLPResampler,
  "perceiver": PerceiverResampler,
  "pooled_projection": PooledProjection,
  "projection": Projection,
  "qformer": instructed,
  "transformer": TransformerResampler,
}
