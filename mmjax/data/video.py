"""Clips: a few frames at a steady rate, through PyAV."""

import io
import math

import numpy as np

from mmjax.data.document import MAX_BYTES, BadSample
from mmjax.data.image import MAX_PIXELS
from mmjax.typing import UInt8

# Decoded at most for one clip: more than two minutes at 60 a second.
MAX_DECODED = 10_000
# Seconds; half a tick, for times that are rounded to the time base.
GRACE = 1e-3
# Demuxers by how a file begins. FFmpeg is never left to guess: some of its
# formats are playlists that name other files and hosts.
CONTAINERS = (
  (4, b"ftyp", "mp4"),
  # QuickTime's files are older than the box that names their kind.
  *((4, box, "mp4") for box in (b"moov", b"mdat", b"wide", b"free", b"skip")),
  (0, b"\x1a\x45\xdf\xa3", "matroska"),
  (8, b"AVI ", "avi"),
)


def decode(
  data: bytes,
  frames: int = 8,
  fps: float | None = 1.0,
  start: float = 0.0,
  end: float | None = None,
  name: str = "video",
) -> UInt8[np.ndarray, "T height width 3"]:
  """Frames at `start`, `start + 1/fps`, ...; fewer when the clip is short.

  Times count from where the clip begins, whatever its first time stamp. A gap
  is passed over: no more frames a second are taken behind it. A rotation that
  the container states is not applied, as for pictures.

    a clip of 3.5 s at fps=1, frames=8  ->  frames at 0, 1, 2 and 3 s

  Args:
    data: an MP4/MOV, Matroska/WebM or AVI file.
    frames: how many at most.
    fps: how many a second; None spreads `frames` over all of the clip, each
      at the beginning of its share.
    start: seconds.
    end: seconds; no frame at or after it.
    name: what an error calls it.

  Raises:
    BadSample: for damaged, oversized and other files, or one without frames.
    ImportError: when PyAV is not installed.
  """
  try:
    import av
  except ImportError as error:
    raise ImportError("Video needs PyAV: pip install av") from error
  try:
    with av.open(io.BytesIO(data), format=container(data, name)) as file:
      found = _sample(file, frames, fps, start, end, name)
  except BadSample:
    raise
  # Damaged files end in av.error.*, ValueError, IndexError, MemoryError.
  except Exception as error:
    raise BadSample(
      f"{name} cannot be decoded: {type(error).__name__}: {error}"
    ) from error
  if not found:
    raise BadSample(f"{name} has no frame from {start} s on.")
  return np.stack(found)


def container(data: bytes, name: str = "video") -> str:
  """FFmpeg's name of the container that a file begins as."""
  cap = MAX_BYTES["video"]
  if len(data) > cap:
    raise BadSample(f"{name} has {len(data)} bytes, the cap is {cap}.")
  for at, magic, demuxer in CONTAINERS:
    if data[at : at + len(magic)] == magic:
      return demuxer
  raise BadSample(
    f"{name} is no MP4, Matroska or AVI; it begins with {data[:12]!r}."
  )


def _sample(file, frames, fps, start, end, name) -> list[np.ndarray]:
  if not file.streams.video:
    raise BadSample(f"{name} has no video stream.")
  stream = file.streams.video[0]
  if stream.width * stream.height > MAX_PIXELS:
    raise BadSample(
      f"{name} is {stream.width}x{stream.height}, the cap is {MAX_PIXELS}."
    )
  first = _first(file)
  if fps is None:
    fps = frames / _seconds(file, start, end, name)
  if start > 0:
    file.seek(int((first + start) / stream.time_base), stream=stream)
  found: list[np.ndarray] = []
  due = start
  for count, frame in enumerate(file.decode(stream)):
    if (frame.width, frame.height) != (stream.width, stream.height):
      raise BadSample(f"{name} changes its size at frame {count}.")
    if count >= MAX_DECODED:
      raise BadSample(
        f"{name} has more than {MAX_DECODED} frames before {due} s."
      )
    if frame.time is None or (end is not None and frame.time - first >= end):
      break
    passed = frame.time - first - start + GRACE
    if passed >= due - start:
      found.append(frame.to_ndarray(format="rgb24"))
      due = start + (math.floor(passed * fps) + 1) / fps
    if len(found) == frames:
      break
  return found


def _seconds(file, start: float, end: float | None, name: str) -> float:
  """How long a clip is, by its container where `end` does not say."""
  whole = _whole(file)
  last = whole if end is None else end
  if last is None or last <= start:
    raise BadSample(
      f"{name} has {whole} seconds by its container, no time between {start} "
      f"and {end}."
    )
  return (last if whole is None else min(last, whole)) - start


def _first(file) -> float:
  """The first time stamp; of what was cut out of a longer clip it is any."""
  # FFmpeg counts in microseconds.
  return (file.start_time or 0) / 1e6


def _whole(file) -> float | None:
  """How many seconds there are from the first time stamp on.

  The duration that Matroska states is by some writers (FFmpeg, Chrome) the
  time stamp at which a clip ends, and by others (GStreamer, mkvmerge) how long
  it is. Where the first is not 0, the packets tell which.
  """
  if file.duration is None:
    return None
  whole, first = file.duration / 1e6, _first(file)
  if first > 0 and "matroska" in file.format.name:
    packets = [p for p in file.demux() if p.pts is not None]
    ends = [(p.pts + (p.duration or 0)) * p.time_base for p in packets]
    file.seek(file.start_time)
    whole = min(whole, max(whole, *map(float, ends)) - first)
  return whole
