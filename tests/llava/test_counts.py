"""LLaVAs of the published sizes: parameters and names; nothing is allocated.

Counts are those of Hugging Face's llava-1.5-7b and -13b, whose vocabulary has
rows for <image> and padding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax import tree
from mmjax.cli import llava_family
from mmjax.convert.rules import to_torch
from mmjax.encoders.vit import CLIP
from mmjax.lms.llama import SIZES
from mmjax.systems import llava

VOCABULARY = 64 * 501
TOWER = 303_507_456
# Of the projector, the language model with 32,000 rows, the whole; tensors.
COUNTS = {
  "7b": (20_979_712, 6_738_415_616, 7_063_427_072, 686),
  "13b": (31_467_520, 13_015_864_320, 13_351_494_656, 758),
}


def model(size, vocabulary=VOCABULARY, depth=2):
  lm = dict(name="llama") | SIZES["llama"][size] if False else SIZES[size]
  return dict(
    encoder=dict(name="clip_vit", variant="L/14-336", output_layer=-2),
    connector=dict(name="projection", width=lm["width"], depth=depth),
    lm=dict(lm, name="llama", vocab_size=vocabulary),
  )
