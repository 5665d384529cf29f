"""BERT against Hugging Face's, its published sizes, padding and packing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn
from transformers import BertConfig, BertModel

from mmjax.convert.families import bert as family
from mmjax.convert.rules import load, save
from mmjax.lms.bert import Bert, bert
from mmjax.tree import count


def shapes_of(model):
  one = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  variables = jax.eval_shape(model.init, jax.random.key(0), one, one, one)
  return nn.unbox(variables)["params"]


@pytest.fixture(scope="module")
def pair():
  """A reference, our module, and its weights as parameters."""
  config = BertConfig(
    vocab_size=30,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=16,
  )
  torch.manual_seed(0)
  theirs = BertModel(config).eval()
  with torch.no_grad():
    for p in theirs.parameters():
      p.normal_(0.0, 0.2 if p.ndim > 1 else 0.5)
  ours = Bert(
    width=32,
    num_layers=3,
    num_heads=4,
    vocab_size=30,
    hidden=48,
    max_positions=16,
    pooler=True,
  )
  state = {k: v.numpy() for k, v in theirs.state_dict().items()}
  params = load(state, family.bert(), shapes_of(ours))
  return theirs, ours, jax.tree.map(jnp.asarray, params)


def test_hidden_states_and_pooler(pair):
  theirs, ours, params = pair
  random = np.random.RandomState(0)
  tokens, types = random.randint(0, 30, (2, 9)), random.randint(0, 2, (2, 9))
  mask = np.ones((2, 9), np.int32)
  mask[1, 6:] = 0
  with torch.no_grad():
    expected = theirs(
      torch.tensor(tokens),
      attention_mask=torch.tensor(mask),
      token_type_ids=torch.tensor(types),
    )
  positions = np.broadcast_to(np.arange(9), (2, 9))
  hidden = ours.apply(
    {"params": params}, *map(jnp.asarray, (tokens, positions, mask, types))
  )
  pooled = ours.apply({"params": params}, hidden, method="pooled")
  theirs = expected.last_hidden_state.numpy()
  error = np.abs(np.asarray(hidden) - theirs)[mask > 0].max()
  assert error <= 1e-5 * np.abs(theirs).max()
  assert np.abs(pooled - expected.pooler_output.numpy()).max() <= 1e-5


def test_packed_texts_do_not_see_each_other(pair):
  _, ours, params = pair
  tokens = jnp.asarray(np.random.RandomState(0).randint(0, 30, (1, 7)))
  positions = jnp.array([[0, 1, 2, 0, 1, 2, 3]])
  segments = jnp.array([[1, 1, 1, 2, 2, 2, 2]])
  packed = ours.apply({"params": params}, tokens, positions, segments)
  alone = ours.apply(
    {"params": params},
    tokens[:, 3:],
    positions[:, 3:],
    jnp.ones((1, 4), jnp.int32),
  )
  np.testing.assert_allclose(packed[:, 3:], alone, atol=1e-5)


@pytest.mark.parametrize("root", ["", "bert."])
def test_weights_return_bit_by_bit(pair, root):
  theirs, ours, params = pair
  rules = family.bert(root)
  back = save(jax.tree.map(np.asarray, params), rules)
  state = {root + k: v.numpy() for k, v in theirs.state_dict().items()}
  assert back.keys() == state.keys()
  for name, value in state.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)
  old = {
    k.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): v
    for k, v in state.items()
  }
  again = load(old, rules, shapes_of(ours))
  jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize(
  "variant, expected",
  [("base", 109_482_240), ("large", 335_141_888), ("mini", 11_170_560)],
)
def test_published_counts(variant, expected):
  """Of `BertModel` with its pooler, as Hugging Face builds them."""
  assert count(shapes_of(bert(variant, pooler=True))) == expected
