"""Whole OpenFlamingo models: logits, loss, gradients, caches, generation."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.config import lookup
from mmjax.connectors import perceiver
from mmjax.connectors.gated_attention import layers_before
from mmjax.convert.configs import LM_CONFIGS
from mmjax.convert.families import flamingo as rules
from mmjax.convert.rules import load, save
from mmjax.generation.beam import beam_search
from mmjax.generation.sample import Sampling, apply, generate, prefill
from mmjax.lms import LMS
from tests.golden.file import Golden
from tests.golden.options import described
from tests.golden.original import OriginalBlock, OriginalRule

FAMILIES = {name: name for name in LM_CONFIGS} | {"neox": "gpt_neox"}
# What Flamingo gives its parts; each may be made smaller, as the file says.
PERCEIVER = dict(
  depth=6,
  heads=8,
  dim_head=64,
  num_latents=64,
  ff_mult=4,
  max_num_frames=None,
  max_num_media=None,
)
BLOCK = dict(heads=8, dim_head=64, ff_mult=4, only_attend_immediate_media=True)


# The class of transformers 4.35 reads few of its settings: these and the scale
# of the scores.
MPT_READS = (
  "d_model",
  "layer_norm_epsilon",
  "n_heads",
  "n_layers",
  "tie_word_embeddings",
  "vocab_size",
)


def language_model(golden: Golden):
  """Our family and settings for the Hugging Face config of a golden file."""
  family = lookup(FAMILIES, golden.config["language_model"], "language model")
  config = golden.config["language_model_config"]
  if family == "mpt":
    attention = config.get("attn_config") or {}
    config = {k: v for k, v in config.items() if k in MPT_READS}
    scale = attention.get("softmax_scale")
    config["attn_config"] = dict(softmax_scale=scale)
  _, fields, _ = LM_CONFIGS[family]
  return family, fields(config)


def resampler(golden: Golden) -> perceiver.PerceiverResampler:
  """Of the defaults where the file says no more."""
  c = described(golden.config.get("perceiver"), PERCEIVER)
  width = golden.config["vis_dim"]
  return perceiver.PerceiverResampler(
    width=width,
    depth=c["depth"],
    num_heads=c["heads"],
    head_dim=c["dim_head"],
    num_latents=c["num_latents"],
    hidden=int(width * c["ff_mult"]),
    activation="gelu",
    max_frames=c["max_num_frames"] or 0,
    max_media=c["max_num_media"] or 0,
  )


def build(golden: Golden):
  """Our model and its rules for a golden file's config."""
  family, fields = language_model(golden)
  lm = LMS[family](**fields)
  c = described(golden.config.get("gated_block"), BLOCK)
  every = golden.config["cross_attn_every_n_layers"]
  before = layers_before(lm.num_layers, every, every - 1)
  model = OriginalRule(
    image_token=golden.config["media_token_id"],
    uses_cache=golden.config["language_model_config"].get("use_cache", True),
    lm=lm,
    resampler=resampler(golden),
    block=functools.partial(
      OriginalBlock,
      width=lm.width,
      media_width=golden.config["vis_dim"],
      num_heads=c["heads"],
      head_dim=c["dim_head"],
      hidden=int(lm.width * c["ff_mult"]),
      activation="gelu",
      norm_media=False,
      previous=not c["only_attend_immediate_media"],
    ),
    before=before,
  )
  return model, rules.open_flamingo(family, before, tied=lm.tie_embeddings)


def make_batch(golden: Golden, ids, mask, patches, derived: bool):
  """A batch as the original sees it.

  Args:
    golden: for the ids of special tokens.
    ids, mask: tokens and attention mask.
    patches: what the vision encoder returns.
    derived: positions count the mask; else they count places.
  """
  places = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
  counted = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
  index = np.cumsum(ids == golden.config["media_token_id"], axis=1)
  media = dict(
    features=jnp.asarray(patches),
    mask=jnp.ones(patches.shape[:3], bool),
    index=jnp.asarray(index),
  )
  return dict(
    tokens=jnp.asarray(ids),
    positions=jnp.asarray(counted if derived else places),
    segments=jnp.asarray(mask),
    media=dict(image=media),
  )


def forward(golden, model, table, params, inputs, expected):
  """Logits, visual tokens, loss and gradient norms, of those expected."""
  mask = inputs["attention_mask"]
  batch = make_batch(
    golden,
    inputs["input_ids"],
    mask,
    inputs["patch_tokens"],
    golden.config["language_model"] == "opt",
  )
  latents = apply(model, params, "latents", batch["media"]["image"])
  outputs = dict(visual_tokens=latents)

  def loss(params):
    logits = model.apply({"params": params}, batch).logits
    if "labels" not in inputs:
      return 0.0, logits
    labels = jnp.asarray(inputs["labels"])[:, 1:]
    log_probs = jax.nn.log_softmax(logits[:, :-1])
    chosen = jnp.take_along_axis(
      log_probs, jnp.maximum(labels, 0)[..., None], axis=-1
    )[..., 0]
    counted = labels >= 0
    return -(chosen * counted).sum() / counted.sum(), logits

  if "grad_norms" in expected:
    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, logits), grads = run(params)
    grads = save(grads, table)
    norms = [np.linalg.norm(grads[k]) for k in golden.config["grad_norm_keys"]]
    outputs["grad_norms"] = norms
  else:
    value, logits = jax.jit(loss)(params)
  if "logits" in expected:
    # What stands on padding means nothing.
    kept = mask[..., None] > 0
    outputs["logits"] = np.where(kept, logits, expected["logits"])
  return outputs | (dict(loss=value) if "labels" in inputs else {})


