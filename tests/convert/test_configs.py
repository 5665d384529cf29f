"""Settings of Hugging Face's config.json, to ours and back."""

import pytest

from mmjax.convert.configs import LM_CONFIGS, hugging_face

_COMMON = dict(
  vocab_size=53, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
)
BASE = {
  "llama": _COMMON | dict(intermediate_size=48),
  "opt": _COMMON | dict(ffn_dim=64, max_position_embeddings=20),
  "mpt": dict(vocab_size=53, d_model=32, n_layers=2, n_heads=4),
  "gpt_neox": _COMMON | dict(intermediate_size=64),
}


def fields(family, **changes):
  return LM_CONFIGS[family][1](BASE[family] | changes)


def holds(config, part):
  """Whether a config says all that `part` says, nested settings included."""
  return all(
    holds(config[k], v) if isinstance(v, dict) else config[k] == v
    for k, v in part.items()
  )


@pytest.mark.parametrize(
  "family, theirs, ours",
  [
    ("llama", dict(attention_bias=True), dict(attention_bias=True)),
    ("llama", dict(mlp_bias=True), dict(mlp_bias=True)),
    ("llama", dict(head_dim=6), dict(head_dim=6)),
    ("llama", dict(rope_theta=5e5), dict(rope_base=5e5)),
    ("mpt", dict(expansion_ratio=2), dict(hidden=64)),
    ("mpt", dict(expansion_ratio=1.25), dict(hidden=40)),
    ("mpt", dict(attn_config=dict(softmax_scale=0.3)), dict(scale=0.3)),
    ("mpt", dict(attn_config=dict(clip_qkv=6)), dict(clip=6)),
    ("mpt", dict(attn_config=dict(alibi_bias_max=4)), dict(max_bias=4.0)),
    ("mpt", dict(attn_config=dict(alibi_bias_max=4.5)), dict(max_bias=4.5)),
    ("opt", dict(do_layer_norm_before=False), dict(pre_norm=False)),
    ("opt", dict(word_embed_proj_dim=8), dict(embed_width=8)),
    ("gpt_neox", dict(rotary_pct=0.5), dict(rotary_fraction=0.5)),
    ("gpt_neox", dict(hidden_act="gelu_new"), dict(activation="gelu_tanh")),
  ],
)
def test_an_option_there_and_back(family, theirs, ours):
  found = fields(family, **theirs)
  assert {key: found[key] for key in ours} == ours
  back = hugging_face(family, found)
  assert holds(back, BASE[family])
  assert LM_CONFIGS[family][1](back) == found
  if "hidden_act" not in theirs:  # gelu_new has several names.
    assert holds(back, theirs)


@pytest.mark.parametrize(
  "family, changes, message",
  [
    ("llama", dict(hidden_act="gelu"), "hidden_act"),
    ("llama", dict(rope_parameters=dict(type="linear")), "type='linear'"),
    ("llama", dict(rope_scaling=dict(type="dynamic")), "rope_scaling"),
    ("gpt_neox", dict(rope_parameters=dict(type="linear")), "type='linear'"),
    ("gpt_neox", dict(attention_bias=False), "attention_bias"),
    ("opt", dict(enable_bias=False), "enable_bias"),
    ("opt", dict(_remove_final_layer_norm=True), "final_layer_norm"),
    ("opt", dict(layer_norm_elementwise_affine=False), "elementwise"),
    ("opt", dict(activation_function="tanh"), "'tanh'"),
    ("mpt", dict(no_bias=False), "no_bias"),
    ("mpt", dict(logit_scale="inv_sqrt_d_model"), "logit_scale"),
    ("mpt", dict(norm_type="low_precision_rmsnorm"), "norm_type"),
    ("mpt", dict(attn_config=dict(alibi=False)), "alibi"),
    ("mpt", dict(attn_config=dict(prefix_lm=True)), "prefix_lm"),
    ("mpt", dict(attn_config=dict(sliding_window_size=4)), "sliding_window"),
    ("mpt", dict(attn_config=dict(clip_qkv=0)), "clip_qkv"),
    ("mpt", dict(model_type="mosaic_gpt", mlp_ratio=4), "alibi"),
  ],
)
def test_what_our_modules_have_not(family, changes, message):
  with pytest.raises(ValueError, match=message):
    fields(family, **changes)


def test_mpt_as_transformers_4_saves_it():
  """A nested config without what is its default."""
  assert fields("mpt", attn_config={"model_type": ""}) == fields("mpt")


def test_where_two_codes_of_mpt_disagree(caplog):
  fields("mpt", attn_config=dict(alibi_bias_max=4))
  assert "alibi_bias_max is 4" in caplog.text
