"""Static shapes: one document padded, or several packed into one row.

              tokens    targets   weights  positions  segments  index
  "a b c"     a b c 0   b c 0 0   1 1 0 0  0 1 2 0    1 1 1 0   1 1 1 0
  + "d e"     a b c d e b c 0 e 0 ...      0 1 2 0 1  1 1 1 2 2 1 1 1 2 2

A target is the next token of the same segment; the last one has none.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.text.prompts.base import Written
from mmjax.typing import Int

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Slots:
  """Room for the media of one kind in an example.

  Attributes:
    count: media (M).
    frames: of each (T); an image, or a cloud of points, is one.
    shape: of a frame.
    dtype: of its values.
    keys: adds `keys`, the `key` in each medium's metadata, or -1; with it a
      table of features can stand in for the media.
    values: carries the media themselves.
    lengths: adds `lengths` [M T], how many values of each frame are real.
    text: adds `text`, so many ids that a medium is read with, 0 for padding.
  """

  count: int
  frames: int = 1
  shape: tuple[int, ...] = (224, 224, 3)
  dtype: str = "uint8"
  keys: bool = False
  values: bool = True
  lengths: bool = False
  text: int = 0

  def __post_init__(self):
    if min(self.count, self.text) < 0 or min(self.frames, *self.shape) < 1:
      raise ValueError(
        f"{self}: the count of media is not negative (0 for text alone), and "
        "each has at least one frame of 1x1."
      )

  def empty(self, length: int) -> dict[str, np.ndarray]:
    places = self.count, self.frames
    media: dict[str, np.ndarray] = {
      "mask": np.zeros(places, bool),
      "index": np.zeros(length, np.int32),
    }
    if self.values:
      media["values"] = np.zeros((*places, *self.shape), self.dtype)
    if self.lengths:
      media["lengths"] = np.zeros(places, np.int32)
    if self.keys:
      media["keys"] = np.full(self.count, -1, np.int32)
    if self.text:
      media["text"] = np.zeros((self.count, self.text), np.int32)
    return media


@dataclasses.dataclass(frozen=True)
class Clip:
  """A medium, or a frame of one, as its slot holds it.

  Attributes:
    values: [frames ...]; None for one that is known by its key only.
    lengths: how many values of each frame are real; None is all.
    key: of a table of features.
    text: ids that it is read with.
  """

  values: np.ndarray | None
  lengths: Int[np.ndarray, "frames"] | None = None
  key: int = -1
  text: Int[np.ndarray, "_"] | tuple[int, ...] = ()

  def frame(self, number: int) -> "Clip":
    """One of its frames; the last where there are fewer.

    Keys of frames follow each other.
    """
    key = self.key if self.key < 0 else self.key + number
    if self.values is None:
      return dataclasses.replace(self, key=key)
    number = min(number, len(self.values) - 1)
    part = slice(number, number + 1)
    return dataclasses.replace(
      self,
      values=self.values[part],
      lengths=None if self.lengths is None else self.lengths[part],
      key=key,
    )


def empty(length: int, slots: Mapping[str, Slots]) -> Example:
  """An example that counts for nothing: padding throughout.

  Args:
    length: in tokens.
    slots: room for media, by the name of their entry in `media`.
  """
  return {
    "tokens": np.zeros(length, np.int32),
    "targets": np.zeros(length, np.int32),
    "weights": np.zeros(length, np.float32),
    "positions": np.zeros(length, np.int32),
    "segments": np.zeros(length, np.int32),
    "media": {name: own.empty(length) for name, own in slots.items()},
  }


def pad(
  written: Written,
  clips: Sequence[Clip],
  names: Sequence[str],
  length: int,
  slots: Mapping[str, Slots],
) -> Example:
  """One document, padded on the right.

  Args:
    written: its tokens.
    clips: its media, in the order of `written.media`.
    names: entry in `slots` of every medium of the document.
    length: of the row.
    slots: room for the media.

  Raises:
    ValueError: when it does not fit.
  """
  count = len(written.tokens)
  if count > length:
    raise ValueError(
      f"A document of {count} tokens does not fit a row of {length}. Let the "
      "prompt cut it, or raise `length`."
    )
  example = empty(length, slots)
  example["tokens"][:count] = written.tokens
  if count:
    example["targets"][: count - 1] = written.tokens[1:]
    example["weights"][: count - 1] = written.weights[1:]
  example["positions"][:count] = np.arange(count)
  example["segments"][:count] = 1
  for name, room in slots.items():
    own, index = written.of_kind(name, names)
    if len(own) > room.count:
      raise ValueError(
        f"A document of {len(own)} media does not fit {room.count} slots of "
        f"{name!r}."
      )
    example["media"][name]["index"][:count] = index
    for m, place in enumerate(own):
      _place(example["media"][name], m, clips[place], room)
  return example


def _place(media: dict, m: int, clip: Clip, slots: Slots) -> None:
  """Puts the frames of a medium into its slot."""
  if slots.keys:
    media["keys"][m] = clip.key
  if slots.text:
    if len(clip.text) > slots.text:
      raise ValueError(
        f"A medium is read with {len(clip.text)} ids, {slots.text} fit."
      )
    media["text"][m, : len(clip.text)] = clip.text
  if clip.values is None:
    media["mask"][m] = True
    return
  frames, *shape = clip.values.shape
  expected, kind = list(slots.shape), clip.values.dtype
  if shape != expected or kind != slots.dtype:
    raise ValueError(
      f"A medium is {kind}{shape}, its slot is {slots.dtype}{expected}. End "
      "the transforms with one of fixed size."
    )
  if frames > slots.frames:
    raise ValueError(f"A medium has {frames} frames, {slots.frames} fit.")
  media["mask"][m, :frames] = True
  if slots.values:
    media["values"][m, :frames] = clip.values
  if slots.lengths:
    media["lengths"][m, :frames] = clip.lengths


def pack(
  examples: Sequence[Example],
  length: int,
  slots: Mapping[str, Slots],
  overflow: str = "error",
) -> tuple[Example, int]:
  """Lays documents end to end in one row, media included.

    segments  1 1 1 2 2 0      media  1 of the first, then those of the second
    index     1 1 1 2 2 0

  Args:
    examples: padded documents, each of one segment or empty.
    length: of the row.
    slots: room for all their media.
    overflow: what becomes of a document that does not fit: "error", or
      "drop", which is counted.

  Returns:
    The row, and how many documents were dropped.
  """
  if overflow not in ("error", "drop"):
    raise ValueError(f"overflow is {overflow!r}, expected 'error' or 'drop'.")
  row, at, segment, dropped = empty(length, slots), 0, 0, 0
  taken = dict.fromkeys(slots, 0)
  for example in examples:
    count = int((example["segments"] > 0).sum())
    used = {n: _used(m) for n, m in example["media"].items()}
    needed = {name: taken[name] + used[name] for name in slots}
    full = [n for n, own in slots.items() if needed[n] > own.count]
    if at + count > length or full:
      if overflow == "error":
        room = [own.count for own in slots.values()]
        raise ValueError(
          f"{at + count} tokens and {_sizes(needed.values())} media do not fit "
          f"a row of {length} and {_sizes(room)}. Pack fewer, or "
          "overflow='drop'."
        )
      dropped += 1
      continue
    if not count:
      continue
    segment += 1
    to = slice(at, at + count)
    for key in ("tokens", "targets", "weights", "positions"):
      row[key][to] = example[key][:count]
    row["segments"][to] = segment
    for name in slots:
      own = example["media"][name]
      _move(own, row["media"][name], to, taken[name], used[name])
    at, taken = at + count, needed
  return row, dropped


def _used(media: Mapping[str, np.ndarray]) -> int:
  return int(media["mask"].any(axis=1).sum())


def _sizes(counts: Iterable[int]) -> str:
  return " + ".join(map(str, counts))


def _move(own: Mapping, media: dict, to: slice, first: int, count: int) -> None:
  """The media of one kind of a document into a row, behind `first` others."""
  index = own["index"][: to.stop - to.start]
  media["index"][to] = np.where(index > 0, index + first, 0)
  for key in media.keys() - {"index"}:
    media[key][first : first + count] = own[key][:count]


def stack(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Examples of one shape to a batch."""
  first = examples[0]
  return {
    key: stack([e[key] for e in examples])
    if isinstance(first[key], Mapping)
    else np.stack([e[key] for e in examples])
    for key in first
  }


