"""SmolLM2-135M from its package, against transformers on the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import linen as nn

from mmjax import tree
from mmjax.lms import LMS
from mmjax.lms.llama import SIZES
from mmjax.training import sources

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def tokenizer():
  return sources.smollm2_tokenizer()


@pytest.fixture(scope="module")
def ours():
  module = LMS["llama"](**SIZES["smollm2_135m"])
  one = jnp.ones((1, 1), jnp.int32)
  shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), *[one] * 3))
  flat = sources.smollm2_weights(tree.flatten(shapes["params"]))
  return module, tree.unflatten(flat)


@pytest.fixture(scope="module")
def theirs(ours):
  file = sources.smollm2()
  model = transformers.AutoModelForCausalLM.from_pretrained(
    str(file.path.parent), gguf_file=file.path.name, dtype=torch.float32
  ).eval()
  # transformers leaves the tied head as it was drawn.
  model.lm_head.weight = model.model.embed_tokens.weight
  return model


@pytest.fixture(scope="module")
def reference():
  path = sources.smollm2().path
  return transformers.AutoTokenizer.from_pretrained(
    str(path.parent), gguf_file=path.name
  )


@pytest.mark.heavy
def test_same_logits_and_greedy_tokens(ours, theirs, tokenizer):
  module, params = ours
  tokens = tokenizer.encode(PROMPT)
  with torch.no_grad():
    expected = theirs(torch.tensor([tokens])).logits[0].numpy()
    greedy = theirs.generate(
      torch.tensor([tokens]), max_new_tokens=6, do_sample=False
    )[0].tolist()

  length = len(greedy)
  positions = jnp.arange(length)[None]

  params = jax.tree.map(jnp.asarray, params)

  @jax.jit
  def apply(params, ids):
    return module.apply(
      {"params": params}, ids[None], positions, jnp.ones_like(ids)[None]
    )[0][0]

  def logits(ids):
    return apply(params, ids)

  ids = np.zeros(length, np.int32)
  ids[: len(tokens)] = tokens
  first = np.asarray(logits(ids))[: len(tokens)]
  error = np.abs(first - expected).max() / np.abs(expected).max()
  assert error <= 1e-4, error
  for at in range(len(tokens), length):
    ids[at] = int(logits(ids)[at - 1].argmax())
  assert ids.tolist() == greedy
  assert "Paris" in tokenizer.decode(greedy)


@pytest.mark.parametrize(
  "text",
  [
    PROMPT,
    "  two  spaces\nand 12345 digits, l'été — naïve",
    "<|im_start|>user",
    "",
  ],
)
def test_same_ids(text, reference, tokenizer):
  expected = reference(
    text, add_special_tokens=False, split_special_tokens=True
  )
  assert tokenizer.encode(text) == expected.input_ids
  assert tokenizer.decode(tokenizer.encode(text)) == text
