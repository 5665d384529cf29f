"""LLaVAs of the published sizes: parameters and names; nothing is allocated.

The whole is that of Hugging Face's llava-1.5-7b and -13b, whose vocabulary has
rows for <image> and for padding, and is a multiple of 64.
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

ROWS, VOCABULARY = 32_000, 32_064
TOWER = 303_507_456
# The projector, the language model with the rows of LLaMA, the whole with
# those of Hugging Face; and tensors of its files.
COUNTS = {
  "7b": (20_979_712, 6_738_415_616, 7_063_427_072, 686),
  "13b": (31_467_520, 13_015_864_320, 13_351_494_656, 758),
}


def counts(size, rows, depth=2, side=336):
  """Of each part of the system, shown one image."""
  lm = dict(name="llama") | SIZES[size] | dict(vocab_size=rows)
  variant = "L/14-336" if side == 336 else "L/14"
  module = llava.build(
    dict(
      encoder=dict(name="clip_vit", variant=variant, output_layer=-2),
      connector=dict(name="projection", width=lm["width"], depth=depth),
      lm=lm,
      dtype="bfloat16",
    )
  )
  one = jnp.ones((1, 1), jnp.int32)
  image = dict(
    values=jnp.zeros((1, 1, 1, side, side, 3), jnp.uint8),
    mask=jnp.ones((1, 1, 1), bool),
    index=0 * one,
  )
  batch = dict(tokens=one, positions=one, segments=one)
  batch |= dict(media=dict(image=image))
  like = jax.eval_shape(module.init, jax.random.key(0), batch)["params"]
  return {name: tree.count(part) for name, part in nn.unbox(like).items()}


@pytest.mark.parametrize("size", COUNTS)
def test_version_1_5(size):
  projector, lm, whole, _ = COUNTS[size]
  found = counts(size, VOCABULARY)
  assert found["encoder"] == TOWER and found["connector"] == projector
  assert sum(found.values()) == whole
  # Rows of the embeddings and of the head.
  more = 2 * (VOCABULARY - ROWS) * SIZES[size]["width"]
  assert found["lm"] == lm + more


@pytest.mark.parametrize("size", COUNTS)
def test_version_1(size):
  """A bare linear layer behind a tower for 224 pixels."""
  width = SIZES[size]["width"]
  found = counts(size, ROWS, depth=1, side=224)
  assert found["connector"] == 1024 * width + width
  assert found["encoder"] == TOWER - (577 - 257) * 1024
  assert found["lm"] == COUNTS[size][1]


def settings(size, layout):
  lm = dict(name="llama") | SIZES[size]
  lm["vocab_size"] = VOCABULARY if layout == "hf" else ROWS
  tower = CLIP["L/14-336"] | dict(
    hidden=4096,
    activation="quick_gelu",
    norm_eps=1e-5,
    output_layer=-2,
    keep_class_token=False,
  )
  return dict(
    layout=layout,
    features=1024,
    encoder=tower if layout == "hf" else None,
    connector=dict(width=lm["width"], depth=2),
    lm=lm,
  )


def names(fields):
  """Names and shapes under which such a model is written."""
  zero = np.zeros((), np.float16)
  blank = {
    path: np.broadcast_to(zero, shape)
    for path, shape in llava_family.shapes(fields).items()
  }
  written = list(to_torch(blank, llava_family.rules(fields)))
  assert all(x.strides == (0,) * x.ndim for _, x in written)
  found = {name: x.shape for name, x in written}
  assert len(found) == len(written)
  return found


@pytest.mark.parametrize("size", COUNTS)
def test_names_of_hugging_face(size):
  found = names(settings(size, "hf"))
  _, _, whole, tensors = COUNTS[size]
  assert len(found) == tensors
  assert sum(np.prod(shape, dtype=int) for shape in found.values()) == whole
  width = SIZES[size]["width"]
  projector, tower = "multi_modal_projector.", "vision_tower.vision_model."
  for name, shape in {
    f"{projector}linear_1.weight": (width, 1024),
    f"{projector}linear_2.weight": (width, width),
    f"{projector}linear_2.bias": (width,),
    f"{tower}embeddings.class_embedding": (1024,),
    f"{tower}embeddings.patch_embedding.weight": (1024, 3, 14, 14),
    f"{tower}embeddings.position_embedding.weight": (577, 1024),
    f"{tower}pre_layrnorm.weight": (1024,),
    f"{tower}encoder.layers.23.mlp.fc1.weight": (4096, 1024),
    f"{tower}post_layernorm.bias": (1024,),
    "language_model.model.embed_tokens.weight": (VOCABULARY, width),
    "language_model.lm_head.weight": (VOCABULARY, width),
  }.items():
    assert found[name] == shape


@pytest.mark.parametrize("size", COUNTS)
def test_names_of_the_original_have_no_tower(size):
  found = names(settings(size, "original"))
  projector, lm, _, tensors = COUNTS[size]
  assert len(found) == tensors - 391
  total = sum(np.prod(shape, dtype=int) for shape in found.values())
  assert total == projector + lm
  assert {k for k in found if "mm_projector" in k} == {
    f"model.mm_projector.{place}.{kind}"
    for place in (0, 2)
    for kind in ("weight", "bias")
  }
