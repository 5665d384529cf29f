"""The one form that every record is read into.

  Document(
    (Media("image", b"..."), Text("Question: what is it? Answer:"),
     Text(" a cat", target=True)),
    id="vqa/17", metadata={"answers": ["a cat", "cat"]})

What a model is trained to say is decided here, by `target`, when the record
is read; nothing later looks for it in a string.
"""

import contextlib
import dataclasses
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# What an encoded medium may weigh; more is refused before it is read.
MAX_BYTES = {
  "image": 64 * 2**20,
  "video": 512 * 2**20,
  "audio": 512 * 2**20,
  "points": 64 * 2**20,
}
KINDS = tuple(MAX_BYTES)


class BadSample(ValueError):
  """A record that cannot be used: corrupt, hostile or incomplete.

  The pipeline masks it out, counts and logs it, and stops past a budget.
  """


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
  """Whatever a medium's decoder raises is a bad sample that names the medium.

  Decoders fail on damaged files in more ways than they say. The error's type
  is told: should the fault be ours, `max_bad_fraction` stops the run. A package
  or memory that is missing is no fault of the sample's.
  """
  try:
    yield
  except (BadSample, ImportError, MemoryError):
    raise
  except Exception as error:
    raise BadSample(
      f"{name} cannot be read: {type(error).__name__}: {error!s:.200}"
    ) from error


def printable(text: str) -> str:
  """On one line, without what a terminal or a log would obey."""
  return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Filtered(Exception):
  """A sound record that an option of its format leaves out."""


@dataclasses.dataclass(frozen=True)
class Text:
  """A piece of text.

  Attributes:
    text: as it is, its spaces included; pieces are joined with nothing.
    target: whether a model learns to say it.
    end: whether a chunk ends after it, though no medium follows.
  """

  text: str
  target: bool = False
  end: bool = False


@dataclasses.dataclass(frozen=True)
class File:
  """A file that is read when it is asked for."""

  path: str

  def read(self, max_bytes: int) -> bytes:
    """All of it; a larger file is refused before it is read.

    So is what is no plain file: a pipe would never end.
    """
    try:
      status = Path(self.path).stat()
      if not stat.S_ISREG(status.st_mode):
        raise BadSample(f"{self.path} is no plain file.")
      if status.st_size > max_bytes:
        raise BadSample(
          f"{self.path} has {status.st_size} bytes, the cap is {max_bytes}."
        )
      return Path(self.path).read_bytes()
    except OSError as error:
      what = error.strerror or error
      raise BadSample(f"Cannot read {self.path}: {what}.") from error


@dataclasses.dataclass(frozen=True)
class Media:
  """A picture, clip, sound or cloud of points.

  Attributes:
    kind: one of KINDS.
    payload: an encoded file as bytes, a decoded array, or a `File`.
    name: what the log calls it.
    metadata: start and end of a clip, a sampling rate, ...
  """

  kind: str
  payload: bytes | np.ndarray | File
  name: str = ""
  metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f"kind is {self.kind!r}, expected one of {KINDS}.")

  def load(self) -> bytes | np.ndarray:
    """The payload itself; only a `File` is read."""
    if isinstance(self.payload, File):
      return self.payload.read(MAX_BYTES[self.kind])
    return self.payload

  def __str__(self) -> str:
    payload = self.payload
    if isinstance(payload, np.ndarray):
      what = f"{payload.dtype}{list(payload.shape)}"
    elif isinstance(payload, File):
      what = payload.path
    else:
      what = f"{len(payload):,} bytes"
    return f"<{self.kind} {self.name + ' ' if self.name else ''}{what}>"


Segment = Text | Media


@dataclasses.dataclass(frozen=True)
class Document:
  """Texts and media in their order.

  Attributes:
    segments: the content.
    id: names the record in logs; unique in its source.
    metadata: what evaluation needs (answers, boxes, ...).
  """

  segments: tuple[Segment, ...]
  id: str = ""
  metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def media(self) -> tuple[Media, ...]:
    return tuple(s for s in self.segments if isinstance(s, Media))

  @property
  def text(self) -> str:
    return "".join(s.text for s in self.segments if isinstance(s, Text))

  def answered(self, text: str) -> "Document":
    """The document with an answer behind it, which may be empty."""
    answer = Text(text, target=True, end=True)
    return dataclasses.replace(self, segments=(*self.segments, answer))

  def query(self) -> "Document":
    """The document up to the last target: what a model is asked.

    image "Answer:" "a cat"*   ->   image "Answer:"
    """
    segments = list(self.segments)
    while segments and not _is_target(segments[-1]):
      segments.pop()
    while segments and _is_target(segments[-1]):
      segments.pop()
    if not segments:
      raise ValueError(f"Document {self.id!r} has nothing before its answer.")
    return dataclasses.replace(self, segments=tuple(segments))

  def __str__(self) -> str:
    lines = [f"document {self.id or '(no id)'}"]
    for segment in self.segments:
      if isinstance(segment, Media):
        lines.append(f"    {segment}")
      else:
        mark = "*" if segment.target else " "
        end = " |" if segment.end else ""
        lines.append(f"  {mark} {segment.text!r}{end}")
    lines += [f"  {k} = {v!r}" for k, v in self.metadata.items()]
    return "\n".join(lines)


def _is_target(segment: Segment) -> bool:
  return isinstance(segment, Text) and segment.target


def join(documents: Sequence[Document], **changes: Any) -> Document:
  """One document after the other, each a chunk of its own.

  Args:
    documents: support examples first, the query last.
    **changes: fields of the last document to replace (`id`, `metadata`).
  """
  segments: list[Segment] = []
  for i, document in enumerate(documents):
    part = list(document.segments)
    if i < len(documents) - 1 and part and isinstance(part[-1], Text):
      part[-1] = dataclasses.replace(part[-1], end=True)
    segments += part
  return dataclasses.replace(documents[-1], segments=tuple(segments), **changes)
