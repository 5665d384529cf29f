"""LLaVA's first stage: the projector learns what captions say.

Everything else is frozen. Pictures are cropped, not padded, in LLaVA-1.5 too.
"""

from configs.llava import common


def get_config(size="7b"):
  size = common.SIZES[size]
  return common.stage(
    size=size,
    model=common.model(size),
    datasets=dict(
      captions=common.dataset(
        size,
        1,
        template="plain",
        # An image, and a caption of up to 128 tokens.
        length=size.tokens + 128,
        pad=False,
      )
    ),
    trainable=[(common.CONNECTOR, True), (".*", False)],
    steps=common.steps(size, 1),
    peak=size.peak,
    init={},
  )
