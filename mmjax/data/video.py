"""Clips: a few frames at a steady rate, through PyAV."""

import functools
import io
import math

import numpy as np

from mmjax.data import promised
from mmjax.data.document import MAX_BYTES, BadSample
from mmjax.data.image import MAX_PIXELS
from mmjax.typing import UInt8

# Decoded at most for one clip: more than two minutes at 60 a second.
MAX_DECODED = 10_000
# Seconds; half a tick, for times that are rounded to the time base.
GRACE = 1e-3
# Seconds; what a clip may end before its container says, though it was cut.
TAIL = 0.1
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
    BadSample: for damaged, oversized and other files, one that was cut before
      the last of the frames, or one without frames.
    ImportError: when PyAV is not installed.
  """
  try:
    import av
  except ImportError as error:
    raise ImportError("Video needs PyAV: pip install av") from error
  try:
    with av.open(io.BytesIO(data), format=container(data, name)) as file:
      found = _Clip(file, data, name).sample(frames, fps, start, end)
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


class _Clip:
  """An open file.

  Attributes:
    stream: of its frames.
    first: its first time stamp in seconds, which may be any where a clip was
      cut out of a longer one.
  """

  def __init__(self, file, data: bytes, name: str):
    self.file, self.data, self.name = file, data, name
    if not file.streams.video:
      raise BadSample(f"{name} has no video stream.")
    self.stream = file.streams.video[0]
    if self.stream.codec_context is None:
      raise BadSample(
        f"{name} has a video stream without a codec that is known: it was cut, "
        "or needs to be converted, to H.264 for example."
      )
    width, height = self.stream.width, self.stream.height
    if width * height > MAX_PIXELS:
      raise BadSample(f"{name} is {width}x{height}, the cap is {MAX_PIXELS}.")
    # FFmpeg counts in microseconds.
    self.first = (file.start_time or 0) / 1e6

  def sample(
    self, frames: int, fps: float | None, start: float, end: float | None
  ) -> list[UInt8[np.ndarray, "height width 3"]]:
    """The frames that `decode` gives."""
    if fps is None:
      fps = frames / self.seconds(start, end)
    if start > 0:
      at = int((self.first + start) / self.stream.time_base)
      self.file.seek(at, stream=self.stream)
    found: list[np.ndarray] = []
    due, last = start, None
    for count, frame in enumerate(self.file.decode(self.stream)):
      self._check_frame(frame, count, due)
      time = None if frame.time is None else frame.time - self.first
      if time is None or (end is not None and time >= end):
        break
      passed = time - start + GRACE
      if passed >= due - start:
        found.append(frame.to_ndarray(format="rgb24"))
        due = start + (math.floor(passed * fps) + 1) / fps
      if len(found) == frames:
        break
      last = time + float((frame.duration or 0) * frame.time_base)
    else:
      self._check_end(last, due, end)
    return found

  def _check_frame(self, frame, count: int, due: float) -> None:
    if (frame.width, frame.height) != (self.stream.width, self.stream.height):
      raise BadSample(f"{self.name} changes its size at frame {count}.")
    if count >= MAX_DECODED:
      raise BadSample(
        f"{self.name} has more than {MAX_DECODED} frames before {due:.1f} s, "
        "which is the cap. Name a start and an end, or cut the clip."
      )

  def _check_end(
    self, last: float | None, due: float, end: float | None
  ) -> None:
    """Whether frames that are due are missing, as the file was cut.

    That the last frame is long before the end is no sign of it: it may be
    shown until then.
    """
    if last is None or not self.is_cut or self.whole is None:
      return
    wanted = self.whole if end is None else min(end, self.whole)
    if max(last, due) < wanted - TAIL:
      raise BadSample(
        f"{self.name} ends at {last:.1f} s of {self.whole:.1f} s: it is cut. "
        "Fetch it again."
      )

  def seconds(self, start: float, end: float | None) -> float:
    """How long the part is, by its container where `end` does not say."""
    whole = self.whole
    last = whole if end is None else end
    if last is None or last <= start:
      raise BadSample(
        f"{self.name} has {whole} seconds by its container, no time between "
        f"{start} and {end}."
      )
    return (last if whole is None else min(last, whole)) - start

  @functools.cached_property
  def is_cut(self) -> bool:
    """Whether bytes are missing that the container counts."""
    return promised.is_cut(self.data, container(self.data))

  @functools.cached_property
  def whole(self) -> float | None:
    """How many seconds there are from the first time stamp on.

    The duration that Matroska states is by some writers (FFmpeg, Chrome) the
    time stamp at which a clip ends, and by others (GStreamer, mkvmerge) how
    long it is. Where the first is not 0, the packets tell which. Of an AVI that
    was cut FFmpeg states what is left, and the header how much there was.
    """
    if self.file.duration is None:
      return None
    whole, form = self.file.duration / 1e6, container(self.data)
    if form == "matroska" and self.first > 0:
      self.file.seek(self.file.start_time)
      packets = [p for p in self.file.demux() if p.pts is not None]
      ends = [(p.pts + (p.duration or 0)) * p.time_base for p in packets]
      self.file.seek(self.file.start_time)
      whole = min(whole, float(max([whole, *ends])) - self.first)
    if form == "avi" and self.is_cut:
      whole = max(whole, promised.avi_seconds(self.data))
    return whole
