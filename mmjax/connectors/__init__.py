"""Connectors by the name that a config gives."""

from mmjax.connectors.perceiver import PerceiverResampler

# What turns the features of one medium into a fixed number of latents.
RESAMPLERS = {"perceiver": PerceiverResampler}
