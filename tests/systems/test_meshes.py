"""A Flamingo on meshes of eight devices: the same numbers, a share each."""

import re

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from mmjax import tree
from mmjax.sharding import put_batch, shardings
from mmjax.systems import flamingo
from mmjax.training.state import abstract_params, init_state
from tests import eight_devices
from tests.systems import on_meshes
from tests.systems.on_meshes import mesh_of

# (data, fsdp, sequence, tensor)
MESHES = [
  (8, 1, 1, 1),
  (1, 8, 1, 1),
  (1, 1, 1, 8),
  (2, 2, 1, 2),
  (1, 2, 2, 2),
]
ROWS, LENGTH, MEDIA, SIDE = 8, 64, 3, 16
MODEL = dict(
  encoder=dict(
    name="vit", width=16, num_layers=2, num_heads=8, patch=8, image_size=SIDE
  ),
  resampler=dict(
    name="perceiver", width=16, depth=1, num_heads=8, head_dim=4, num_latents=2
  ),
  lm=dict(
    name="llama",
    vocab_size=64,
    width=16,
    num_layers=2,
    num_heads=8,
    head_dim=4,
    hidden=32,
    extra_tokens=2,
  ),
  xattn=dict(every=1, hidden=32, gate_init=0.5),
)
FREEZE = [("(encoder|lm)/.*", False), (".*", True)]


def make_batch(rows=ROWS):
  """Two documents a row, padded, with a picture a dozen tokens."""
  random = np.random.RandomState(0)
  cut = 20 + np.arange(rows)[:, None]
  at = np.broadcast_to(np.arange(LENGTH), (rows, LENGTH))
  segments = np.where(at < cut, 1, np.where(at < 56, 2, 0))
  tokens = random.randint(0, 66, (rows, LENGTH))
  index = np.where(segments > 0, np.minimum(at // 12, MEDIA), 0)
  shape = (rows, MEDIA, 1, SIDE, SIDE, 3)
  return {
    "tokens": tokens * (segments > 0),
    "targets": np.roll(tokens, -1, axis=1),
    "weights": (segments > 0).astype(np.float32),
    "positions": np.where(at < cut, at, at - cut) * (segments > 0),
    "segments": segments,
    "media": {
      "image": {
        "values": random.randint(0, 256, shape).astype(np.uint8),
        "mask": np.ones((rows, MEDIA, 1), bool),
        "index": index,
      }
    },
  }


def make_params(module, batch):
  like = abstract_params(module, batch)
  random = np.random.RandomState(1)

  def draw(path, x):
    scale = path[-1].key in ("scale", "attention_gate", "mlp_gate")
    return np.float32(0.2 * random.standard_normal(x.shape) + scale)

  return jax.tree_util.tree_map_with_path(draw, nn.unbox(like)), like


def check_numbers():
  module, batch = flamingo.build(MODEL), make_batch()
  params, _ = make_params(module, batch)
  on_meshes.check_numbers(
    flamingo, module, params, lambda name: True, MESHES, batch
  )


def check_shares():
  """Bytes on each device: parameters, moments and what is frozen alike."""
  module, batch = flamingo.build(MODEL), make_batch()
  for sizes in MESHES[1:3] + MESHES[4:]:
    state, _ = init_state(
      module,
      batch,
      rules=FREEZE,
      optimizer=lambda params: optax.adam(0.1),
      mesh=mesh_of(sizes),
    )
    moments = state.opt_state[0]
    trees = state.params, moments.mu, moments.nu
    for path, x in [item for t in trees for item in tree.flatten(t).items()]:
      held = {shard.data.nbytes for shard in x.addressable_shards}
      parts = x.nbytes / held.pop()
      assert not held and len(x.addressable_shards) == 8
      # A convolution's channels lie over fsdp alone; so do learned tables of
      # places and latents. Vectors are small.
      if path.endswith(("/kernel", "/table")) and "/patch/" not in path:
        assert parts == sizes[1] * sizes[3], (path, sizes, x.sharding)
      elif x.size > 256:
        assert parts == sizes[1], (path, sizes, x.sharding)


# Grouped convolutions are what the compiler does not cut by itself.
NFNET = dict(
  name="custom_nfnet",
  depths=[1, 2],
  widths=[16, 16],
  stem=16,
  group=8,
  features=16,
  classes=0,
)


def check_media():
  """Twelve pictures of four rows: two for each device, the last four blank."""
  dots = r"f32\[(\d+)[\d,]+\]\S* dot\(.*encoder.*BLKGH,BSKH->BKGLS"
  check_encoder(MODEL["encoder"], dots)
  check_encoder(NFNET, r"f32\[(\d+)[\d,]+\]\S* convolution\(.*encoder")


def check_encoder(encoder, pattern):
  """Numbers as on one device, and rows of what a pattern finds in the HLO."""
  module = flamingo.build(MODEL | dict(encoder=encoder))
  batch = make_batch(rows=4)
  params, like = make_params(module, batch)
  image = batch["media"]["image"]

  def latents(params, image):
    return module.apply({"params": params}, image, method="latents")

  expected = jax.jit(latents)(params, image)
  mesh = mesh_of((2, 1, 2, 2))
  params = jax.device_put(params, shardings(like, mesh))
  with jax.set_mesh(mesh):
    arguments = params, put_batch(image, mesh)
    step = jax.jit(latents).lower(*arguments).compile()
  np.testing.assert_allclose(step(*arguments), expected, atol=2e-5)
  assert set(re.findall(pattern, step.as_text())) == {"2"}


@pytest.mark.heavy
def test_every_mesh_gives_the_numbers_of_one_device():
  eight_devices.run(
    "from tests.systems import test_meshes as t\nt.check_numbers()"
  )


@pytest.mark.heavy
def test_every_device_holds_its_share_and_encodes_its_media():
  eight_devices.run(
    "from tests.systems import test_meshes as t\n"
    "t.check_shares()\n"
    "t.check_media()"
  )
