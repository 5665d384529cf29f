"""Golden component beats: the encoder, its filter bank, and its processor."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.config import lookup
from mmjax.convert.families import beats as rules
from mmjax.convert.rules import load
from mmjax.data.audio import segments
from mmjax.encoders.beats import MEAN, STD, BEATs, hidden_tokens
from mmjax.layers.fbank import frames_of, log_mel
from mmjax.layers.position import relative_buckets
from tests.golden.file import Golden
from tests.golden.options import NEEDED, filled


def check(golden: Golden):
  """Yields (call, {output name: array})."""
  kind = golden.config.get("class", "fbank")
  yield from lookup(CLASSES, kind, "class")(golden)


def filter_bank(golden: Golden):
  """Kaldi's filter bank of waveforms [channels samples]."""
  for name, wave in golden.inputs[""].items():
    raw = jax.jit(log_mel)(wave.mean(axis=0, keepdims=True))[0]
    yield name, {"raw": raw, "normalised": (raw - MEAN) / (2 * STD)}


def processor(golden: Golden):
  """Waveforms to segments of banks, with the length of the released way."""
  options = dict(
    model_name=None,
    sampling_rate=16_000,
    n_frames=NEEDED,
    frame_length=NEEDED,
    is_eval=False,
  )
  c = filled(golden, options)
  if c["sampling_rate"] != 16_000:
    raise ValueError(f"Our filter bank has no rate of {c['sampling_rate']}.")
  frames = c["frame_length"]

  def run(waves, lengths):
    return BEATs(8, 1, 1, 8).filter_bank(waves, lengths)

  outputs = {}
  for name, wave in golden.inputs[""].items():
    count, wave = c["n_frames"], wave.mean(axis=0)
    if c["is_eval"] or name.startswith("eval"):
      # Released: appends the remainder and not what is missing to a segment.
      total = int(frames_of(jnp.array([len(wave)]))[0])
      count = (total + total % frames) // frames
    outputs[name] = jax.jit(run)(*segments(wave, count, frames))
  yield "", outputs


def encoder(golden: Golden):
  """The encoder over normalised banks, and its parts."""
  module = BEATs(**rules.settings(golden.config["constructor"]))
  inputs = golden.inputs[""]
  bank = jnp.asarray(inputs["fbank"])
  like = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), bank))
  params = load(
    golden.weights,
    rules.beats(module.num_layers),
    like["params"],
    ignore=lambda key: bool(rules.HEADS.fullmatch(key)),
  )

  def run(module, bank, padding):
    x = module.embed(bank)
    outputs = {"patches_normed": x, "features": module(bank, padding=padding)}
    outputs["encoder_input"] = x = module.place(x)
    outputs["position_bias"] = module.bias(x.shape[1])
    _, states = module.run(x, keep=True)
    return outputs | {f"layer_{i}": y for i, y in enumerate(states)}

  def outputs(padding=None):
    run_jit = jax.jit(lambda p, x: module.apply(p, x, padding, method=run))
    return run_jit({"params": params}, bank)

  plain = outputs()
  if "relative_position" in inputs:
    plain["bucket"] = relative_buckets(
      inputs["relative_position"], module.num_buckets, module.max_distance
    )
  yield "", plain
  if "frame_is_padding" in inputs:
    padding = jnp.asarray(inputs["frame_is_padding"] != 0)
    hidden = hidden_tokens(padding, plain["features"].shape[1])
    features = outputs(padding)["features"]
    token_is_padding = np.asarray(hidden, np.uint8)
    yield (
      "masked",
      {"features": features, "token_is_padding": token_is_padding},
    )


CLASSES = {
  "BEATs": encoder,
  "BeatsAudioProcessor": processor,
  "fbank": filter_bank,
}
