"""What of X-InstructBLIP trains, at the published sizes; nothing is allocated.

A Q-Former that reads text, its queries, the norm of the features and the matrix
to the language model, of each kind of media.
"""

import math

import pytest

from mmjax.cli.instructblip_family import of_connectors
from mmjax.lms.llama import SIZES

# Width of what each encoder gives.
FEATURES = dict(image=1408, video=1408, audio=768, points=512)


def trained(size: str, kinds) -> int:
  width = SIZES[size]["width"]
  media = {
    kind: dict(
      connector=dict(
        name="qformer",
        width=width,
        qformer=dict(features_width=FEATURES[kind]),
      )
    )
    for kind in kinds
  }
  return sum(math.prod(shape) for shape in of_connectors(media).values())


@pytest.mark.parametrize(
  "size, kinds, count",
  [
    ("7b", ["image"], 188_837_376),
    ("7b", ["video"], 188_837_376),
    ("7b", ["audio"], 182_937_856),
    ("7b", ["points"], 180_578_048),
    ("7b", FEATURES, 741_190_656),
    ("13b", ["image"], 189_624_832),
  ],
)
def test_connectors(size, kinds, count):
  assert trained(size, kinds) == count
