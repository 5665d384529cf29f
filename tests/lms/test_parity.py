"""Each language-model family against Hugging Face's PyTorch module."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import linen as nn

from mmjax.convert.families import lms as rules
from mmjax.convert.rules import load, save
from mmjax.lms.gpt_neox import gpt_neox
from mmjax.lms.llama import llama
from mmjax.lms.mpt import mpt
from mmjax.lms.opt import opt

COMMON = dict(vocab_size=53, width=32, num_layers=3, num_heads=4)


def hf(name, **kwargs):
  config = getattr(transformers, f"{name}Config")(**kwargs)
  torch.manual_seed(0)
  model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
  with torch.no_grad():
    for p in model.parameters():
      p.normal_(0.0, 0.15 if p.ndim > 1 else 0.5)
  return model


def llama_case(**kwargs):
  tied = kwargs.pop("tied", False)
  ours = llama(
    **COMMON, hidden=48, tie_embeddings=tied, norm_eps=1e-5, **kwargs
  )
  theirs = hf(
    "Llama",
    vocab_size=53,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=kwargs.get("num_kv_heads", 4),
    intermediate_size=48,
    tie_word_embeddings=tied,
    rms_norm_eps=1e-5,
    attention_bias=kwargs.get("attention_bias", False),
    mlp_bias=kwargs.get("mlp_bias", False),
  )
  return ours, theirs, rules.llama(tied)


def opt_case(pre_norm=True, embed_width=None, tied=True):
  ours = opt(
    **COMMON,
    hidden=64,
    pre_norm=pre_norm,
    embed_width=embed_width,
    max_positions=20,
    tie_embeddings=tied,
  )
  theirs = hf(
    "OPT",
    vocab_size=53,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    ffn_dim=64,
    max_position_embeddings=20,
    do_layer_norm_before=pre_norm,
    word_embed_proj_dim=embed_width or 32,
    tie_word_embeddings=tied,
  )
  return ours, theirs, rules.opt(tied)


def mpt_case(num_heads=4, clip=None, scale=None, eps=1e-5, tied=True):
  common = COMMON | dict(num_heads=num_heads, width=8 * num_heads)
  options = dict(clip=clip, scale=scale, norm_eps=eps, tie_embeddings=tied)
  ours = mpt(**common, hidden=32 * num_heads, **options)
  theirs = hf(
    "Mpt",
    vocab_size=53,
    d_model=8 * num_heads,
    n_layers=3,
    n_heads=num_heads,
    max_seq_len=20,
    attn_config=dict(alibi=True, clip_qkv=clip, softmax_scale=scale),
    layer_norm_epsilon=eps,
    tie_word_embeddings=tied,
  )
  return ours, theirs, rules.mpt(tied)


def neox_case(parallel=True, fraction=0.5):
  ours = gpt_neox(
    **COMMON, hidden=64, parallel=parallel, rotary_fraction=fraction
  )
  theirs = hf(
    "GPTNeoX",
    vocab_size=53,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    rotary_pct=fraction,
    use_parallel_residual=parallel,
  )
  return ours, theirs, rules.gpt_neox()


CASES = {
  "llama": llama_case,
  "llama_grouped_tied": lambda: llama_case(num_kv_heads=2, tied=True),
  "llama_attention_biases": lambda: llama_case(attention_bias=True),
  "llama_mlp_biases": lambda: llama_case(mlp_bias=True, num_kv_heads=1),
  "opt": opt_case,
  "opt_350m_style": lambda: opt_case(False, 16),
  "opt_350m_style_untied": lambda: opt_case(False, 16, tied=False),
  "mpt": mpt_case,
  "mpt_large_eps_untied": lambda: mpt_case(eps=0.1, tied=False),
  "mpt_six_heads_clipped": lambda: mpt_case(6, 0.4),
  "mpt_scaled_scores": lambda: mpt_case(2, scale=0.9),
  "neox": neox_case,
  "neox_sequential_full_rotary": lambda: neox_case(False, 1.0),
}


def state_dict(model):
  buffers = re.compile("|".join(rules.BUFFERS))
  state = {
    k: v.numpy()
    for k, v in model.state_dict().items()
    if not buffers.fullmatch(k)
  }
  if model.config.tie_word_embeddings:
    state.pop("lm_head.weight", None)
  return state


@pytest.mark.parametrize("name", CASES)
def test_logits_and_round_trip(name):
  ours, theirs, table = CASES[name]()
  tokens = np.random.RandomState(0).randint(0, 53, (2, 12))
  mask = np.ones((2, 12), np.int32)
  mask[1, 8:] = 0
  with torch.no_grad():
    expected = theirs(
      torch.tensor(tokens), attention_mask=torch.tensor(mask)
    ).logits.numpy()
  positions = np.broadcast_to(np.arange(12), (2, 12))
  inputs = jnp.asarray(tokens), jnp.asarray(positions), jnp.asarray(mask)
  shapes = nn.unbox(jax.eval_shape(ours.init, jax.random.key(0), *inputs))
  state = state_dict(theirs)
  params = load(state, table, shapes["params"])

  logits, _ = jax.jit(ours.apply)({"params": params}, *inputs)

  scale = np.abs(expected).max()
  error = np.abs(np.asarray(logits) - expected)[mask > 0].max() / scale
  assert error <= 1e-5, error
  back = save(params, table)
  head = {"lm_head.weight": "embed_out.weight"}
  state = {head.get(k, k) if "neox" in name else k: v for k, v in state.items()}
  assert back.keys() == state.keys()
  for key, value in state.items():
    np.testing.assert_array_equal(back[key], value, err_msg=key)
