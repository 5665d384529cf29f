"""Whole OpenFlamingo models: logits, loss, gradients, caches, generation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from mmjax.connectors import gated_attention, perceiver
from mmjax.connectors.gated_attention import GatedCrossAttention, layers_before
from mmjax.convert.families import flamingo as rules
from mmjax.convert.rules import load, save
from mmjax.generation.beam import beam_search
from mmjax.generation.sample import Sampling, apply, generate, prefill
from mmjax.lms import LMS
from mmjax.systems.flamingo import Flamingo
from mmjax.systems.flamingo_decoding import State
from tests.golden.file import Golden

FAMILIES = {"llama": "llama", "opt": "opt", "mpt": "mpt", "neox": "gpt_neox"}


@struct.dataclass
class OriginalState(State):
  """Which image a row sees belongs to its place, not to the beam in it."""

  def rows(self, indices):
    state = super().rows(indices)
    if len(indices) != len(self.next_position):
      return state
    return state.replace(media=state.media.replace(last=self.media.last))


class OriginalRule(Flamingo):
  """Decodes as the original does when the model itself writes `<image>`.

  A step in which any row of the batch writes it forgets, in every row, which
  images were seen: tokens that are `<image>` now see the first image, all
  others none. Ours keep seeing the last image of their own row.
  """

  image_token: int = -1

  def start(self, batch, size, media):
    state = super().start(batch, size, media)
    return OriginalState(
      state.lm, state.graft, state.media, state.next_position
    )

  def decode(self, tokens, state, real=None):
    image = tokens[:, 0] == self.image_token
    last = jnp.where(image.any(), image.astype(jnp.int32), state.media.last)
    last = jnp.where(tokens.shape[1] == 1, last, state.media.last)
    media = state.media.replace(last=last)
    return super().decode(tokens, state.replace(media=media), real)


def lm_fields(family: str, c: dict) -> dict:
  """Our fields for a Hugging Face config."""
  if family == "mpt":
    return dict(
      vocab_size=c["vocab_size"],
      width=c["d_model"],
      num_layers=c["n_layers"],
      num_heads=c["n_heads"],
      hidden=c["d_model"] * c["expansion_ratio"],
      clip=c["attn_config"].get("clip_qkv"),
      max_bias=c["attn_config"].get("alibi_bias_max", 8),
    )
  fields = dict(
    vocab_size=c["vocab_size"],
    width=c["hidden_size"],
    num_layers=c["num_hidden_layers"],
    num_heads=c["num_attention_heads"],
    hidden=c.get("intermediate_size") or c.get("ffn_dim"),
  )
  if family == "llama":
    return fields | dict(
      num_kv_heads=c["num_key_value_heads"],
      norm_eps=c["rms_norm_eps"],
      rope_base=c["rope_theta"],
      tie_embeddings=c["tie_word_embeddings"],
    )
  if family == "opt":
    narrow = c["word_embed_proj_dim"]
    return fields | dict(
      pre_norm=c["do_layer_norm_before"],
      activation=c["activation_function"],
      max_positions=c["max_position_embeddings"],
      embed_width=None if narrow == c["hidden_size"] else narrow,
    )
  return fields | dict(
    rotary_fraction=c["rotary_pct"],
    rope_base=c["rotary_emb_base"],
    parallel=c["use_parallel_residual"],
    norm_eps=c["layer_norm_eps"],
    tie_embeddings=c["tie_word_embeddings"],
  )


def build(golden: Golden):
  """Our model and its rules for a golden file's config."""
  c = golden.config
  family = FAMILIES[c["language_model"]]
  lm = LMS[family](**lm_fields(family, c["language_model_config"]))
  shape = c["perceiver"] if isinstance(c["perceiver"], dict) else {}
  resampler = perceiver.OPEN_FLAMINGO | {
    ours: shape[theirs]
    for theirs, ours in (
      ("depth", "depth"),
      ("heads", "num_heads"),
      ("dim_head", "head_dim"),
      ("num_latents", "num_latents"),
      ("max_num_frames", "max_frames"),
      ("max_num_media", "max_media"),
    )
    if shape.get(theirs)
  }
  every = c["cross_attn_every_n_layers"]
  before = layers_before(lm.num_layers, every, every - 1)
  model = OriginalRule(
    image_token=c["media_token_id"],
    lm=lm,
    resampler=perceiver.PerceiverResampler(width=c["vis_dim"], **resampler),
    block=functools.partial(
      GatedCrossAttention,
      width=lm.width,
      media_width=c["vis_dim"],
      **gated_attention.OPEN_FLAMINGO,
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


def forward(golden, model, table, params, inputs):
  """Logits, visual tokens, loss and gradient norms."""
  mask = inputs["attention_mask"]
  batch = make_batch(
    golden,
    inputs["input_ids"],
    mask,
    inputs["patch_tokens"],
    golden.config["language_model"] == "opt",
  )
  labels = jnp.asarray(inputs["labels"])[:, 1:]

  def loss(params):
    logits = model.apply({"params": params}, batch).logits
    log_probs = jax.nn.log_softmax(logits[:, :-1])
    chosen = jnp.take_along_axis(
      log_probs, jnp.maximum(labels, 0)[..., None], axis=-1
    )[..., 0]
    counted = labels >= 0
    latents = apply(model, params, "latents", batch["media"]["image"])
    return -(chosen * counted).sum() / counted.sum(), (logits, latents)

  (value, (logits, latents)), grads = jax.jit(
    jax.value_and_grad(loss, has_aux=True)
  )(params)
  grads = save(grads, table)
  norms = [np.linalg.norm(grads[k]) for k in golden.config["grad_norm_keys"]]
  expected = golden.outputs[""]["logits"]
  logits = np.where(mask[..., None] > 0, logits, expected)
  return dict(
    logits=logits, loss=value, visual_tokens=latents, grad_norms=norms
  )


def cached(golden, model, params, inputs):
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
    first, state = apply(model, params, "decode", more[:, :3], state)
    rest, _ = apply(model, params, "decode", more[:, 3:], state)
    return logits, jnp.concatenate([first, rest], axis=1)

  logits, continued = run(params, batch, jnp.asarray(more))
  return dict(prompt_logits=logits, continuation_logits=continued)


def generated(golden, model, params, inputs):
  """Greedy and beam continuations of left-padded prompts."""
  c = golden.config
  ids, stop, pad = inputs["input_ids"], c["eoc_token_id"], c["pad_token_id"]
  length = c["generate"]["max_new_tokens"]
  mask = inputs["attention_mask"]
  batch = make_batch(golden, ids, mask, inputs["patch_tokens"], True)
  greedy = generate(
    model, params, batch, Sampling(length, stop=(stop,), pad=pad)
  )
  beams = beam_search(
    model,
    params,
    batch,
    max_new_tokens=length,
    num_beams=c["generate"]["num_beams"],
    stop=stop,
    length_penalty=0.0,
    pad=pad,
  )

  @jax.jit
  def read(params, batch, tokens):
    first, state = prefill(model, params, batch, ids.shape[1] + length)
    rest, _ = apply(model, params, "decode", tokens, state)
    return jnp.concatenate([first[:, None], rest[:, :-1]], axis=1)

  steps = read(params, batch, greedy.tokens)
  expected = golden.outputs["gen"]
  valid = expected["step_valid"]
  width = expected["step_logits"].shape[1]
  steps = np.where(valid[..., None], steps[:, :width], expected["step_logits"])
  return dict(
    greedy_ids=_padded(ids, greedy.tokens, expected["greedy_ids"], pad),
    beam_ids=_padded(ids, beams.tokens[:, 0], expected["beam_ids"], pad),
    beam_scores=beams.scores[:, 0],
    step_logits=steps,
    step_valid=greedy.mask[:, :width],
  )


def _padded(prompt, new, like, pad):
  """Prompt and new ids, cut to the length at which the original stopped."""
  full = np.concatenate([prompt, np.asarray(new)], axis=1)
  assert (full[:, like.shape[1] :] == pad).all()
  return full[:, : like.shape[1]]


def whole_model(golden: Golden):
  """`Flamingo` of open_flamingo over a small language model."""
  model, table = build(golden)
  inputs = golden.inputs[""]
  batch = make_batch(
    golden,
    inputs["input_ids"],
    inputs["attention_mask"],
    inputs["patch_tokens"],
    True,
  )
  like = jax.eval_shape(model.init, jax.random.key(0), batch)
  params = load(golden.weights, table, nn.unbox(like)["params"])
  params = jax.tree.map(jnp.asarray, params)
  yield "", forward(golden, model, table, params, inputs)
  if "cached" in golden.inputs:
    yield "cached", cached(golden, model, params, golden.inputs["cached"])
  if "gen" in golden.inputs:
    yield "gen", generated(golden, model, params, golden.inputs["gen"])
