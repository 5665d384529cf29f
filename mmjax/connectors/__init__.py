"""Connectors by the name that a config gives."""

from mmjax.connectors.perceiver import PerceiverResampler
from mmjax.connectors.resamplers import MLPResampler, TransformerResampler

# What turns the features of one medium into a fixed number of latents.
RESAMPLERS = {
  "mlp": MLPResampler,
  "perceiver": PerceiverResampler,
  "transformer": TransformerResampler,
}
