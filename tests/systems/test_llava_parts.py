"""What a LLaVA is made of: which features, which connector, what trains."""

import re

import jax
import numpy as np
import optax
import pytest
from scipy.special import erf

from mmjax import tree
from mmjax.sharding import make_mesh
from mmjax.systems import llava
from mmjax.training.state import init_state
from mmjax.training.step import make_step
from tests.systems import conversations as c

ROWS = [[(3, 9, -1, 7, -2, 8)], [(-3, 5, 6, -1, 11, 12, 13)], [(5, 6, 11)], []]
STAGES = {
  "pretrain": [(r"connector/.*", True), (".*", False)],
  "finetune": [(r"encoder/.*", False), (".*", True)],
}


def without_encoder(params):
  return {k: v for k, v in params.items() if k != "encoder"}


def showing(batch, **image):
  """A batch that brings its pictures in another form."""
  own = {k: batch["media"]["image"][k] for k in ("mask", "index")}
  return batch | dict(media=dict(image=own | image))


@pytest.fixture(scope="module")
def seen():
  """The batch, its logits, and the features of its pictures."""
  module, params, logits = c.model()
  batch = c.batch(ROWS)
  values = batch["media"]["image"]["values"]
  features = module.apply({"params": params}, values, method="encode")
  return batch, logits(params, batch), np.asarray(features)


def apply(model, params, batch):
  return jax.jit(llava.build(model).apply)({"params": params}, batch).logits


def test_features_instead_of_pictures_are_the_same_model(seen):
  batch, expected, features = seen
  _, params, _ = c.model()
  model = c.MODEL | dict(encoder=None)
  given = showing(batch, features=features)
  found = apply(model, without_encoder(params), given)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_keys_of_a_table_of_features_are_the_same_model(seen):
  batch, expected, features = seen
  _, params, _ = c.model()
  mask = batch["media"]["image"]["mask"][..., 0]
  keys = np.full(mask.shape, -1)
  keys[mask] = np.arange(mask.sum())[::-1]
  table = features[:, :, 0][mask][::-1]
  encoder = dict(name="features", size=len(table), tokens=c.Q, width=8)
  found = apply(
    c.MODEL | dict(encoder=encoder),
    params | dict(encoder=dict(table=table)),
    showing(batch, keys=keys),
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_token_sees_what_comes_after_it(seen):
  """A picture's no less: nothing in them looks both ways."""
  batch, _, features = seen
  _, params, _ = c.model()
  module = llava.build(c.MODEL | dict(encoder=None))
  own = without_encoder(params)
  logits = jax.jit(
    lambda f: module.apply({"params": own}, showing(batch, features=f)).logits
  )
  before = np.asarray(logits(features))
  # Row 0: 3 9 m m m m 7 n n n n 8; token 2 of the first picture at place 4.
  for medium, token, place in ((0, 2, 4), (0, 0, 2), (1, 3, 10)):
    changed = features.copy()
    changed[0, medium, 0, token] += 1
    moved = np.abs(np.asarray(logits(changed)) - before).max(axis=-1) > 1e-5
    assert np.flatnonzero(moved[0]).tolist() == [*range(place, 12)]
    assert not moved[1:].any()


def test_the_last_layer_and_norm_of_the_encoder_are_not_needed(seen):
  """Nor what is in them: not even what is no number reaches anything."""
  batch, expected, _ = seen
  _, params, logits = c.model()
  encoder = params["encoder"]
  changed = {
    "layers": jax.tree.map(lambda x: x.copy(), encoder["layers"]),
    "post_norm": jax.tree.map(lambda x: x * np.nan, encoder["post_norm"]),
  }
  for x in jax.tree.leaves(changed["layers"]):
    x[-1] = np.nan
  found = logits(params | dict(encoder=encoder | changed), batch)
  np.testing.assert_array_equal(found, expected)
  for x in jax.tree.leaves(changed["layers"]):
    x[-2] = 0
  other = logits(params | dict(encoder=encoder | changed), batch)
  assert np.abs(other - expected).max() > 1e-2


def linear(x, layer):
  return x @ layer["kernel"] + layer["bias"]


def test_connectors_are_those_of_both_versions(seen):
  """One linear layer; and two with the exact GELU between them."""
  batch, _, features = seen
  _, params, _ = c.model()
  image, mask = batch["media"]["image"], batch["media"]["image"]["mask"]
  given = dict(features=features, mask=mask)
  first = features.astype(np.float64).reshape(4, c.MEDIA, c.Q, 8)
  own = params["connector"]
  hidden = linear(first, own["linear_1"])
  mlp = linear(hidden * (1 + erf(hidden / 2**0.5)) / 2, own["linear_2"])
  linear_only = {"linear_1": own["linear_1"]}
  for depth, weights, expected in ((1, linear_only, hidden), (2, own, mlp)):
    connector = dict(name="projection", width=16, depth=depth)
    module = llava.build(c.MODEL | dict(connector=connector))
    found = module.apply(
      {"params": params | dict(connector=weights)},
      given,
      method="media_tokens",
    )
    expected = expected * image["mask"][..., None]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def trained(stage, batch, microbatches=1):
  """The state before and after plain gradient descent."""
  module, params, _ = c.model()
  optimizer = optax.sgd(0.1)
  state, _ = init_state(
    module,
    batch,
    rules=STAGES[stage],
    optimizer=lambda _: optimizer,
    mesh=make_mesh(dict(data=1), jax.devices()[:1]),
    loaded=tree.flatten(params),
  )
  step = make_step(
    lambda params, batch: llava.loss(module, params, batch),
    optimizer,
    {"chats": 1.0},
    microbatches=microbatches,
  )
  compiled = jax.jit(step).lower(state, {"chats": batch}).compile()
  after, metrics = compiled(state, {"chats": batch})
  return state, after, metrics, compiled.as_text()


@pytest.mark.heavy
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_changes_what_trains_and_nothing_else(stage, seen):
  batch, _, _ = seen
  before, after, metrics, text = trained(stage, batch)
  assert not metrics["dropped"] and metrics["grad_norm"][0] > 1e-2
  parts = {"connector"} if stage == "pretrain" else {"connector", "lm"}
  assert after.trainable.keys() == parts
  old, new = tree.flatten(before.trainable), tree.flatten(after.trainable)
  for path, value in new.items():
    assert np.abs(value - old[path]).max() > 1e-6, path
  jax.tree.map(np.testing.assert_array_equal, after.frozen, before.frozen)
  # Those of a step in two halves, of which one has few images.
  _, halves, *_ = trained(stage, batch, microbatches=2)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    *(halves.trainable, after.trainable),
  )
  # And no work was done for what does not train.
  backward = r'op_name="[^"]*transpose\(jvp[^"]*'
  assert re.search(backward + "connector", text)
  assert re.search(r'op_name="[^"]*encoder', text)
  assert not re.search(backward + "encoder", text)


