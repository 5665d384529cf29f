"""A LLaVA on meshes of eight devices: the numbers of one, in both stages."""

import re

import jax
import numpy as np
import optax
import pytest

from mmjax import tree
from mmjax.sharding import put_batch, shardings
from mmjax.systems import llava
from mmjax.training.state import abstract_params, init_state
from tests import eight_devices
from tests.systems import conversations as c
from tests.systems import on_meshes
from tests.systems.on_meshes import mesh_of

# (data, fsdp, sequence, tensor)
MESHES = {
  "pretrain": [(1, 8, 1, 1), (2, 1, 2, 2)],
  "finetune": [(8, 1, 1, 1), (1, 8, 1, 1), (1, 1, 1, 8), (1, 2, 2, 2)],
}
TRAINS = {"pretrain": ("connector",), "finetune": ("connector", "lm")}
LENGTH, MEDIA, Q = 32, 3, 9
MODEL = dict(
  encoder=c.ENCODER | dict(width=16, num_heads=8, image_size=18, patch=6),
  connector=dict(name="projection", width=16, depth=2),
  lm=c.MODEL["lm"] | dict(num_heads=8, head_dim=4, hidden=32, vocab_size=64),
)


def make_batch(rows=8):
  """Two conversations a row, the pictures of three tokens by three."""
  random = np.random.RandomState(0)
  found = []
  for r in range(rows):
    text = random.randint(1, 64, 12).tolist()
    one = [*text[:3], -1 - r, *text[3:5]]
    two = [text[5], *([-20 - r] * (r % 3 > 0)), *text[6:9]]
    found.append([one, two])
  return c.batch(found, length=LENGTH, media=MEDIA, tokens=Q, sides=(18, 18))


def check_numbers(stage):
  module, batch = llava.build(MODEL), make_batch()
  assert set(batch["media"]["image"]["mask"].sum((1, 2)).tolist()) == {1, 2}
  gradients = on_meshes.check_numbers(
    *(llava, module, c.drawn(module, batch), TRAINS[stage].__contains__),
    *(MESHES[stage], batch),
  )
  assert min(np.abs(x).max() for x in jax.tree.leaves(gradients)) > 0


def check_shares():
  """Matrices lie over fsdp and tensor, moments of what trains alike."""
  module, batch, sizes = llava.build(MODEL), make_batch(), (1, 2, 2, 2)
  rules = [(r"encoder/.*", False), (".*", True)]
  state, _ = init_state(
    module,
    batch,
    rules=rules,
    optimizer=lambda params: optax.adam(0.1),
    mesh=mesh_of(sizes),
  )
  trees = state.params, state.opt_state[0].mu
  for path, x in [item for t in trees for item in tree.flatten(t).items()]:
    shards = {shard.data.nbytes for shard in x.addressable_shards}
    parts = x.nbytes / shards.pop()
    assert not shards and len(x.addressable_shards) == 8
    if path == "connector/linear_1/kernel":
      # Features are no dim that a mesh knows; the width lies over fsdp.
      assert parts == 2, (path, x.sharding)
    elif path.endswith(("/kernel", "/table")) and "/patch/" not in path:
      assert parts == 4, (path, x.sharding)


def check_encoder():
  """Twelve pictures of four rows: two for each device, the last four blank."""
  module, batch = llava.build(MODEL), make_batch(rows=4)
  params = c.drawn(module, batch)
  image = batch["media"]["image"]

  def tokens(params, image):
    return module.apply({"params": params}, image, method="media_tokens")

  expected = jax.jit(tokens)(params, image)
  mesh = mesh_of((2, 1, 2, 2))
  params = jax.device_put(
    params, shardings(abstract_params(module, batch), mesh)
  )
  with jax.set_mesh(mesh):
    arguments = params, put_batch(image, mesh)
    step = jax.jit(tokens).lower(*arguments).compile()
  np.testing.assert_allclose(step(*arguments), expected, atol=2e-5)
  dots = r"f32\[(\d+)[\d,]+\]\S* dot\(.*encoder.*BLKGH,BSKH->BKGLS"
  assert set(re.findall(dots, step.as_text())) == {"2"}


@pytest.mark.heavy
@pytest.mark.parametrize("stage", MESHES)
def test_every_mesh_gives_the_numbers_of_one_device(stage):
  eight_devices.run(
    "from tests.systems import test_llava_meshes as t\n"
    f"t.check_numbers({stage!r})"
  )


@pytest.mark.heavy
def test_every_device_holds_its_share_and_encodes_its_pictures():
  eight_devices.run(
    "from tests.systems import test_llava_meshes as t\n"
    "t.check_shares()\n"
    "t.check_encoder()"
  )
