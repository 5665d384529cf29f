"""The Q-Former: sizes, who sees whom, padding, and Hugging Face's twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn
from transformers import InstructBlipQFormerConfig
from transformers.models.instructblip.modeling_instructblip import (
  InstructBlipQFormerModel,
)

from mmjax import tree
from mmjax.connectors.qformer import QFormer, visible
from mmjax.convert.families import qformer as family
from mmjax.convert.rules import load, save
from mmjax.tree import count

SMALL = dict(
  features_width=12,
  width=16,
  num_heads=2,
  num_queries=3,
  hidden=24,
  vocab_size=20,
  max_positions=10,
)
# E to the parameters with and without text, queries not counted (LAVIS').
COUNTS = {
  1408: (185_660_160, 105_137_664),
  1280: (184_480_512, 103_958_016),
  1024: (182_121_216, 101_598_720),
  768: (179_761_920, 99_239_424),
  512: (177_402_624, 96_880_128),
}


def shapes_of(module):
  features = jnp.zeros((1, 1, module.features_width))
  made = jax.eval_shape(module.init, jax.random.key(0), features)
  return nn.unbox(made)["params"]


@pytest.mark.parametrize("width", COUNTS)
def test_counts_of_published_sizes(width):
  whole, queries_only = COUNTS[width]
  assert count(shapes_of(QFormer(width))) == whole + 32 * 768
  alone = QFormer(width, vocab_size=0)
  assert count(shapes_of(alone)) == queries_only + 32 * 768


def drawn(module, seed=0):
  random = np.random.RandomState(seed)
  return jax.tree_util.tree_map_with_path(
    lambda path, x: jnp.asarray(
      0.3 * random.standard_normal(x.shape) + (path[-1].key == "scale"),
      jnp.float32,
    ),
    shapes_of(module),
  )


TABLES = {
  "together": "11111 11111 11111 11111 11111",
  "apart": "11100 11100 11100 00011 00011",
  "captioning": "11100 11100 11100 11110 11111",
}


@pytest.mark.parametrize("how", TABLES)
def test_who_sees_whom(how):
  found = visible(how, 3, jnp.array([[True, True], [True, False]]))
  rows = [[int(c) for c in row] for row in TABLES[how].split()]
  assert found.shape == (2, 1, 5, 5)
  np.testing.assert_array_equal(found[0, 0], rows)
  # Padding is seen by nobody.
  np.testing.assert_array_equal(found[1, 0], np.array(rows) * [1, 1, 1, 1, 0])


def test_an_unknown_way_to_see_is_refused():
  with pytest.raises(ValueError, match="Did you mean 'together'"):
    visible("togther", 3, jnp.ones((1, 2), bool))


@pytest.fixture(scope="module")
def small():
  module = QFormer(num_layers=3, **SMALL)
  return module, drawn(module), jax.jit(module.apply)


def inputs(seed=1):
  random = np.random.RandomState(seed)
  features = random.standard_normal((2, 5, 12)).astype(np.float32)
  return jnp.asarray(features), jnp.asarray(random.randint(1, 20, (2, 4)))


def test_matrices_are_drawn_as_berts():
  """N(0, 0.02) for every width of the features."""
  fields = dict(width=64, num_heads=4, num_layers=2, vocab_size=50)
  for width in (32, 256):
    module = QFormer(features_width=width, **fields)
    shapes = (jnp.zeros((1, 2, width)), None, jnp.ones((1, 3), int))
    params = nn.unbox(module.init(jax.random.key(0), *shapes)["params"])
    drawn = {
      path: float(x.std())
      for path, x in tree.flatten(params).items()
      if path.endswith(("/kernel", "queries", "table"))
    }
    assert len(drawn) == 12 + 3, drawn.keys()
    for path, std in drawn.items():
      assert std == pytest.approx(0.02, rel=0.1), path


def test_padding_changes_nothing(small):
  module, params, run = small
  features, text = inputs()
  there = jnp.ones(text.shape, bool)
  seen = jnp.ones(features.shape[:2], bool)
  expected = run(
    {"params": params}, features, seen, text, visible("together", 3, there)
  )
  wide = jnp.pad(features, ((0, 0), (0, 2), (0, 0)), constant_values=7)
  long = jnp.pad(text, ((0, 0), (0, 3)), constant_values=5)
  there = jnp.pad(there, ((0, 0), (0, 3)))
  seen = jnp.pad(seen, ((0, 0), (0, 2)))
  found = run(
    {"params": params}, wide, seen, long, visible("together", 3, there)
  )
  np.testing.assert_allclose(found[:, :7], expected, atol=2e-6)


def test_the_text_matters_only_where_it_is_seen(small):
  module, params, run = small
  features, text = inputs()
  there = jnp.ones(text.shape, bool)
  given = {"params": params}
  alone = run(given, features)
  for how in ("apart", "captioning"):
    found = run(given, features, None, text, visible(how, 3, there))
    np.testing.assert_allclose(found[:, :3], alone, atol=2e-6)
  apart = run(given, features, None, text, visible("apart", 3, there))
  read = module.apply(given, text, there[:, None, None], method="read")
  np.testing.assert_allclose(apart[:, 3:], read, atol=2e-6)
  told = run(given, features, None, text, visible("together", 3, there))
  assert np.abs(told[:, :3] - alone).max() > 0.1


def test_one_feature_leaves_nothing_to_choose(small):
  """As of a 3D encoder: the weights of queries and keys have no effect."""
  _, params, run = small
  features, _ = inputs()
  cross = params["cross"] | {
    name: jax.tree.map(lambda w: w + 1, params["cross"][name])
    for name in ("query", "key")
  }
  other = params | {"cross": cross}
  one = features[:, :1]
  np.testing.assert_allclose(
    run({"params": params}, one), run({"params": other}, one), atol=1e-6
  )
  several = [run({"params": p}, features) for p in (params, other)]
  assert np.abs(several[0] - several[1]).max() > 0.01


def test_what_does_not_fit_is_refused(small):
  module, params, _ = small
  features, _ = inputs()
  long = jnp.zeros((2, 11), jnp.int32)
  with pytest.raises(ValueError, match="11 tokens, the position table 10"):
    module.apply({"params": params}, features, None, long)
  mute = QFormer(num_layers=1, **SMALL | dict(vocab_size=0))
  with pytest.raises(ValueError, match="reads no text"):
    mute.apply({"params": drawn(mute)}, features, None, long)
  for wrong in (dict(cross_every=0), dict(num_queries=0)):
    with pytest.raises(ValueError, match="expected 1 or more"):
      shapes_of(QFormer(num_layers=1, **SMALL | wrong))
  with pytest.raises(ValueError, match="from 0 to below 1"):
    shapes_of(QFormer(num_layers=1, dropout=1.0, **SMALL))
  with pytest.raises(ValueError, match="16 does not part into 3 heads"):
    shapes_of(QFormer(num_layers=1, **SMALL | dict(num_heads=3)))


@pytest.fixture(scope="module")
def training():
  """A loss with dropout and its gradients, by the way layers are kept."""

  def make(remat):
    module = QFormer(num_layers=3, dropout=0.3, remat=remat, **SMALL)
    features, text = inputs()
    table = visible("together", 3, jnp.ones(text.shape, bool))

    def loss(params, key):
      rngs = {} if key is None else {"dropout": key}
      given = (features, None, text, table)
      return jnp.square(
        module.apply({"params": params}, *given, rngs=rngs)
      ).sum()

    return jax.jit(jax.value_and_grad(loss))

  return {remat: make(remat) for remat in ("none", "full")}


def test_dropout_is_of_training_alone(small, training):
  module, params, run = small
  features, text = inputs()
  table = visible("together", 3, jnp.ones(text.shape, bool))
  dropping = QFormer(num_layers=3, dropout=0.3, **SMALL)
  alone = dropping.apply({"params": params}, features, None, text, table)
  plain = module.apply({"params": params}, features, None, text, table)
  np.testing.assert_array_equal(alone, plain)
  keys = [None, jax.random.key(0), jax.random.key(1), jax.random.key(0)]
  found = [training["none"](params, key) for key in keys]
  losses = [float(value) for value, _ in found]
  assert len(set(losses)) == 3 and losses[1] == losses[3]
  # What is computed again leaves out the same.
  again = training["full"](params, keys[1])
  np.testing.assert_allclose(again[0], losses[1], rtol=1e-6)
  for one, other in zip(*(jax.tree.leaves(x[1]) for x in (found[1], again))):
    assert np.isfinite(one).all()
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_dropout_is_everywhere_that_bert_has_it(small):
  _, params, _ = small
  features, text = inputs()
  module = QFormer(num_layers=2, dropout=0.5, **SMALL)
  params = jax.tree.map(lambda x: x, params)
  params["layers"] = jax.tree.map(lambda x: x[:2], params["layers"])
  params["cross"] = jax.tree.map(lambda x: x[:1], params["cross"])
  there = jnp.ones(text.shape, bool)
  args = (features, None, text, visible("together", 3, there))
  places = []

  def watched(next_fun, given, kwargs, context):
    # Rows of one are of the shapes of parameters.
    if isinstance(context.module, nn.Dropout) and len(given[0]) == 2:
      places.append(given[0].shape)
    return next_fun(*given, **kwargs)

  rngs = {"dropout": jax.random.key(0)}
  with nn.intercept_methods(watched):
    jax.eval_shape(lambda: module.apply({"params": params}, *args, rngs=rngs))
  one = [
    (2, 2, 1, 7, 7),  # weights of 2 heads among 3 queries and 4 tokens
    (2, 7, 16),
    (2, 2, 1, 3, 5),  # and of the queries with 5 features
    (2, 3, 16),
    (2, 3, 16),  # both MLPs
    (2, 4, 16),
  ]
  other = [one[0], one[1], one[4], one[5]]
  assert places == [(2, 7, 16), *one, *other]


@pytest.mark.parametrize("layers, every", [(2, 2), (3, 2), (3, 1), (4, 3)])
def test_hugging_faces_twin(layers, every):
  config = InstructBlipQFormerConfig(
    vocab_size=20,
    hidden_size=16,
    num_hidden_layers=layers,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=10,
    cross_attention_frequency=every,
    encoder_hidden_size=12,
  )
  torch.manual_seed(0)
  theirs = InstructBlipQFormerModel(config).eval()
  with torch.no_grad():
    for p in theirs.parameters():
      p.normal_(0.0, 0.3)
  state = {k: v.numpy() for k, v in theirs.state_dict().items()}
  queries = np.random.RandomState(3).standard_normal((1, 3, 16))
  queries = queries.astype(np.float32)
  module = QFormer(num_layers=layers, cross_every=every, **SMALL)
  table = family.hugging_face(layers, every, instructed=True)
  table = [*table, family.queries()]
  params = load(
    state | {"query_tokens": queries},
    table,
    shapes_of(module),
    ignore=family.BUFFERS.fullmatch,
  )
  back = save(params, table)
  for name, value in state.items():
    if not family.BUFFERS.fullmatch(name):
      np.testing.assert_array_equal(back.pop(name), value)
  np.testing.assert_array_equal(back.pop("query_tokens"), queries)
  assert not back

  features, text = inputs()
  there = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
  seen = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
  with torch.no_grad():
    expected = theirs(
      input_ids=torch.tensor(np.asarray(text)),
      attention_mask=torch.tensor(np.pad(there, ((0, 0), (3, 0)), mode="edge")),
      query_embeds=torch.tensor(np.repeat(queries, 2, 0)),
      encoder_hidden_states=torch.tensor(np.asarray(features)),
      encoder_attention_mask=torch.tensor(seen),
    ).last_hidden_state[:, :3]
  found = module.apply(
    {"params": params},
    features,
    jnp.asarray(seen > 0),
    text,
    visible("together", 3, jnp.asarray(there > 0)),
  )
  np.testing.assert_allclose(found[:, :3], expected, atol=1e-5)