def trim(batch: Mapping[str, Any], least: int = 16) -> dict[str, Any]:
  """Cuts off the ends that no row of a batch uses.

  Tokens, media and what they are read with alike. What is left is a power of
  two, or all of it, so that the batches of an evaluation have few shapes, and
  short prompts do not pay for long ones. Of a kind of media that no row has
  nothing is left, so that nothing encodes it.

  Args:
    batch: of `stack`; padded on the right.
    least: tokens that stay.
  """
  length = _room(batch["segments"] > 0, least)
  trimmed = {k: v[:, :length] for k, v in batch.items() if k != "media"}
  trimmed["media"] = {
    name: _trimmed(media, length, least)
    for name, media in batch["media"].items()
  }
  return trimmed


def _trimmed(media: Mapping[str, Any], length: int, least: int) -> Example:
  count = _room(media["mask"].any(axis=2), 0)
  found = {
    key: value[:, : length if key == "index" else count]
    for key, value in media.items()
  }
  if "text" in media:
    read = _room((media["text"] != 0).any(axis=1), least)
    found["text"] = found["text"][..., :read]
  return found


def _room(used: np.ndarray, least: int) -> int:
  """Places to keep of [rows places], of which the used ones are True."""
  places = np.flatnonzero(used.any(axis=0))
  needed = max(places[-1] + 1 if len(places) else 0, least)
  power = 1 << int(needed - 1).bit_length() if needed else 0
  return min(power, used.shape[1])


def occupancy(batch: Mapping[str, Any]) -> float:
  """Share of the places that hold a token."""
  return float((np.asarray(batch["segments"]) > 0).mean())
