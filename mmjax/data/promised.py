"""How many bytes a file says that it has, to tell one that was cut.

Decoders read what is there, and say nothing of the rest.
"""

import struct
from collections.abc import Iterator

# Sizes that stand for "until the end", as of what was written into a pipe: 0,
# the largest there is, or about 2 GB; no file that is read has as many bytes.
ENDLESS = 0x7FF0_0000
# Some writers count their own header.
SLACK = 64
# Looked at before what is wanted; files of sound have a few.
MAX_CHUNKS = 10_000
WAVE64 = "<16sQ"
# How a file begins: where its chunks do, how the name and size of each are
# packed, to what they are filled up, and the name of the one with the samples.
SOUNDS = {
  b"RIFF": (12, "<4sI", 2, b"data"),
  b"RIFX": (12, ">4sI", 2, b"data"),
  b"RF64": (12, "<4sI", 2, b"data"),
  b"FORM": (12, ">4sI", 2, b"SSND"),
  b"caff": (8, ">4sQ", 1, b"data"),
  b"riff": (40, WAVE64, 8, b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")),
}
AU = {b".snd": ">II", b"dns.": "<II"}
SEGMENT = b"\x18\x53\x80\x67"


def sound(data: bytes) -> tuple[int, int] | None:
  """Bytes of samples that a sound says it has, and has, where some are missing.

  None for files other than WAV, RF64, AIFF, AU, CAF and Wave64.
  """
  kind = data[:4]
  if kind in AU and len(data) >= 12:
    start, size = struct.unpack_from(AU[kind], data, 4)
    return _missing(size, max(0, len(data) - start))
  if kind not in SOUNDS:
    return None
  start, form, fill, wanted = SOUNDS[kind]
  whole = None
  for name, at, size in _chunks(data, start, form, fill):
    if name == b"ds64" and len(data) >= at + 16:
      (whole,) = struct.unpack_from("<Q", data, at + 8)
    if name == wanted:
      if size == 2**32 - 1 and whole is not None:
        size = whole
      return _missing(size, len(data) - at)
  return None


def _missing(size: int, there: int) -> tuple[int, int] | None:
  return (size, there) if there + SLACK < size < ENDLESS else None


def _chunks(
  data: bytes, at: int, form: str, fill: int
) -> Iterator[tuple[bytes, int, int]]:
  """Name, place and size of what is in each chunk; Wave64 counts the head."""
  head = struct.calcsize(form)
  for _ in range(MAX_CHUNKS):
    if at + head > len(data):
      return
    name, size = struct.unpack_from(form, data, at)
    size -= head if form == WAVE64 else 0
    if size < 0:
      return
    at += head
    yield name, at, size
    at += size + -size % fill


def is_cut(data: bytes, container: str) -> bool:
  """Whether a video ends before its frames do, by its outermost parts.

  Args:
    data: the file.
    container: "mp4", "matroska" or "avi".
  """
  ends = {"mp4": _mp4, "matroska": _matroska, "avi": _avi}[container](data)
  return ends > len(data) + SLACK


def _mp4(data: bytes) -> int:
  """Where the last box ends: size, name, and of large ones a longer size."""
  at = 0
  for _ in range(MAX_CHUNKS):
    if at + 16 > len(data):
      break
    size, _, long = struct.unpack_from(">I4sQ", data, at)
    size = long if size == 1 else size
    if size < 8:
      break
    at += size
  return at


def _matroska(data: bytes) -> int:
  """Where the segment ends, which holds all but a head; 0 if it is not said."""
  at = data.find(SEGMENT, 0, 4096) + len(SEGMENT)
  if at < len(SEGMENT) or at >= len(data) or not data[at]:
    return 0
  # A size is as long as the first byte has leading zeros; all ones is unknown.
  width = 9 - data[at].bit_length()
  unknown = (1 << 7 * width) - 1
  size = int.from_bytes(data[at : at + width]) & unknown
  return 0 if size == unknown else at + width + size


def _avi(data: bytes) -> int:
  """Where the list of frames ends; 0 if it is not said."""
  for name, at, size in _chunks(data, 12, "<4sI", 2):
    if name == b"LIST" and data[at : at + 4] == b"movi":
      return at + size if 0 < size < ENDLESS else 0
  return 0


def avi_seconds(data: bytes) -> float:
  """How long an AVI is by its first header; FFmpeg corrects what was cut."""
  if data[24:28] != b"avih" or len(data) < 52:
    return 0.0
  micros, frames = (struct.unpack_from("<I", data, at)[0] for at in (32, 48))
  return micros * frames / 1e6
