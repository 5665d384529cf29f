"""The filter bank against its definition in float64, and at its edges."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data import audio
from mmjax.layers import fbank


def noise(samples, seed=0):
  random = np.random.RandomState(seed)
  return 0.1 * random.standard_normal(samples).astype(np.float32)


def mel(hertz):
  return 1127 * np.log(1 + hertz / 700)


def definition(wave, bands):
  """One window and one band at a time."""
  wave = wave.astype(np.float64) * 32768
  step = (mel(8000) - mel(20)) / (bands + 1)
  result = np.zeros((1 + (len(wave) - 400) // 160, bands))
  for t, band in np.ndindex(*result.shape):
    x = wave[160 * t : 160 * t + 400]
    x = x - x.mean()
    x = x - 0.97 * np.append(x[0], x[:-1])
    x *= (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.fft(x, 512)[:257]) ** 2
    place = (mel(np.arange(257) * 31.25) - mel(20)) / step - band
    triangle = np.clip(np.minimum(place, 2 - place), 0, None)
    result[t, band] = np.log(max(power @ triangle, 1.1920929e-07))
  return result


@pytest.mark.parametrize("samples, bands", [(400, 128), (1000, 23)])
def test_definition(samples, bands):
  wave = noise(samples)
  out = fbank.log_mel(jnp.asarray(wave)[None], bands)
  np.testing.assert_allclose(out[0], definition(wave, bands), atol=2e-3)


def test_frames_and_samples():
  samples = np.array([0, 239, 399, 400, 559, 560, 16_000, 82_160])
  frames = [0, 0, 0, 1, 1, 2, 98, 512]
  np.testing.assert_array_equal(fbank.frames_of(samples), frames)
  assert fbank.samples_of(512) == 82_160 and fbank.samples_of(1) == 400
  for n, expected in zip(samples[3:], frames[3:]):
    waves = jax.ShapeDtypeStruct((2, n), jnp.float32)
    assert jax.eval_shape(fbank.log_mel, waves).shape == (2, expected, 128)


def test_windows_do_not_depend_on_their_neighbours():
  wave = jnp.asarray(noise(2000))[None]
  whole, part = fbank.log_mel(wave), fbank.log_mel(wave[:, 320:])
  np.testing.assert_allclose(whole[:, 2:], part, atol=1e-4)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_silence_is_the_floor(level):
  """And so is what stands still."""
  out = fbank.log_mel(jnp.full((1, 1600), level))
  np.testing.assert_allclose(out, np.log(np.finfo(np.float32).eps))
  grad = jax.grad(lambda x: fbank.log_mel(x).sum())(jnp.zeros((1, 800)))
  assert np.isfinite(grad).all()


def test_half_precision_waves_are_computed_in_single():
  wave = jnp.asarray(noise(2000), jnp.float16)[None]
  out = fbank.log_mel(wave)
  assert out.dtype == jnp.float32
  np.testing.assert_array_equal(out, fbank.log_mel(wave.astype(jnp.float32)))


def test_channels_are_averaged_where_files_are_read():
  """Stereo comes as the mean of its channels, like mono of the same."""
  both = np.stack([noise(1600), noise(1600, seed=1)])
  soundfile = pytest.importorskip("soundfile")
  out = []
  for channels in (both.T, both.mean(axis=0)[:, None]):
    file = io.BytesIO()
    soundfile.write(file, channels, 16_000, format="WAV", subtype="FLOAT")
    out.append(fbank.log_mel(audio.decode(file.getvalue())[None]))
  assert out[0].shape == (1, 8, 128)
  np.testing.assert_allclose(*out, atol=1e-3)


@pytest.mark.parametrize(
  "waves, match",
  [
    (np.zeros((1, 800), np.int16), "dtype int16"),
    (np.zeros(800, np.float32), r"shape \(800,\)"),
    (np.zeros((1, 2, 800), np.float32), "average channels"),
    (np.zeros((1, 399), np.float32), "a window has 400"),
  ],
)
def test_other_arrays_are_refused(waves, match):
  with pytest.raises(ValueError, match=match):
    fbank.log_mel(waves)
