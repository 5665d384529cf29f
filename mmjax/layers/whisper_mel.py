"""Whisper's log mel spectrogram, of waveforms that are on the device.

  waveform [B 480000] at 16 kHz, mirrored by half a window at both ends
    -> windows of 25 ms, one every 10 ms, Hann's [B 3000 400]
    -> spectrum [B 3000 201] -> triangles of equal area [B 3000 80]
    -> log10, no lower than 8 below the loudest of the sound -> (x + 4) / 4

Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision
(arXiv 2212.04356), `whisper/audio.py`. Unlike Kaldi's bank (fbank.py), windows
reach beyond the ends, and every value depends on the loudest one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers.fbank import HOP, RATE, WINDOW, check_waves, windows
from mmjax.sharding import on_rows
from mmjax.typing import Array, Float

_FLOOR, _RANGE = 1e-10, 8.0
# Slaney's mel scale: even up to 1 kHz, in equal ratios above.
_STEP, _KNEE = 200 / 3, 1_000.0
_RATIO = np.log(6.4) / 27


def whisper_mel(
  waves: Float[Array, "B samples"], bands: int = 80
) -> Float[Array, "B T bands"]:
  """What Whisper hears, float32; a frame for every 160 samples.

  Whisper was trained on 30 seconds, with zeros behind what is shorter.

  Args:
    waves: at 16 kHz, on -1..1.
    bands: from 0 Hz to 8 kHz; 80, and 128 in large-v3.

  Raises:
    ValueError: for another shape or kind of numbers, or less than a window.
  """
  check_waves(waves)
  return on_rows(_whisper_mel, waves, jnp.asarray(triangles(bands)))


def _whisper_mel(waves, bank):
  waves = waves.astype(jnp.float32)
  frames = waves.shape[1] // HOP
  x = jnp.pad(waves, ((0, 0), (WINDOW // 2, WINDOW // 2)), mode="reflect")
  # Periodic: the first of the next window's is left out.
  hann = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
  spectrum = jnp.fft.rfft(windows(x)[:, :frames] * hann)
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  # Bands differ by many orders of magnitude; half precision would mix them.
  energy = jnp.matmul(power, bank, precision=jax.lax.Precision.HIGHEST)
  x = jnp.log10(jnp.maximum(energy, _FLOOR))
  loudest = x.max(axis=(1, 2), keepdims=True)
  return (jnp.maximum(x, loudest - _RANGE) + 4) / 4


@functools.cache
def triangles(bands: int) -> Float[np.ndarray, "_ bands"]:
  """What each frequency of the spectrum gives to each band."""
  edges = _hertz(np.linspace(0, _mel(RATE / 2), bands + 2))
  low, centre, high = edges[:-2], edges[1:-1], edges[2:]
  hertz = (np.arange(WINDOW // 2 + 1) * RATE / WINDOW)[:, None]
  rising = (hertz - low) / (centre - low)
  falling = (high - hertz) / (high - centre)
  heights = 2 / (high - low)
  bank = np.maximum(np.minimum(rising, falling), 0) * heights
  return bank.astype(np.float32)


def _mel(hertz: float) -> float:
  if hertz < _KNEE:
    return hertz / _STEP
  return _KNEE / _STEP + np.log(hertz / _KNEE) / _RATIO


def _hertz(mel: Float[np.ndarray, "_"]) -> Float[np.ndarray, "_"]:
  above = _KNEE * np.exp(_RATIO * (mel - _KNEE / _STEP))
  return np.where(mel < _KNEE / _STEP, mel * _STEP, above)