def cached(golden, model, params, inputs, expected):
  """A prompt, then continuations of several tokens from its cache."""
  prompt, more = inputs["prompt_ids"], inputs["continuation_ids"]
  batch = make_batch(
    golden, prompt, np.ones_like(prompt), inputs["patch_tokens"], True
  )
  size = prompt.shape[1] + more.shape[1]

  @jax.jit
  def run(params, batch, more):
    logits = model.apply({"params": params}, batch).logits
    _, state = prefill(model, params, batch, size)
    parts = []
    for part in (more[:, :3], more[:, 3:]):
      if part.shape[1]:
        part, state = apply(model, params, "decode", part, state)
        parts.append(part)
    return logits, jnp.concatenate(parts, axis=1)

  logits, continued = run(params, batch, jnp.asarray(more))
  return dict(prompt_logits=logits, continuation_logits=continued)


def generated(golden, model, params, inputs, expected):
  """Greedy and beam continuations of left-padded prompts."""
  c = golden.config
  ids, stop, pad = inputs["input_ids"], c["eoc_token_id"], c["pad_token_id"]
  mask = inputs["attention_mask"]
  batch = make_batch(golden, ids, mask, inputs["patch_tokens"], True)
  length = c["generate"]["max_new_tokens"]
  greedy = generate(
    model, params, batch, Sampling(length, stop=(stop,), pad=pad)
  )
  outputs = {}
  if "greedy_ids" in expected:
    outputs["greedy_ids"] = _joined(ids, greedy.tokens, expected["greedy_ids"])
  if "step_logits" in expected:
    width = expected["step_logits"].shape[1]
    steps = _steps(model, params, batch, greedy.tokens)[:, :width]
    valid = expected["step_valid"][..., None]
    outputs["step_logits"] = np.where(valid, steps, expected["step_logits"])
    outputs["step_valid"] = greedy.mask[:, :width]
  if "beam_ids" in expected:
    beams = beam_search(
      model,
      params,
      batch,
      max_new_tokens=length,
      num_beams=c["generate"]["num_beams"],
      stop=stop,
      length_penalty=length_penalty(c["generate"]),
      count_prompt=True,
      pad=pad,
    )
    found = _joined(ids, beams.tokens[:, 0], expected["beam_ids"])
    outputs |= dict(beam_ids=found, beam_scores=beams.scores[:, 0])
  return outputs


def length_penalty(settings: dict) -> float:
  """A number of its own, or in the words on beam search."""
  said = re.search(r"length_penalty=(-?[\d.]+\d)", str(settings.get("beam")))
  return float(settings.get("length_penalty", said[1] if said else 1.0))


@functools.partial(jax.jit, static_argnums=0)
def _steps(model, params, batch, tokens):
  """The logits from which each of the new tokens was chosen."""
  size = batch["tokens"].shape[1] + tokens.shape[1]
  first, state = prefill(model, params, batch, size)

  def step(state, token):
    logits, state = apply(model, params, "decode", token[:, None], state)
    return state, logits[:, 0]

  _, rest = jax.lax.scan(step, state, tokens[:, :-1].T)
  return jnp.moveaxis(jnp.concatenate([first[None], rest]), 0, 1)


def _joined(prompt, new, like):
  """Prompt and new ids, up to where the original stopped."""
  return np.concatenate([prompt, np.asarray(new)], axis=1)[:, : like.shape[1]]


CALLS = {"cached": cached, "gen": generated}


def whole_model(golden: Golden):
  """`Flamingo` of open_flamingo over a small language model."""
  model, table = build(golden)
  patches = next(iter(golden.inputs.values()))["patch_tokens"]
  one = np.ones((1, 1), int)
  batch = make_batch(golden, one, one, patches[:1], True)
  like = jax.eval_shape(model.init, jax.random.key(0), batch)
  params = load(golden.weights, table, nn.unbox(like)["params"])
  params = jax.tree.map(jnp.asarray, params)
  for call, inputs in golden.inputs.items():
    expected = golden.outputs.get(call, {})
    if not call:
      yield call, forward(golden, model, table, params, inputs, expected)
    else:
      run = lookup(CALLS, call, "call of a whole model")
      yield call, run(golden, model, params, inputs, expected)
