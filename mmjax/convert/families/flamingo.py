"""Names of Flamingo weights in the open implementations.

`open_flamingo` covers whole models and what their checkpoints hold; the
smaller functions cover the modules of open_flamingo, lucidrains'
flamingo-pytorch and flamingo-mini.
"""

import dataclasses
import re

from mmjax.convert.families import parts
from mmjax.convert.families.clip import openai
from mmjax.convert.families.lms import LAYER_ROOTS, LM_RULES
from mmjax.convert.rules import Rule, prefixed

_QUERY = "(N H) D -> D N H"
_KEYS = "(X N H) D -> X D N H"
_OUT = "D (N H) -> N H D"
_MATRIX = "F D -> D F"


def _attention(fused: bool) -> list[Rule]:
  rules = [
    Rule("to_q.weight", "query/kernel", _QUERY),
    Rule("to_out.weight", "out/kernel", _OUT),
  ]
  if fused:
    return [
      *rules,
      Rule("to_kv.weight", ("key/kernel", "value/kernel"), _KEYS),
    ]
  return [
    *rules,
    Rule("to_k.weight", "key/kernel", _QUERY),
    Rule("to_v.weight", "value/kernel", _QUERY),
  ]


def feed_forward() -> list[Rule]:
  """`FeedForward`: LayerNorm, Linear, activation, Linear."""
  return [
    *parts.norm("0", "mlp_norm"),
    Rule("1.weight", "mlp/up/kernel", _MATRIX),
    Rule("3.weight", "mlp/down/kernel", _MATRIX),
  ]


def media_attention() -> list[Rule]:
  """`MaskedCrossAttention`."""
  return [*parts.norm("norm", "text_norm"), *_attention(fused=True)]


def gated_attention(mini: bool = False) -> list[Rule]:
  """`GatedCrossAttentionBlock`; `mini` takes flamingo-mini's names."""
  mlp = "ffw" if mini else "ff"
  names = ("alpha_attn", "alpha_ffw") if mini else ("attn_gate", "ff_gate")
  return [
    *prefixed(media_attention(), "attn.", "attention/"),
    *prefixed(feed_forward(), f"{mlp}."),
    Rule(names[0], "attention_gate"),
    Rule(names[1], "mlp_gate"),
  ]


def resampler(mini: bool = False) -> list[Rule]:
  """`PerceiverResampler`; `mini` takes flamingo-mini's names."""
  layer = [
    *parts.norm("0.norm_media", "media_norm"),
    *parts.norm("0.norm_latents", "latents_norm"),
    *prefixed(_attention(fused=not mini), "0."),
    *prefixed(feed_forward(), "1."),
  ]
  frames = "time_pos_emb" if mini else "frame_embs"
  return [
    Rule("latents", "latents"),
    Rule(frames, "frames", "T () D -> T D" if mini else None),
    Rule(
      "media_time_embs", "media", "M () D -> M D", aliases=("media_pos_emb",)
    ),
    *parts.norm("norm", "norm"),
    *prefixed(layer, "layers.{layer}.", "layers/"),
  ]


def open_flamingo(
  lm: str, before: tuple[int, ...], *, tied: bool = False, extra: int = 0
) -> list[Rule]:
  """A whole OpenFlamingo model, or the part of it that a checkpoint holds.

  A whole one has a vision encoder, in the names of open_clip.

  Args:
    lm: family of the language model, a key of LM_RULES.
    before: layers that a block precedes; checkpoints number blocks by them.
    tied: the language model's head is its embedding table.
    extra: new tokens that live in a table of their own here.
  """
  root = LAYER_ROOTS[lm]
  language = [
    _wrapped(rule, f"{root}.{{layer}}.") for rule in LM_RULES[lm](tied)
  ]
  if extra:
    language = [_with_new_tokens(rule) for rule in language]
  blocks = prefixed(gated_attention(), "gated_cross_attn_layer.", "blocks/")
  return [
    *prefixed(openai(""), "vision_encoder.", "encoder/"),
    *prefixed(resampler(), "perceiver.", "resampler/"),
    *prefixed(language, "lang_encoder.", "lm/"),
    *[
      dataclasses.replace(
        rule,
        name=f"lang_encoder.{root}.{{layer}}.{rule.name}",
        aliases=(
          "lang_encoder.gated_cross_attn_layers.{layer}."
          + rule.name.removeprefix("gated_cross_attn_layer."),
        ),
        numbers=before,
      )
      for rule in blocks
    ],
  ]


def _wrapped(rule: Rule, layer: str) -> Rule:
  """OpenFlamingo wraps every layer; names gain `decoder_layer`.

  A live model holds the layers in a list of their own too.
  """
  if not rule.name.startswith(layer):
    return rule
  roots = (f"{layer}decoder_layer.", "old_decoder_blocks.{layer}.")
  name, *aliases = (
    known.replace(layer, root)
    for root in roots
    for known in (rule.name, *rule.aliases)
  )
  return dataclasses.replace(rule, name=name, aliases=tuple(aliases))


def _with_new_tokens(rule: Rule) -> Rule:
  if not rule.paths[0].endswith(("embedding/table", "head/table")):
    return rule
  table = rule.paths[0]
  new = table.removesuffix("table") + "extra"
  return dataclasses.replace(rule, path=(table, new), joined=True)


def canonical(name: str) -> str:
  """A checkpoint's name without what wrappers around the model add.

  Training files carry DDP's `module.`, FSDP's and checkpointing's wrappers;
  Otter renames the parts of a layer.
  """
  name = re.sub(r"^module\.", "", name)
  name = re.sub(r"_(fsdp_wrapped|checkpoint_wrapped)_module\.", "", name)
  name = re.sub(r"(gated_cross_attn_layer)\.feed_forward\.", r"\1.ff.", name)
  name = re.sub(r"^(perceiver\.layers\.\d+)\.(norm_|to_)", r"\1.0.\2", name)
  return re.sub(r"^(perceiver\.layers\.\d+)\.feed_forward\.", r"\1.1.", name)
