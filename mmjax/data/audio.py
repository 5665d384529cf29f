"""Sound: safe decoding to mono float32 at one rate, and cutting."""

import io
import math
from collections.abc import Iterator

import numpy as np

from mmjax.data import promised
from mmjax.data.document import MAX_BYTES, BadSample
from mmjax.typing import Float, Int

# Samples a second that filter banks are made for.
RATE = 16_000
# An hour; a header can promise any number of samples, and some hundred bytes
# of FLAC hold a minute of silence.
MAX_SAMPLES = RATE * 3_600
RATES = (1_000, 768_000)
# The filter between two rates has taps by the larger of them, without what
# they have in common: 441 of 44,100 and 16,000, but all of 767,999.
MAX_RATIO = 50_000
# Integers of int16 that are kept as floats reach 32,768. Squares of what is
# much larger overflow in the filter banks, and the features are NaN.
MAX_LEVEL = 2**16
# What soundfile says of a FLAC that was written into a pipe.
UNKNOWN = 2**63 - 1
# Of the channels' level, what is left of it in their mean: -60 dB.
CANCELLED = 1e-3
# Samples of all channels that are read at once of codecs that cannot seek.
BLOCK = 2**18


def decode(
  data: bytes, rate: int = RATE, name: str = "audio"
) -> Float[np.ndarray, "samples"]:
  """A sound file as one channel at `rate`.

  Channels are averaged; another rate is changed with a polyphase filter. Where
  channels cancel each other, as those of a line whose plug is wired the wrong
  way, the file is refused: which of them is meant is not ours to say.

  Args:
    data: a WAV, FLAC, OGG or MP3 file.
    rate: samples a second of the result.
    name: what an error calls it.

  Raises:
    BadSample: for damaged, oversized or empty files, for samples that are not
      finite or beyond MAX_LEVEL, and for channels that cancel each other.
    ImportError: when soundfile is not installed.
  """
  wave, found = read(data, rate, name)
  return check(resample(wave, found, rate), name)


