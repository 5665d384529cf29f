"""The two towers: learning, padding, and one loss on one or eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from mmjax.systems.contrastive import build, loss, monitor, pairs
from tests import eight_devices

CONFIG = dict(
  media=dict(
    name="vit", width=16, num_layers=2, num_heads=2, patch=8, image_size=16
  ),
  text=dict(
    name="custom_bert", width=16, num_layers=2, num_heads=2, vocab_size=20
  ),
  width=12,
)


def make_batch(size=16, seed=0):
  random = np.random.RandomState(seed)
  lengths = random.randint(2, 7, size)
  segments = (np.arange(6) < lengths[:, None]).astype(np.int32)
  values = random.randint(0, 256, (size, 1, 1, 16, 16, 3)).astype(np.uint8)
  mask = np.ones((size, 1, 1), bool)
  mask[3] = False
  batch = {
    "tokens": random.randint(0, 20, (size, 6)) * segments,
    "positions": np.broadcast_to(np.arange(6), (size, 6)),
    "segments": segments,
    "media": {"image": {"values": values, "mask": mask}},
  }
  return jax.tree.map(jnp.asarray, batch)


def make_params(model, batch):
  shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), batch))
  random = np.random.RandomState(1)

  def draw(path, x):
    value = 0.3 * random.standard_normal(x.shape)
    return jnp.asarray(value + (path[-1].key == "scale"), jnp.float32)

  params = jax.tree_util.tree_map_with_path(draw, shapes["params"])
  return params | {"log_inverse_temperature": jnp.float32(2.0)}


def objective(model, params, batch):
  total, count = loss(model, params, batch)["loss"]
  return total / count


def test_vectors_and_scores():
  model, batch = build(CONFIG), make_batch()
  params = make_params(model, batch)
  output = jax.jit(model.apply)({"params": params}, batch)
  for name in ("media", "texts"):
    lengths = np.linalg.norm(output.aux[name], axis=-1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
  scores = output.aux["media"] @ output.aux["texts"].T
  scale = np.exp(params["log_inverse_temperature"])
  np.testing.assert_allclose(output.logits[:, 0], scale * scores, atol=1e-4)
  assert pairs(batch).tolist() == [i != 3 for i in range(16)]


def test_the_first_temperature_is_clips():
  model, batch = build(CONFIG), make_batch()
  # Only this one is computed.
  start = jax.jit(
    lambda key: model.init(key, batch)["params"]["log_inverse_temperature"]
  )(jax.random.key(0))
  np.testing.assert_allclose(np.exp(nn.unbox(start)), 1 / 0.07, rtol=1e-6)


@pytest.mark.parametrize(
  "kind, media, shape",
  [
    (
      "points",
      dict(
        name="custom_pointbert",
        width=16,
        num_layers=1,
        num_heads=2,
        groups=4,
        group_size=4,
        group_width=8,
        projection=8,
      ),
      (32, 3),
    ),
    (
      "audio",
      dict(name="custom_whisper", width=16, num_layers=1, num_heads=2),
      (800,),
    ),
  ],
)
def test_media_of_other_kinds(kind, media, shape):
  """Sounds bring how long they are, and what is behind is not heard."""
  model = build(CONFIG | dict(kind=kind, media=media))
  assert model.kinds == (kind,)
  own, batch = dict(mask=np.ones((3, 1, 1), bool)), make_batch(4)
  random = np.random.RandomState(2)
  own["values"] = random.standard_normal((3, 1, 1, *shape)).astype(np.float32)
  if kind == "audio":
    own["lengths"] = np.array([800, 500, 800])[:, None, None]
  batch = {k: v[:3] for k, v in batch.items() if k != "media"}
  batch["media"] = {kind: own}
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), batch))["params"]
  vectors = jax.jit(lambda b: model.apply({"params": params}, b).aux["media"])
  first = vectors(batch)
  np.testing.assert_allclose(np.linalg.norm(first, axis=-1), 1.0, rtol=1e-5)
  assert pairs(batch, kind).all()
  if kind == "audio":
    own["values"][1, 0, 0, 500:] = 9.0
    np.testing.assert_allclose(vectors(batch), first, atol=1e-5)


def test_padding_changes_nothing():
  model, batch = build(CONFIG), make_batch()
  params = make_params(model, batch)
  wide = dict(batch)
  for name in ("tokens", "positions", "segments"):
    value = 7 if name == "tokens" else 0
    wide[name] = jnp.pad(batch[name], [(0, 0), (0, 3)], constant_values=value)
  run = jax.jit(lambda batch: objective(model, params, batch))
  np.testing.assert_allclose(run(batch), run(wide), rtol=1e-5)


def test_it_learns_pairs():
  """Far below chance, which is twice the logarithm of the batch."""
  model, batch = build(CONFIG), make_batch()
  params = make_params(model, batch)
  tx = optax.adam(1e-2)

  @jax.jit
  def step(params, state):
    value, grads = jax.value_and_grad(objective, argnums=1)(
      model, params, batch
    )
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  before = loss(model, params, batch)
  state = tx.init(params)
  for _ in range(100):
    params, state, value = step(params, state)
  assert value < 0.5 * 2 * np.log(15)
  after = loss(model, params, batch)
  for name in ("media_to_text", "text_to_media"):
    assert after[name][1] == 15
    assert before[name][0] <= 5 < 14 <= after[name][0]
  learned = monitor(params)["inverse_temperature"]
  # JAX and NumPy need not round alike.
  expected = np.exp(params["log_inverse_temperature"])
  np.testing.assert_allclose(learned, expected, rtol=1e-6)


def on_devices(count):
  model, batch = build(CONFIG), make_batch()
  params = make_params(model, batch)
  return eight_devices.gradients(
    lambda params, batch: objective(model, params, batch), params, batch, count
  )


def test_eight_devices_give_the_loss_of_one(tmp_path):
  """Candidates come from all devices, so the program gathers."""
  eight_devices.check_gathered(__name__, on_devices, tmp_path / "eight.npz")


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(media=dict(name="nfnett")), "Did you mean 'nfnet'"),
    (dict(text=dict(name="bert", varient="tiny")), "Did you mean 'variant'"),
    (dict(widht=3), "Did you mean 'width'"),
  ],
)
def test_a_wrong_config_names_the_nearest(change, message):
  with pytest.raises(ValueError, match=message):
    build(CONFIG | change)
