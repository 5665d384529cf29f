"""Records of training sets to Documents.

A format is a frozen dataclass that is called with a record; its fields are
the named options of that data set's recipe. `Documents` applies it to a
source. What a record lacks is a `BadSample`; what an option leaves out is
`Filtered`.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.conversations import Conversations, Messages
from mmjax.data.document import (
  BadSample,
  Document,
  File,
  Filtered,
  Media,
  Text,
)
from mmjax.data.fields import base64_of, embedded, field, text_of
from mmjax.data.paths import below, check_folder
from mmjax.data.questions import QuestionAnswer
from mmjax.data.sources import Jsonl, Record, Source


class Documents:
  """The documents of a source of records."""

  def __init__(self, source: Source, read: Callable[[Record], Document]):
    self._source, self._read = source, read
    self.endless = getattr(source, "endless", False)

  @property
  def problems(self) -> Sequence[str]:
    """See `sources.Tar`."""
    return getattr(self._source, "problems", ())

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Document:
    document = self._read(self._source[index])
    if not document.media and not document.text.strip():
      raise BadSample(f"{document.id} has neither text nor media.")
    return document


@dataclasses.dataclass(frozen=True)
class MMC4:
  """Multimodal C4: sentences, and images assigned to some of them.

    text_list          ["A dog.", "It runs.", "The end."]
    similarity_matrix  [[0.1, 0.3, 0.2]]          one row an image
    ->  "A dog."  <image>  "It runs. The end."

  The images come in the order of their sentences, each before its own.

  Attributes:
    assignment: "hungarian" (each sentence gets at most one), "argmax" (the
      best sentence of each image), or "matched" (the data set's own
      `matched_text_index`).
    min_similarity: images below it are left out (OpenFlamingo's 0.24).
    min_kilobytes: an image has to have more whole kilobytes than this.
    max_images: the first so many stay.
    min_images: a document with fewer is filtered out.
    keep_single: share of the one-image documents that stay, chosen by id.
    folder: where the images are, when they are not in the record as base64.
  """

  assignment: str = "hungarian"
  min_similarity: float = 0.24
  min_kilobytes: int = 10
  max_images: int = 6
  min_images: int = 1
  keep_single: float = 1.0
  folder: str | None = None

  def __post_init__(self):
    if self.assignment not in ("hungarian", "argmax", "matched"):
      raise ValueError(
        f"assignment is {self.assignment!r}, expected 'hungarian', 'argmax' "
        "or 'matched'."
      )
    check_folder(self.folder)

  def __call__(self, record: Record) -> Document:
    record = embedded(record)
    name = str(record.get("__key__", ""))
    texts = [text_of(t, name) for t in field(record, "text_list", list)]
    infos = field(record, "image_info", list)
    scores = self._scores(record, len(infos), len(texts), name)
    images = self._images(infos, name)
    placed = self._place(images, infos, scores)[: self.max_images]
    if len(placed) < self.min_images:
      raise Filtered(
        f"{name} has {len(placed)} of {self.min_images} images left."
      )
    share = zlib.crc32(name.encode(errors="replace")) / 2**32
    if len(placed) == 1 and share >= self.keep_single:
      raise Filtered(f"{name} has one image.")
    return Document(
      tuple(_interleave(texts, placed)),
      id=name,
      metadata={"url": record.get("url", "")},
    )

  def _scores(self, record, images: int, texts: int, name: str) -> np.ndarray:
    rows = field(record, "similarity_matrix", list)
    try:
      scores = np.asarray(rows, np.float64)
    except (ValueError, TypeError, OverflowError):
      scores = np.array(np.nan)
    if not scores.size and not images * texts:
      scores = scores.reshape(images, texts)
    if scores.shape != (images, texts):
      raise BadSample(
        f"{name}: similarity_matrix is not {images} x {texts} numbers."
      )
    if not np.isfinite(scores).all():
      raise BadSample(f"{name}: similarity_matrix is not finite.")
    return scores

  def _images(self, infos: list, name: str) -> dict[int, Media]:
    """Those that are large enough, by their row."""
    found = {}
    for row, info in enumerate(infos):
      if not isinstance(info, dict):
        raise BadSample(f"{name}: image_info[{row}] is no object.")
      label = str(info.get("image_name", row))
      payload: bytes | File
      if "image_base64" in info:
        payload = base64_of(info["image_base64"], f"{name}:{label}")
        size = len(payload)
      elif self.folder is not None:
        payload = below(self.folder, label)
        path = Path(payload.path)
        # Those that are not there were not downloaded.
        size = path.stat().st_size if path.is_file() else 0
      else:
        raise BadSample(f"{name}:{label} has no image_base64, and no folder.")
      if size // 1000 > self.min_kilobytes:
        found[row] = Media("image", payload, label)
    return found

  def _place(
    self, images: Mapping[int, Media], infos: list, scores: np.ndarray
  ) -> list[tuple[int, Media]]:
    """(sentence, image) in the order of the sentences."""
    rows = list(images)
    if not rows or not scores.shape[1]:
      return []
    if self.assignment == "hungarian":
      # Takes half a second to import, in every process that reads anything.
      from scipy import optimize

      picked, columns = optimize.linear_sum_assignment(-scores[rows])
      pairs = [(rows[i], int(column)) for i, column in zip(picked, columns)]
    elif self.assignment == "argmax":
      pairs = [(row, int(scores[row].argmax())) for row in rows]
    else:
      pairs = [(row, _matched(infos[row], scores.shape[1])) for row in rows]
    pairs = [
      (row, column)
      for row, column in pairs
      if scores[row, column] >= self.min_similarity
    ]
    return [
      (c, images[r]) for r, c in sorted(pairs, key=lambda p: (p[1], p[0]))
    ]


def _matched(info: Mapping[str, Any], texts: int) -> int:
  index = info.get("matched_text_index")
  if type(index) is not int or not 0 <= index < texts:
    raise BadSample(
      f"{info.get('image_name')}: matched_text_index is {index!r:.40}, "
      f"expected a number from 0 to {texts - 1}."
    )
  return index


def _interleave(
  texts: Sequence[str], placed: Sequence[tuple[int, Media]]
) -> list[Text | Media]:
  segments: list[Text | Media] = []
  run: list[str] = []
  waiting = list(placed)
  for i, text in enumerate(texts):
    here = [media for column, media in waiting if column == i]
    if here and run:
      segments.append(Text(" ".join(run), target=True))
      run = []
    segments += here
    run.append(text)
  if run:
    segments.append(Text(" ".join(run), target=True))
  return segments


@dataclasses.dataclass(frozen=True)
class Obelics:
  """OBELICS: two lists of one length, of which one is None at every place.

    images [None, "u1", None]   texts ["A dog.", None, "It runs."]
    ->  "A dog."  <image u1>  "It runs."

  The published set names images by url; nothing is fetched here.

  Attributes:
    folder: where images are that a record names by a file.
    files: a jsonl of {"url": ..., "file": ...} for those named by url.
    missing: "error", or "drop" to leave out images that are not there.
    max_images: the first so many stay; text goes on.
  """

  folder: str | None = None
  files: str | None = None
  missing: str = "error"
  max_images: int = 30

  def __post_init__(self):
    if self.missing not in ("error", "drop"):
      raise ValueError(f"missing is {self.missing!r}: 'error' or 'drop'?")
    check_folder(self.folder)
    rows = [] if self.files is None else Jsonl(self.files)
    table = {
      field(row, "url", str): field(row, "file", str)
      for row in (rows[i] for i in range(len(rows)))
    }
    object.__setattr__(self, "_table", table)

  def __call__(self, record: Record) -> Document:
    name = str(record.get("__key__", ""))
    images = field(record, "images", list)
    texts = field(record, "texts", list)
    if len(images) != len(texts):
      raise BadSample(
        f"{name} has {len(images)} images and {len(texts)} texts; the lists "
        "have to be of one length."
      )
    segments: list[Text | Media] = []
    for image, text in zip(images, texts):
      if image is not None and text is not None:
        raise BadSample(
          f"{name} has the image {image!r:.60} and the text {text!r:.60} at "
          "one place; one of them has to be None."
        )
      if text is not None:
        segments.append(Text(text_of(text, name), target=True))
      elif image is not None:
        media = self._media(image, name)
        count = sum(isinstance(s, Media) for s in segments)
        if media is not None and count < self.max_images:
          segments.append(media)
    return Document(tuple(segments), id=name)

  def _media(self, image: Any, name: str) -> Media | None:
    if isinstance(image, Mapping):  # Hugging Face's image column
      image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
      return Media("image", image)
    if not isinstance(image, str):
      raise BadSample(f"{name}: an image is a {type(image).__name__}.")
    known = self._table.get(image, image)
    if self.folder is not None and "://" not in str(known):
      file = below(self.folder, known)
      if self.missing == "error" or Path(file.path).is_file():
        return Media("image", file, str(known))
    if self.missing == "drop":
      return None
    raise BadSample(
      f"{name}: image {str(image)[:80]!r} is not here. Give `folder` and "
      "`files`, or missing='drop'."
    )


@dataclasses.dataclass(frozen=True)
class Pairs:
  """A picture or clip and its text, from any of the sources.

    {"jpg": b"...", "txt": b"a cat"}  ->  <image>  "a cat"*

  Attributes:
    media: names the medium may have; the first that is there is taken.
    text: names the text may have, in the record or in its json.
    kind: "image" or "video".
  """

  media: Sequence[str] = (
    *("__file__", "jpg", "jpeg", "png", "webp"),
    *("image", "image/encoded"),
  )
  text: Sequence[str] = ("txt", "caption", "text", "captions")
  kind: str = "image"

  def __call__(self, record: Record) -> Document:
    name = str(record.get("__key__", ""))
    payload = _first(record, self.media, name)
    if isinstance(payload, Mapping):
      payload = payload.get("bytes")
    if not isinstance(payload, bytes | File | np.ndarray):
      raise BadSample(
        f"{name}: the {self.kind} is a {type(payload).__name__}, expected "
        "bytes or an array."
      )
    fields = embedded(record)
    texts = record if any(k in record for k in self.text) else fields
    text = _first(texts, self.text, name)
    if isinstance(text, np.ndarray):
      text = text.ravel().tolist()
    while isinstance(text, Mapping | list | tuple) and len(text):
      text = next(iter(text.values() if isinstance(text, Mapping) else text))
    clip = _seconds(fields, name) if self.kind == "video" else {}
    caption = text_of(text, name).strip()
    if not caption:
      raise BadSample(f"{name} has an empty text.")
    return Document(
      (
        Media(self.kind, payload, metadata=clip),
        Text(caption, target=True),
      ),
      id=name,
    )


@dataclasses.dataclass(frozen=True)
class VideoText(Pairs):
  """A clip and its text; `start` and `end` in seconds are optional."""

  media: Sequence[str] = (
    *("__file__", "mp4", "webm", "mkv", "mov", "avi"),
    "video",
  )
  kind: str = "video"


def _seconds(fields: Record, name: str) -> dict[str, float]:
  """`start` and `end` of a clip, where they are given.

  A column of a table has an empty cell, or None, where they are not.
  """
  given = {k: fields.get(k) for k in ("start", "end")}
  given = {
    k: v
    for k, v in given.items()
    if v is not None and not (isinstance(v, str) and not v.strip())
  }
  try:
    clip = {k: float(v) for k, v in given.items()}
  except (TypeError, ValueError, OverflowError):
    raise BadSample(f"{name}: start and end are {given}.") from None
  if not all(0 <= v < math.inf for v in clip.values()):
    raise BadSample(f"{name}: start and end are {given}.")
  return clip


def _first(record: Mapping, names: Sequence[str], label: str) -> Any:
  for name in names:
    if record.get(name) is not None:
      return record[name]
  raise BadSample(
    f"{label} has none of {list(names)}, only "
    f"{[k for k in record if not k.startswith('__')]}."
  )


FORMATS = {
  "conversations": Conversations,
  "messages": Messages,
  "mmc4": MMC4,
  "obelics": Obelics,
  "pairs": Pairs,
  "qa": QuestionAnswer,
  "video_text": VideoText,
}