def test_text_alone_leaves_the_connector_as_it_was():
  batch = c.batch([[(5, 6, 11)], [(3, 4, 8, 9)], [], []])
  before, after, *_ = trained("finetune", batch)
  jax.tree.map(
    np.testing.assert_array_equal,
    after.trainable["connector"],
    before.trainable["connector"],
  )


# Sides of the pictures, of those that the table of positions is for, and of a
# patch; and the tokens of a picture.
SIZES = {
  "one token": ((8, 8), 8, 8, 1),
  "a grid of three": ((18, 18), 18, 6, 9),
  "other pictures than the table's": ((12, 30), 18, 6, 10),
  "a table of one": ((16, 8), 8, 8, 2),
}


@pytest.mark.parametrize("name", SIZES)
def test_pictures_of_every_size(name):
  sides, size, patch, tokens = SIZES[name]
  encoder = c.ENCODER | dict(image_size=size, patch=patch)
  module = llava.build(c.MODEL | dict(encoder=encoder))
  row = [(3, -1, -2, 7)], [(-2, -1, 5, 6)]
  fields = dict(tokens=tokens, sides=sides, media=2)
  batch = c.batch(row, length=2 * tokens + 2, **fields)
  params = c.drawn(module, batch)

  @jax.jit
  def run(params, batch):
    given = {"params": params}
    image = batch["media"]["image"]
    rows = module.apply(given, image, method="media_tokens")
    x = module.apply(given, batch, method="inputs")
    return rows, x, module.apply(given, batch).logits

  rows, x, logits = run(params, batch)
  assert np.isfinite(logits).all()
  assert rows.shape == (2, 2, tokens, 16)
  np.testing.assert_array_equal(x[0, 1 : 1 + tokens], rows[0, 0])
  np.testing.assert_array_equal(x[0, 1 + tokens : -1], rows[0, 1])
  np.testing.assert_array_equal(x[1, tokens:-2], rows[1, 1])
  np.testing.assert_allclose(rows[0], rows[1, ::-1], atol=1e-5)


def test_pictures_that_do_not_part_into_patches_are_refused():
  module, params, _ = c.model()
  batch = c.batch(ROWS, sides=(16, 20))
  with pytest.raises(ValueError, match="16 x 20 do not part into patches of 8"):
    module.apply({"params": params}, batch)


@pytest.mark.parametrize(
  "changes, said",
  [
    (dict(encodr=None), "takes no 'encodr'. Did you mean 'encoder'"),
    (dict(xattn={}), "LLaVA takes no 'xattn'"),
    (dict(connector=dict(name="projection", width=24)), r"width=16"),
    (dict(connector=dict(name="projektion", width=16)), "'projection'"),
    (dict(connector=dict(name="projection", depht=2)), "'depth'"),
    (dict(connector=dict(name="projection")), "needs 'width'"),
    (dict(encoder=c.ENCODER | dict(output_leyer=-2)), "'output_layer'"),
    (dict(lm=dict(c.MODEL["lm"], num_layer=2)), "'num_layers'"),
    (dict(lm=dict(c.MODEL["lm"], name="lama")), "'llama'"),
  ],
)
def test_wrong_settings_name_the_right_ones(changes, said):
  with pytest.raises(ValueError, match=said):
    llava.build(c.MODEL | changes)


def test_missing_parts_are_named():
  for part in ("lm", "connector"):
    model = {k: v for k, v in c.MODEL.items() if k != part}
    with pytest.raises(ValueError, match=f"config.model has no '{part}'"):
      llava.build(model)


@pytest.mark.parametrize(
  "changes, said",
  [
    (dict(encoder=None), "brings pixels, but this model has no encoder"),
    (dict(encoder=c.ENCODER | dict(output_layer=-4)), "-1 .the last. to -3"),
    (
      dict(connector=dict(name="projection", width=16, depth=0)),
      "Features are 8 wide, the language model 16",
    ),
    (
      dict(connector=dict(name="projection", width=16, activation="gelo")),
      "Did you mean 'gelu'",
    ),
  ],
)
def test_what_a_batch_shows_to_be_wrong(changes, said):
  module = llava.build(c.MODEL | changes)
  with pytest.raises(ValueError, match=said):
    jax.eval_shape(module.init, jax.random.key(0), c.batch(ROWS))
