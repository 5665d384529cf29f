"""The spectrogram against transformers' and against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from mmjax.layers.whisper_mel import triangles, whisper_mel


def noise(samples, seed=0):
  random = np.random.RandomState(seed)
  return (0.1 * random.standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("bands", [80, 128])
def test_it_is_what_transformers_makes(bands):
  """Of 30 seconds, with silence behind a shorter sound."""
  extract = transformers.WhisperFeatureExtractor(feature_size=bands)
  tone = np.sin(np.arange(30_000) * 0.2).astype(np.float32)
  waves = [noise(480_000), noise(16_123, 1), tone]
  theirs = extract(waves, sampling_rate=16_000, return_tensors="np")
  padded = np.stack([np.pad(w, (0, 480_000 - len(w))) for w in waves])
  ours = np.asarray(jax.jit(whisper_mel, static_argnums=1)(padded, bands))
  assert ours.shape == (3, 3_000, bands) and ours.dtype == np.float32
  expected = theirs["input_features"].transpose(0, 2, 1)
  np.testing.assert_allclose(ours, expected, atol=2e-3)
  assert np.abs(ours - expected).mean() < 1e-5
  np.testing.assert_allclose(triangles(bands), extract.mel_filters, atol=1e-7)


def test_silence_behind_a_sound_changes_nothing_before_it():
  wave = noise(4_000)[None]
  short, long = (
    np.asarray(whisper_mel(jnp.pad(wave, ((0, 0), (0, more)))))
    for more in (400, 4_000)
  )
  np.testing.assert_allclose(short[:, :25], long[:, :25], atol=1e-5)


def test_every_sound_has_its_own_loudest():
  loud, quiet = noise(1_600), 1e-3 * noise(1_600, 1)
  both = whisper_mel(np.stack([loud, quiet]))
  alone = whisper_mel(quiet[None])
  np.testing.assert_allclose(both[1:], alone, atol=1e-6)


def test_silence_and_half_precision():
  np.testing.assert_allclose(whisper_mel(jnp.zeros((1, 800))), -1.5)
  grad = jax.grad(lambda x: whisper_mel(x).sum())(jnp.zeros((1, 800)))
  assert np.isfinite(grad).all()
  wave = jnp.asarray(noise(800), jnp.float16)[None]
  out = whisper_mel(wave)
  np.testing.assert_array_equal(out, whisper_mel(wave.astype(jnp.float32)))


@pytest.mark.parametrize(
  "waves, message",
  [
    (np.zeros((800,), np.float32), "expected"),
    (np.zeros((1, 800), np.int16), "dtype int16"),
    (np.zeros((1, 399), np.float32), "a window has 400"),
  ],
)
def test_what_is_no_waveform(waves, message):
  with pytest.raises(ValueError, match=message):
    whisper_mel(waves)
