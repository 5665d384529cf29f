"""Our weights in the open_flamingo package: same keys, equal logits."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import linen as nn

from configs.flamingo.demo import get_config
from mmjax.convert.families.flamingo import open_flamingo
from mmjax.convert.rules import load, save
from mmjax.systems.flamingo import build
from tests.timm_import import import_open_flamingo

IMAGE, END = 48, 47


def shrunk():
  """The demo's model, narrower: what its config says is what is tested."""
  config = get_config().model
  config.lm.update(vocab_size=50, width=32, num_layers=3, hidden=48)
  config.resampler.update(width=16, head_dim=8, hidden=32)
  config.encoder = None
  config.xattn.update(hidden=64, num_heads=2, head_dim=8)
  return config


def theirs(config):
  """open_flamingo's Flamingo around a small LLaMA, with our sizes."""
  module = import_open_flamingo()
  from open_flamingo.src import flamingo_lm, helpers
  from open_flamingo.src.utils import extend_instance

  lm, resampler, xattn = config.lm, config.resampler, config.xattn
  llama = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=lm.vocab_size,
      hidden_size=lm.width,
      intermediate_size=lm.hidden,
      num_hidden_layers=lm.num_layers,
      num_attention_heads=lm.num_heads,
      rms_norm_eps=1e-6,
      tie_word_embeddings=True,
    )
  )
  extend_instance(llama, flamingo_lm.FlamingoLMMixin)
  llama.set_decoder_layers_attr_name("model.layers")
  flamingo_lm.GatedCrossAttentionBlock = functools.partial(
    helpers.GatedCrossAttentionBlock,
    heads=xattn.num_heads,
    dim_head=xattn.head_dim,
    ff_mult=xattn.hidden // lm.width,
  )
  module.PerceiverResampler = functools.partial(
    helpers.PerceiverResampler,
    depth=resampler.depth,
    heads=resampler.num_heads,
    dim_head=resampler.head_dim,
    num_latents=resampler.num_latents,
    ff_mult=resampler.hidden // resampler.width,
  )
  vision = types.SimpleNamespace(visual=torch.nn.Identity())
  model = module.Flamingo(
    vision,
    llama,
    END,
    IMAGE,
    vis_dim=resampler.width,
    cross_attn_every_n_layers=xattn.every,
  ).eval()
  # The vision encoder is a stand-in: patches come in ready.
  model._encode_vision_x = lambda vision_x: [
    layer.condition_vis_x(model.perceiver(vision_x))
    for layer in model.lang_encoder._get_decoder_layers()
  ]
  return model


@pytest.fixture(scope="module")
def case():
  config = shrunk()
  random = np.random.RandomState(0)
  tokens = random.randint(0, IMAGE, (2, 14))
  tokens[0, [1, 7]] = IMAGE
  tokens[1, 2] = IMAGE
  features = random.randn(2, 2, 1, 9, config.resampler.width)
  batch = dict(
    tokens=jnp.asarray(tokens),
    positions=jnp.broadcast_to(jnp.arange(14), (2, 14)),
    segments=jnp.ones((2, 14), jnp.int32),
    media=dict(
      image=dict(
        features=jnp.asarray(features, jnp.float32),
        mask=jnp.ones((2, 2, 1), bool),
        index=jnp.cumsum(jnp.asarray(tokens) == IMAGE, axis=1),
      )
    ),
  )
  module = build(config)
  params = nn.unbox(module.init(jax.random.key(0), batch))["params"]
  # A trained model's gates are open.
  for gate in ("attention_gate", "mlp_gate"):
    params["blocks"][gate] += jnp.asarray([[0.5], [-0.7], [0.9]])
  return config, module, params, batch


def test_exported_model_has_equal_logits_there(case):
  config, module, params, batch = case
  rules = open_flamingo("llama", module.before, tied=True)
  state = save(params, rules)
  model = theirs(config)
  known = model.state_dict().keys()
  assert state.keys() <= known
  absent = {k for k in known - state.keys() if "old_decoder_blocks" not in k}
  absent = {k for k in absent if ".gated_cross_attn_layers." not in k}
  assert absent == {"lang_encoder.lm_head.weight"}
  model.load_state_dict(
    {k: torch.tensor(v) for k, v in state.items()}, strict=False
  )
  image = batch["media"]["image"]["features"]
  with torch.no_grad():
    expected = model(
      torch.tensor(np.asarray(image)),
      torch.tensor(np.asarray(batch["tokens"])),
      attention_mask=torch.ones(2, 14),
    ).logits.numpy()
  logits = module.apply({"params": params}, batch).logits
  error = np.abs(logits - expected).max() / np.abs(expected).max()
  assert error <= 1e-5, error


def test_round_trip_is_bit_equal(case):
  _, module, params, _ = case
  rules = open_flamingo("llama", module.before, tied=True)
  back = load(save(params, rules), rules, params)
  jax.tree.map(np.testing.assert_array_equal, back, params)
