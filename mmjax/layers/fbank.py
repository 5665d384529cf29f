"""The log mel filter bank of Kaldi, of waveforms that are on the device.

  waveform [B 82160] at 16 kHz -> windows of 25 ms, one every 10 ms [B 512 400]
    -> mean taken off, pre-emphasis, Povey's window -> spectrum [B 512 257]
    -> triangles that are even on the mel scale -> log [B 512 128]

It runs inside jit, and not where data are read: what travels is the waveform,
a quarter larger than the bank and smaller at float16, and what the device
makes of it cannot differ between training and use. Only windows that lie
within the waveform count, as with Kaldi's `snip-edges`; no dither.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.sharding import on_rows
from mmjax.typing import Array, Float, Int

RATE = 16_000
WINDOW, HOP = 400, 160
_FFT = 512
_EMPHASIS = 0.97
_LOWEST = 20.0
# Energies are those of 16-bit numbers; none is taken for smaller than this.
_SCALE, _FLOOR = 2.0**15, float(np.finfo(np.float32).eps)


def samples_of(frames: int) -> int:
  """The length of a waveform that has so many windows, and none to spare."""
  return (frames - 1) * HOP + WINDOW


def frames_of(samples: Int[Array, "B"]) -> Int[Array, "B"]:
  """Windows that lie within the first `samples` of each waveform."""
  return jnp.maximum((samples - WINDOW) // HOP + 1, 0)


def log_mel(
  waves: Float[Array, "B samples"], bands: int = 128
) -> Float[Array, "B T bands"]:
  """Natural logarithms of the energies in so many bands, float32.

  torchaudio's `compliance.kaldi.fbank` with its defaults. Silence gives the
  logarithm of float32's epsilon, -15.94.

  Args:
    waves: at 16 kHz, on -1..1.
    bands: from 20 Hz to 8 kHz.

  Raises:
    ValueError: for another shape or kind of numbers, or less than a window.
  """
  check_waves(waves)
  return on_rows(_log_mel, waves, jnp.asarray(_triangles(bands)))


def check_waves(waves: Array, lengths: Array | None = None) -> None:
  """Raises ValueError for what are no waveforms, or lengths of others."""
  if waves.ndim != 2 or not jnp.issubdtype(waves.dtype, jnp.floating):
    raise ValueError(
      f"Waveforms of shape {waves.shape} and dtype {waves.dtype}: expected "
      "[B samples] of floats on -1..1; average channels, divide whole numbers."
    )
  if waves.shape[1] < WINDOW:
    raise ValueError(
      f"Waveforms of {waves.shape[1]} samples: a window has {WINDOW}; pad them "
      "with zeros."
    )
  if lengths is not None and lengths.shape != waves.shape[:1]:
    raise ValueError(
      f"lengths of shape {lengths.shape} for waveforms of {waves.shape}: "
      f"expected {waves.shape[:1]}."
    )


def _log_mel(waves, triangles):
  x = windows(waves.astype(jnp.float32) * _SCALE)
  x -= x.mean(axis=-1, keepdims=True)
  before = jnp.concatenate([x[..., :1], x[..., :-1]], axis=-1)
  x = (x - _EMPHASIS * before) * _povey()
  spectrum = jnp.fft.rfft(x, n=_FFT)
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  # Bands differ by many orders of magnitude; half precision would mix them.
  energy = jnp.matmul(power, triangles, precision=jax.lax.Precision.HIGHEST)
  return jnp.log(jnp.maximum(energy, _FLOOR))


def windows(waves: Float[Array, "B samples"]) -> Float[Array, "B T _"]:
  """Overlapping windows, put together of slices.

  parts      0 1 2 3 4 5 6 7 8      each a window and a hop can be made of
  windows    0 1 2 3 4
                 2 3 4 5 6
                     4 5 6 7 8
  """
  part = int(np.gcd(WINDOW, HOP))
  window, hop = WINDOW // part, HOP // part
  frames = (waves.shape[1] - WINDOW) // HOP + 1
  parts = waves[:, : samples_of(frames)].reshape(waves.shape[0], -1, part)
  last = hop * (frames - 1) + 1
  return jnp.concatenate(
    [parts[:, i : i + last : hop] for i in range(window)], axis=-1
  )


def _povey() -> Float[np.ndarray, "_"]:
  """Hann's window to the power of 0.85."""
  return (np.hanning(WINDOW) ** 0.85).astype(np.float32)


@functools.cache
def _triangles(bands: int) -> Float[np.ndarray, "_ bands"]:
  """What each frequency of the spectrum gives to each band."""
  edges = np.linspace(_mel(_LOWEST), _mel(RATE / 2), bands + 2)
  low, centre, high = edges[:-2], edges[1:-1], edges[2:]
  mel = _mel(np.arange(_FFT // 2 + 1) * RATE / _FFT)[:, None]
  rising, falling = (mel - low) / (centre - low), (high - mel) / (high - centre)
  return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


def _mel(hertz):
  return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)
