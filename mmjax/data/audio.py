"""Sound: safe decoding to mono float32 at one rate."""

import io
import math

import numpy as np
from scipy import signal

from mmjax.data.document import MAX_BYTES, BadSample
from mmjax.typing import Float

# An hour at 16 kHz; a header can promise any number of samples, and some
# hundred bytes of FLAC hold a minute of silence.
MAX_SAMPLES = 16_000 * 3_600
RATES = (1_000, 768_000)
# The filter between two rates has taps by the larger of them, without what
# they have in common: 441 of 44,100 and 16,000, but all of 767,999.
MAX_RATIO = 50_000


def decode(
  data: bytes, rate: int = 16_000, name: str = "audio"
) -> Float[np.ndarray, "samples"]:
  """A sound file as one channel at `rate`.

  Channels are averaged; another rate is changed with a polyphase filter.

  Args:
    data: a WAV, FLAC, OGG or MP3 file.
    rate: samples a second of the result.
    name: what an error calls it.

  Raises:
    BadSample: for damaged, oversized or empty files, and for samples that are
      not finite.
    ImportError: when soundfile is not installed.
  """
  try:
    import soundfile
  except ImportError as error:
    raise ImportError("Sound needs soundfile: pip install soundfile") from error
  cap = MAX_BYTES["audio"]
  if len(data) > cap:
    raise BadSample(f"{name} has {len(data)} bytes, the cap is {cap}.")
  try:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
      if file.frames * file.channels > MAX_SAMPLES:
        raise BadSample(
          f"{name} has {file.frames} samples in {file.channels} channels, the "
          f"cap is {MAX_SAMPLES}."
        )
      if not RATES[0] <= file.samplerate <= RATES[1]:
        raise BadSample(
          f"{name} says {file.samplerate} samples a second, expected "
          f"{RATES[0]} to {RATES[1]}."
        )
      if file.samplerate // math.gcd(file.samplerate, rate) > MAX_RATIO:
        raise BadSample(
          f"{name} says {file.samplerate} samples a second, which is no rate "
          f"of sound: {rate} is wanted, and they have too little in common."
        )
      if file.frames * rate > MAX_SAMPLES * file.samplerate:
        raise BadSample(
          f"{name} would have more than {MAX_SAMPLES} samples at {rate} a "
          "second."
        )
      wave = file.read(dtype="float32", always_2d=True).mean(axis=1)
      found = file.samplerate
  except soundfile.SoundFileError as error:
    raise BadSample(f"{name} cannot be decoded: {error}") from error
  return resample(check(wave, name), found, rate)


def check(
  wave: Float[np.ndarray, "samples"], name: str = "audio"
) -> Float[np.ndarray, "samples"]:
  """The wave itself, when it has samples and all are finite."""
  if not wave.size:
    raise BadSample(f"{name} has no samples.")
  if not np.isfinite(wave).all():
    count = int((~np.isfinite(wave)).sum())
    raise BadSample(f"{name} has {count} samples that are not finite.")
  return wave


def resample(
  wave: Float[np.ndarray, "samples"], found: int, wanted: int
) -> Float[np.ndarray, "_"]:
  """From one rate to another: 8000 samples at 8 kHz -> 16000 at 16 kHz."""
  if found == wanted:
    return wave
  common = np.gcd(found, wanted)
  changed = signal.resample_poly(wave, wanted // common, found // common)
  return changed.astype(np.float32)