def read(
  data: bytes, rate: int = RATE, name: str = "audio"
) -> tuple[Float[np.ndarray, "samples"], int]:
  """A sound file as one channel at its own rate, and that rate.

  Args and errors are those of `decode`: `rate` is what it has to lead to.
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
      _check_header(file, rate, name)
      _check_whole(data, name)
      return _mono(file, name), file.samplerate
  except BadSample:
    raise
  except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
    # Without what soundfile calls the bytes.
    what = getattr(error, "error_string", error)
    raise BadSample(
      f"{name} cannot be decoded as WAV, FLAC, OGG or MP3: {what}"
    ) from error


def _check_header(file, rate: int, name: str) -> None:
  if file.frames == UNKNOWN:
    raise BadSample(
      f"{name} does not say how many samples it has, as of what was written "
      "into a pipe. Write it to a file, with ffmpeg for example."
    )
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
      f"{name} would have more than {MAX_SAMPLES} samples at {rate} a second."
    )


def _check_whole(data: bytes, name: str) -> None:
  """Whether all samples are there; decoders make do with what is."""
  missing = promised.sound(data)
  if missing is not None:
    says, there = missing
    raise BadSample(
      f"{name} is cut: its header says {says} bytes of samples, {there} are "
      "there. Fetch it again."
    )


def _mono(file, name: str) -> Float[np.ndarray, "samples"]:
  """The mean of the channels of an open file."""
  means, power = [], 0.0
  for block in _blocks(file, name):
    _check_level(block, name)
    power += float(np.vdot(block, block)) / file.channels
    means.append(block.mean(axis=1))
  wave = check(np.concatenate(means), name)
  if float(np.vdot(wave, wave)) < CANCELLED**2 * power:
    raise BadSample(
      f"{name} has {file.channels} channels that cancel each other: nothing is "
      "left of their mean. Keep one of them."
    )
  return wave


def _blocks(file, name: str) -> Iterator[Float[np.ndarray, "_ channels"]]:
  """All samples, in one block where the codec can seek.

  GSM 6.10 and others cannot, so that only their end tells how many there are.
  """
  if file.seekable():
    yield file.read(dtype="float32", always_2d=True)
    return
  total, size = 0, max(1, BLOCK // file.channels)
  while True:
    block = file.read(size, dtype="float32", always_2d=True)
    total += block.size
    if total > MAX_SAMPLES:
      raise BadSample(
        f"{name} has more than {MAX_SAMPLES} samples in {file.channels} "
        "channels, which is the cap."
      )
    yield block
    if not len(block):
      return


def check(
  wave: Float[np.ndarray, "samples"], name: str = "audio"
) -> Float[np.ndarray, "samples"]:
  """The wave itself, when it has samples, all finite and within MAX_LEVEL."""
  if not wave.size:
    raise BadSample(f"{name} has no samples.")
  _check_level(wave, name)
  return wave


def _check_level(samples: Float[np.ndarray, "..."], name: str) -> None:
  # Of what is not a number there is no largest.
  level = max(samples.max(), -samples.min()) if samples.size else 0.0
  if not np.isfinite(level):
    count = int((~np.isfinite(samples)).sum())
    raise BadSample(f"{name} has {count} samples that are not finite.")
  if level > MAX_LEVEL:
    raise BadSample(
      f"{name} has samples as large as {level:.3g}, expected 1 or less, or "
      f"integers as floats up to 32768 (the cap is {MAX_LEVEL}). Scale it down."
    )


def part(
  wave: Float[np.ndarray, "samples"],
  rate: int,
  start: float = 0.0,
  end: float | None = None,
  name: str = "audio",
) -> Float[np.ndarray, "_"]:
  """A wave from `start` to `end` seconds, where it has samples there."""
  last = None if end is None else round(end * rate)
  return check(wave[round(start * rate) : last], name)


def resample(
  wave: Float[np.ndarray, "samples"], found: int, wanted: int
) -> Float[np.ndarray, "_"]:
  """From one rate to another: 8000 samples at 8 kHz -> 16000 at 16 kHz."""
  if found == wanted:
    return wave
  # Takes a second to import, in every process that reads anything.
  from scipy import signal

  common = np.gcd(found, wanted)
  changed = signal.resample_poly(wave, wanted // common, found // common)
  return changed.astype(np.float32)


def segments(
  wave: Float[np.ndarray, "samples"],
  count: int | None = None,
  frames: int = 512,
  window: int = 400,
  hop: int = 160,
) -> tuple[Float[np.ndarray, "M _"], Int[np.ndarray, "M"]]:
  """Cuts a wave for an encoder that sees so many frames at a time.

  A frame is a window of samples, one every hop (25 and 10 ms at 16 kHz), so
  that segments have in common what their windows overlap. Frames together are
  those of the whole wave. With 2 frames a segment, a window of 4 and a hop of
  2, and `-` for samples that are missing:

    0 1 2 3 4 5 6 7 8  ->  0 1 2 3 4 5   4 5 6 7 8 -    lengths 6, 5

  The lengths tell the encoder which frames are not of the wave; it makes them
  zeros, which samples of zero would not become. A wave shorter than a window
  has one, filled up with silence: without, it would be as no sound at all.

  Args:
    wave: one channel.
    count: of segments, as X-InstructBLIP trains with 2: what is longer is cut,
      and what is shorter filled up with empty ones. None is as many as hold
      all windows of the wave, and one for a wave of none.
    frames: of a segment.
    window, hop: in samples.

  Returns:
    the segments, each of (frames - 1) * hop + window samples, and how many of
    these are of the wave.
  """
  if 0 < len(wave) < window:
    wave = np.pad(wave, (0, window - len(wave)))
  if count is None:
    count = max(1, -(-((len(wave) - window) // hop + 1) // frames))
  size, step = (frames - 1) * hop + window, frames * hop
  whole = np.zeros((count - 1) * step + size, np.float32)
  wave = wave[: len(whole)]
  whole[: len(wave)] = wave
  cut = np.lib.stride_tricks.sliding_window_view(whole, size)[::step]
  lengths = np.clip(len(wave) - step * np.arange(count), 0, size)
  return np.ascontiguousarray(cut), lengths.astype(np.int32)
