"""A Q-Former that begins as MiniLM reads text as a BERT without token types."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from mmjax import tree
from mmjax.connectors.qformer import QFormer, visible
from mmjax.convert.packages import package_file
from mmjax.lms.bert import Bert
from mmjax.training import minilm


@pytest.fixture(scope="module")
def made():
  module = QFormer(features_width=8, num_queries=2, **minilm.SIZES)
  text = jnp.zeros((1, 4), jnp.int32)
  shapes = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, 3, 8)), None, text
  )
  flat = tree.flatten(nn.unbox(shapes)["params"])
  found = minilm.minilm_qformer(flat)
  left = {path.split("/")[0] for path in flat if path not in found}
  assert left == {"cross", "queries"}
  zeros = {k: np.zeros(flat[k].shape, np.float32) for k in flat}
  return module, tree.unflatten(zeros | found), found


def test_the_text_encoder_is_the_model():
  file = package_file(*minilm.PACKAGE, ".safetensors", minilm.WEIGHTS)
  theirs = transformers.BertModel.from_pretrained(file.parent).eval()
  module, ids = Bert(**minilm.SIZES), np.array([[101, 1037, 4937, 102]])
  rest = np.arange(4)[None], np.ones((1, 4), np.int32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), ids, *rest)
  flat = tree.flatten(nn.unbox(shapes)["params"])
  found = minilm.minilm_bert(flat)
  assert found.keys() == flat.keys()
  params = {"params": tree.unflatten(found)}
  with torch.no_grad():
    expected = theirs(torch.from_numpy(ids)).last_hidden_state
  ours = jax.jit(module.apply)(params, ids, *rest)
  np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_it_reads_text_as_the_model_does(made):
  module, params, _ = made
  file = package_file(*minilm.PACKAGE, ".safetensors", minilm.WEIGHTS)
  theirs = transformers.BertModel.from_pretrained(file.parent)
  theirs.embeddings.token_type_embeddings.weight.data.zero_()
  tokenizer = minilm.minilm_tokenizer()
  ids = [tokenizer.bos, *tokenizer.encode("A quiet dog."), tokenizer.eos]
  assert tokenizer.decode(ids[1:-1]) == "a quiet dog."
  text = np.array([ids], np.int32)
  # Text that does not see the queries, as for the contrastive loss.
  table = visible("apart", 2, text != 0)
  run = jax.jit(lambda *x: module.apply({"params": params}, *x))
  ours = run(jnp.zeros((1, 3, 8)), None, text, table)
  with torch.no_grad():
    expected = theirs.eval()(torch.tensor(text.astype(np.int64)))
  np.testing.assert_allclose(ours[:, 2:], expected.last_hidden_state, atol=2e-5)


def test_queries_begin_with_the_texts_mlps(made):
  _, _, found = made
  twins = [path for path in found if "text_mlp" in path]
  assert len(twins) == 6
  for path in twins:
    other = path.replace("text_mlp", "query_mlp")
    np.testing.assert_array_equal(found[path], found[other])
