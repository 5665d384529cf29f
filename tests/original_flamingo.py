"""Small whole models of the open_flamingo package, vision encoder included."""

import types

import torch
import transformers

from tests.timm_import import import_open_clip, import_open_flamingo

IMAGE, END, VOCABULARY = 48, 47, 50
# Of OpenAI's CLIP: mean and standard deviation of pixels on 0..1.
NORMALISE = (
  (0.48145466, 0.4578275, 0.40821073),
  (0.26862954, 0.26130258, 0.27577711),
)
_SIZES = dict(
  vocab_size=VOCABULARY,
  hidden_size=32,
  num_hidden_layers=4,
  num_attention_heads=4,
)
LMS = {
  "llama": lambda: transformers.LlamaConfig(
    **_SIZES, intermediate_size=48, num_key_value_heads=2
  ),
  "llama_tied": lambda: transformers.LlamaConfig(
    **_SIZES, intermediate_size=48, tie_word_embeddings=True
  ),
  "opt": lambda: transformers.OPTConfig(
    **_SIZES, ffn_dim=64, max_position_embeddings=20, word_embed_proj_dim=32
  ),
  "mpt": lambda: transformers.MptConfig(
    vocab_size=VOCABULARY, d_model=32, n_layers=4, n_heads=4
  ),
  "gpt_neox": lambda: transformers.GPTNeoXConfig(
    **_SIZES, intermediate_size=64, rotary_pct=0.5
  ),
}
LAYERS = {
  "llama": "model.layers",
  "llama_tied": "model.layers",
  "opt": "model.decoder.layers",
  "mpt": "transformer.blocks",
  "gpt_neox": "gpt_neox.layers",
}


def whole(lm: str, every: int = 2):
  """The package's Flamingo with random weights and open gates."""
  module = import_open_flamingo()
  from open_flamingo.src import flamingo_lm
  from open_flamingo.src.utils import extend_instance

  torch.manual_seed(0)
  language = transformers.AutoModelForCausalLM.from_config(LMS[lm]())
  extend_instance(language, flamingo_lm.FlamingoLMMixin)
  language.set_decoder_layers_attr_name(LAYERS[lm])
  open_clip = import_open_clip()
  tower = open_clip.transformer.VisionTransformer(
    image_size=28,
    patch_size=14,
    width=64,
    layers=2,
    heads=1,
    mlp_ratio=2,
    output_dim=6,
    act_layer=open_clip.transformer.QuickGELU,
    output_tokens=True,
  )
  model = module.Flamingo(
    types.SimpleNamespace(visual=tower),
    language,
    END,
    IMAGE,
    vis_dim=64,
    cross_attn_every_n_layers=every,
  ).eval()
  with torch.no_grad():
    for name, value in model.named_parameters():
      if name.endswith("_gate"):
        value.fill_(0.7)
  return model
