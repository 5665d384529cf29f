"""BLIP-2's first stage: what each loss sees, draws, devices and learning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from mmjax.connectors.qformer import visible
from mmjax.systems.blip2 import (
  apart_and_captioning,
  build,
  draw_negatives,
  loss,
  monitor,
  no_negatives,
  together,
)
from tests import eight_devices

CONFIG = dict(
  qformer=dict(
    features_width=12,
    width=16,
    num_layers=2,
    num_heads=2,
    num_queries=3,
    vocab_size=30,
    max_positions=12,
  ),
  joint_width=8,
)
ROWS, LENGTH = 8, 5


def make_batch(seed=0):
  random = np.random.RandomState(seed)
  lengths = random.randint(3, LENGTH + 1, ROWS)
  segments = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
  mask = np.ones((ROWS, 1, 1), bool)
  mask[3] = False
  batch = {
    "tokens": random.randint(1, 28, (ROWS, LENGTH)) * segments,
    "segments": segments,
    "key": jax.random.key(seed),
    "media": {
      "image": {
        "features": random.standard_normal((ROWS, 1, 1, 6, 12)),
        "mask": mask,
        "ids": np.array([[0], [1], [2], [3], [1], [5], [6], [7]]),
      }
    },
  }
  return jax.tree.map(jnp.asarray, batch)


def make_params(model, batch):
  made = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))
  random = np.random.RandomState(1)

  def draw(path, x):
    value = 0.3 * random.standard_normal(x.shape)
    return jnp.asarray(value + (path[-1].key == "scale"), jnp.float32)

  params = jax.tree_util.tree_map_with_path(draw, nn.unbox(made)["params"])
  return params | {"temperature": jnp.float32(0.5)}


def objective(model, params, batch):
  total, count = loss(model, params, batch)["loss"]
  return total / count


def test_text_stands_apart_and_behind_the_queries():
  text = jnp.array([[True, True], [True, False]])
  found = np.asarray(apart_and_captioning(2, text))[:, 0]
  rows = ["110000", "110000", "001100", "001100", "110010", "110011"]
  expected = np.array([[int(c) for c in row] for row in rows])
  np.testing.assert_array_equal(found[0], expected)
  np.testing.assert_array_equal(found[1], expected * [1, 1, 1, 0, 1, 0])


def test_one_pass_is_the_two_that_it_stands_for():
  model, batch = build(CONFIG), make_batch()
  params = make_params(model, batch)
  text = batch["segments"] > 0

  def run(model, batch):
    x, tokens = model.read_media(batch), batch["tokens"]
    images, texts, captions = model.contrast(x, tokens, text)
    apart = model.qformer(x, text=tokens, table=visible("apart", 3, text))
    begun = tokens.at[:, 0].set(29)
    behind = visible("captioning", 3, text)
    behind = model.qformer(x, text=begun, table=behind)
    return (images, texts, captions), (apart, behind[:, 3:]), x

  found, (apart, behind), x = model.apply({"params": params}, batch, method=run)
  kept = text[..., None]
  np.testing.assert_allclose(found[2] * kept, behind * kept, atol=2e-6)
  for vectors, name, hidden in (
    (found[0], "image_head", apart[:, :3]),
    (found[1], "text_head", apart[:, 3]),
  ):
    head = params[name]
    expected = hidden @ head["kernel"] + head["bias"]
    expected /= jnp.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=2e-6)


def test_captions_have_the_norm_of_the_qformer():
  config = CONFIG | dict(qformer=CONFIG["qformer"] | dict(norm_eps=0.5))
  model = build(config)
  params = make_params(model, make_batch())
  x = np.random.RandomState(2).standard_normal((2, 3, 16)).astype(np.float32)
  pad = ((0, 0), (0, 0), (0, 30 - 16))
  got = model.apply(
    {"params": params},
    x,
    method=lambda model, x: model.caption_head(x, lambda y: jnp.pad(y, pad)),
  )
  head = params["caption_head"]
  y = x @ head["transform"]["kernel"] + head["transform"]["bias"]
  y = jax.nn.gelu(y, approximate=False)
  y = y - y.mean(axis=-1, keepdims=True)
  y = y / np.sqrt((y**2).mean(axis=-1, keepdims=True) + 0.5)
  y = y * head["norm"]["scale"] + head["norm"]["bias"]
  np.testing.assert_allclose(got, np.pad(y, pad) + head["bias"], atol=1e-5)


def test_negatives_are_likely_ones_and_no_partners():
  batch = make_batch()
  never = no_negatives(batch)
  own = np.eye(ROWS, dtype=bool)
  own[1, 4] = own[4, 1] = True  # They show one image.
  np.testing.assert_array_equal(together(batch), own)
  lost = np.arange(ROWS) == 3
  np.testing.assert_array_equal(never, own | lost | lost[:, None])
  random = np.random.RandomState(5)
  scores = jnp.asarray(random.standard_normal((ROWS, ROWS)), jnp.float32)
  keys = jax.random.split(jax.random.key(0), 4000)
  images, texts = jax.vmap(lambda k: draw_negatives(k, scores, never))(keys)
  for drawn, table in ((images, scores.T), (texts, scores)):
    expected = jax.nn.softmax(jnp.where(never, -jnp.inf, table), axis=1)
    share = jnp.stack([(drawn == i).mean(0) for i in range(ROWS)], axis=1)
    np.testing.assert_allclose(share[~lost], expected[~lost], atol=0.03)
    assert (jnp.where(never, share, 0)[~lost] == 0).all()


def test_a_row_without_a_pair_changes_nothing():
  """Neither its pixels nor its text, in any loss."""
  model, batch = build(CONFIG), make_batch()
  params = make_params(model, batch)
  run = jax.jit(lambda batch: loss(model, params, batch))
  image = batch["media"]["image"]
  other = batch | {
    "tokens": batch["tokens"].at[3].set(9),
    "media": {"image": image | {"features": image["features"].at[3].set(5.0)}},
  }
  for name, (total, number) in run(batch).items():
    found = run(other)[name]
    np.testing.assert_allclose(found, (total, number), rtol=1e-5, err_msg=name)
  assert run(batch)["contrastive"][1] == ROWS - 1
  assert run(batch)["matching"][1] == 3 * (ROWS - 1)


def test_it_learns_which_text_is_whose():
  model, batch = build(CONFIG), make_batch()
  params = make_params(model, batch)
  tx = optax.adam(1e-2)

  @jax.jit
  def step(params, state, key):
    run = jax.value_and_grad(
      lambda p: objective(model, p, batch | {"key": key})
    )
    value, grads = run(params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  state = tx.init(params)
  for key in jax.random.split(jax.random.key(1), 120):
    params, state, _ = step(params, state, key)
  found = {k: float(t / n) for k, (t, n) in loss(model, params, batch).items()}
  # Of seven, of two classes of which one is twice as often, of 30 tokens.
  assert found["contrastive"] < 0.6 * np.log(7)
  assert found["matching"] < 0.3
  assert found["captioning"] < 0.6 * np.log(30)
  assert monitor(params)["temperature"] == params["temperature"]


def on_devices(count):
  model, batch = build(CONFIG), make_batch()
  params = make_params(model, batch)
  return eight_devices.gradients(
    lambda params, batch: objective(model, params, batch), params, batch, count
  )


def test_eight_devices_give_the_loss_of_one(tmp_path):
  """Candidates and negatives come from all devices."""
  eight_devices.check_gathered(__name__, on_devices, tmp_path / "eight.npz")


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(qformer=dict(features_width=1, widht=3)), "Did you mean 'width'"),
    (dict(qformer=dict(features_width=1, vocab_size=0)), "needs a Q-Former"),
    (dict(joint=3), "Did you mean 'joint_width'"),
  ],
)
def test_a_wrong_config_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    build(CONFIG | change)
