"""Whisper's encoder: transformers' numbers, published counts, real weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import linen as nn

from mmjax.convert.families.whisper import hugging_face
from mmjax.convert.rules import load, save
from mmjax.encoders.whisper import WHISPER, Whisper, whisper
from mmjax.training.whisper import whisper_tiny_en
from mmjax.tree import count, flatten, unflatten

SIZES = dict(width=24, num_layers=3, num_heads=4, hidden=40, bands=16)
TINY = Whisper(**SIZES, positions=60)


def shapes_of(model):
  frames = jax.ShapeDtypeStruct((1, 2, model.bands), jnp.float32)
  made = jax.eval_shape(model.init, jax.random.key(0), frames)
  return nn.unbox(made)["params"]


def original(model, activation="gelu"):
  config = transformers.WhisperConfig(
    d_model=model.width,
    encoder_layers=model.num_layers,
    encoder_attention_heads=model.num_heads,
    encoder_ffn_dim=model.hidden or 4 * model.width,
    num_mel_bins=model.bands,
    max_source_positions=model.positions,
    activation_function=activation,
    decoder_layers=1,
    decoder_attention_heads=model.num_heads,
    decoder_ffn_dim=8,
    vocab_size=20,
    pad_token_id=0,
    decoder_start_token_id=1,
  )
  torch.manual_seed(0)
  made = transformers.WhisperModel(config).eval()
  for name, value in made.named_parameters():
    # All but the sinusoids, which are what they are.
    if "embed_positions" not in name:
      value.data = 0.2 * torch.randn_like(value) + ("norm.weight" in name)
  return made.encoder


def loaded(theirs, model):
  weights = {k: v.numpy() for k, v in theirs.state_dict().items()}
  return weights, load(weights, hugging_face(""), shapes_of(model))


def frames(model, batch=2, seed=0):
  shape = (batch, 2 * model.positions, model.bands)
  random = np.random.RandomState(seed)
  return random.standard_normal(shape).astype(np.float32)


def test_tokens_are_transformers_and_weights_come_back():
  theirs = original(TINY)
  weights, params = loaded(theirs, TINY)
  x = frames(TINY)
  with torch.no_grad():
    expected = theirs(torch.from_numpy(x.transpose(0, 2, 1)))
  ours = jax.jit(TINY.apply)({"params": params}, x)
  np.testing.assert_allclose(ours, expected.last_hidden_state, atol=1e-4)
  back = dict(save(params, hugging_face("")))
  assert back.keys() == weights.keys()
  for name, value in weights.items():
    assert back[name].tobytes() == value.tobytes(), name


def test_positions_begin_as_the_originals():
  theirs = original(TINY)
  table = TINY.init(jax.random.key(0), frames(TINY))["params"]["position_table"]
  # An angle of 59 in single precision is off by 4e-6.
  np.testing.assert_allclose(
    nn.unbox(table), theirs.embed_positions.weight.detach(), atol=4e-6
  )


# transformers' counts, on the meta device.
@pytest.mark.parametrize("variant", WHISPER)
def test_published_counts(variant):
  model = whisper(variant)
  with torch.device("meta"):
    config = transformers.WhisperConfig(
      d_model=model.width,
      encoder_layers=model.num_layers,
      encoder_attention_heads=model.num_heads,
      encoder_ffn_dim=4 * model.width,
      num_mel_bins=model.bands,
    )
    theirs = transformers.models.whisper.modeling_whisper.WhisperEncoder(config)
  assert count(shapes_of(model)) == sum(x.numel() for x in theirs.parameters())


def test_published_tokens():
  """30 seconds become 1500 tokens, in waveforms and in spectrograms."""
  model = whisper()
  for shape in ((2, 480_000), (2, 3_000, 80)):
    sound = jax.ShapeDtypeStruct(shape, jnp.float32)
    out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), sound)
    assert out.shape == (2, 1_500, 384)


def test_what_is_behind_a_length_is_silence():
  model = Whisper(**SIZES)
  params = {"params": nn.unbox(model.init(jax.random.key(0), noise(1, 800)))}
  params = params["params"]
  run = jax.jit(model.apply)
  sound = noise(2, 2_000)
  silent = sound.copy()
  silent[0, 900:] = 0
  lengths = np.array([900, 2_000])
  np.testing.assert_allclose(
    run(params, sound, lengths), run(params, silent), atol=1e-5
  )
  assert np.isfinite(run(params, sound, np.zeros(2, int))).all()


def noise(batch, samples, seed=0):
  random = np.random.RandomState(seed)
  return (0.1 * random.standard_normal((batch, samples))).astype(np.float32)


@pytest.mark.parametrize(
  "sound, lengths, message",
  [
    (np.zeros((1, 8, 9), np.float32), None, r"expected floats \[B T 16\]"),
    (np.zeros((1, 8, 16), np.int32), None, "dtype int32"),
    (np.zeros((1, 0, 16), np.float32), None, "expected floats"),
    (np.zeros((1, 122, 16), np.float32), None, "122 frames"),
    (np.zeros((1, 8, 16), np.float32), np.array([3]), "of waveforms"),
    (np.zeros((1, 800), np.float32), np.array([3, 4]), "lengths of shape"),
    (np.zeros((1, 300), np.float32), None, "300 samples"),
  ],
)
def test_other_sounds_are_refused(sound, lengths, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(TINY.init, jax.random.key(0), sound, lengths)
  with pytest.raises(ValueError, match="even number"):
    shapes_of(Whisper(width=9, num_layers=1, num_heads=3))


def test_gradients_reach_every_parameter():
  params, x = loaded(original(TINY), TINY)[1], frames(TINY)

  def loss(p):
    return jnp.square(TINY.apply({"params": p}, x)).sum()

  for path, grad in flatten(jax.jit(jax.grad(loss))(params)).items():
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0, path


def test_the_packages_weights_are_whole():
  """The table of positions is the sinusoids; the tokens are transformers'."""
  model = whisper("tiny")
  params = unflatten(whisper_tiny_en(flatten(shapes_of(model))))
  weights = dict(save(params, hugging_face("")))
  theirs = original(model)
  theirs.load_state_dict(
    {k: torch.from_numpy(np.array(v)) for k, v in weights.items()}
  )
  table = theirs.embed_positions.weight.detach().numpy()
  fresh = original(model).embed_positions.weight.detach().numpy()
  # Half precision in the package.
  np.testing.assert_allclose(table, fresh, atol=5e-4)
  x = frames(model, 1)
  with torch.no_grad():
    expected = theirs(torch.from_numpy(x.transpose(0, 2, 1)))
  ours = jax.jit(model.apply)({"params": params}, x)
  np.testing.assert_allclose(ours, expected.last_hidden_state, atol=1e-4)
