"""A LLaMA that often stops, ours and Hugging Face's, and prompts of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from mmjax.convert.families import lms as rules
from mmjax.convert.rules import load
from mmjax.lms import LMS
from mmjax.systems.text import TextModel
from tests.lms.test_parity import state_dict

# The original takes a pad of 0 for none.
VOCAB, STOP, PAD, WIDTH, ROWS = 11, 5, 1, 4, 64


def models():
  """Hugging Face's, our module and our parameters."""
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


def prompts(padded=True):
  """Of one to four tokens, padded on the left; or all of four."""
  random = np.random.RandomState(1)
  tokens = random.randint(6, VOCAB, (ROWS, WIDTH))
  mask = np.arange(WIDTH) >= random.randint(0, WIDTH, (ROWS, 1)) * padded
  return np.where(mask, tokens, PAD), mask.astype(np.int64)


def batch_of(tokens, mask):
  """Our batch of such prompts."""
  return dict(
    tokens=jnp.asarray(tokens),
    segments=jnp.asarray(mask, jnp.int32),
    positions=jnp.maximum(jnp.cumsum(jnp.asarray(mask), 1) - 1, 0),
  )
