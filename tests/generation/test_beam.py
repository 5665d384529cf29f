"""Beam search against Hugging Face's, on a LLaMA that often stops."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from mmjax.convert.families import lms as rules
from mmjax.convert.rules import load
from mmjax.generation.beam import beam_search
from mmjax.lms import LMS
from mmjax.systems.text import TextModel
from tests.lms.test_parity import state_dict

# The original takes a pad of 0 for none.
VOCAB, STOP, PAD, WIDTH, NEW, BEAMS, ROWS = 11, 5, 1, 4, 8, 3, 64


@pytest.fixture(scope="module")
def models():
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    rms_norm_eps=1e-6,
    bos_token_id=None,
    eos_token_id=STOP,
    pad_token_id=PAD,
  )
  theirs = transformers.LlamaForCausalLM(config).eval()
  with torch.no_grad():
    for p in theirs.parameters():
      p.normal_(0.0, 0.35 if p.ndim > 1 else 1.0)
  size = dict(vocab_size=VOCAB, width=16, num_layers=1, num_heads=2, hidden=16)
  ours = TextModel(LMS["llama"](**size))
  one = jnp.ones((1, 1), jnp.int32)
  batch = dict(tokens=one, positions=one, segments=one)
  shapes = nn.unbox(jax.eval_shape(ours.init, jax.random.key(0), batch))
  shapes = shapes["params"]["lm"]
  return theirs, ours, {"lm": load(state_dict(theirs), rules.llama(), shapes)}


def prompts():
  """Of one to four tokens, padded on the left."""
  random = np.random.RandomState(1)
  tokens = random.randint(6, VOCAB, (ROWS, WIDTH))
  mask = np.arange(WIDTH) >= random.randint(0, WIDTH, (ROWS, 1))
  return np.where(mask, tokens, PAD), mask.astype(np.int64)


@pytest.mark.parametrize("penalty", [0.0, 2.0, -1.0])
def test_all_beams_and_their_scores(models, penalty):
  theirs, ours, params = models
  tokens, mask = prompts()
  with torch.no_grad():
    expected = theirs.generate(
      torch.tensor(tokens),
      attention_mask=torch.tensor(mask),
      max_new_tokens=NEW,
      num_beams=BEAMS,
      num_return_sequences=BEAMS,
      length_penalty=penalty,
      early_stopping=False,
      do_sample=False,
      pad_token_id=PAD,
      return_dict_in_generate=True,
      output_scores=True,
    )
  batch = dict(
    tokens=jnp.asarray(tokens),
    segments=jnp.asarray(mask, jnp.int32),
    positions=jnp.maximum(jnp.cumsum(jnp.asarray(mask), 1) - 1, 0),
  )
  found = beam_search(
    ours,
    params,
    batch,
    max_new_tokens=NEW,
    num_beams=BEAMS,
    stop=STOP,
    length_penalty=penalty,
    pad=PAD,
  )
  wanted = expected.sequences[:, WIDTH:].numpy().reshape(ROWS, BEAMS, -1)
  length = wanted.shape[-1]
  np.testing.assert_array_equal(found.tokens[..., :length], wanted)
  assert (found.tokens[..., length:] == PAD).all()
  scores = expected.sequences_scores.numpy().reshape(ROWS, BEAMS)
  np.testing.assert_allclose(found.scores, scores, atol=1e-4)
  ended = (wanted == STOP).any(axis=-1)
  assert 0 < ended.mean() < 1, "the test needs both kinds"
