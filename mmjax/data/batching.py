"""Static shapes: one document padded, or several packed into one row.

              tokens    targets   weights  positions  segments  index
  "a b c"     a b c 0   b c 0 0   1 1 0 0  0 1 2 0    1 1 1 0   1 1 1 0
  + "d e"     a b c d e b c 0 e 0 ...      0 1 2 0 1  1 1 1 2 2 1 1 1 2 2

A target is the next token of the same segment; the last one has none.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.text.prompts.base import Written

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Slots:
  """Room for media in an example.

  Attributes:
    count: media (M).
    frames: of each (T); an image is one.
    height: of a frame.
    width: of a frame.
    name: its entry in `media`.
    keys: adds `keys`, the `key` in each medium's metadata, or -1; with it a
      table of features can stand in for the pictures.
    values: carries the pictures themselves.
  """

  count: int
  frames: int = 1
  height: int = 224
  width: int = 224
  name: str = "image"
  keys: bool = False
  values: bool = True

  def __post_init__(self):
    if self.count < 0 or min(self.frames, self.height, self.width) < 1:
      raise ValueError(
        f"{self}: the count of media is not negative (0 for text alone), and "
        "each has at least one frame of 1x1."
      )

  def empty(self, length: int) -> dict[str, np.ndarray]:
    media: dict[str, np.ndarray] = {
      "mask": np.zeros((self.count, self.frames), bool),
      "index": np.zeros(length, np.int32),
    }
    if self.values:
      shape = (self.count, self.frames, self.height, self.width, 3)
      media["values"] = np.zeros(shape, np.uint8)
    if self.keys:
      media["keys"] = np.full(self.count, -1, np.int32)
    return media


def empty(length: int, slots: Slots) -> Example:
  """An example that counts for nothing: padding throughout."""
  return {
    "tokens": np.zeros(length, np.int32),
    "targets": np.zeros(length, np.int32),
    "weights": np.zeros(length, np.float32),
    "positions": np.zeros(length, np.int32),
    "segments": np.zeros(length, np.int32),
    "media": {slots.name: slots.empty(length)},
  }


def pad(
  written: Written,
  clips: Sequence[np.ndarray | None],
  length: int,
  slots: Slots,
  keys: Sequence[int] = (),
) -> Example:
  """One document, padded on the right.

  Args:
    written: its tokens.
    clips: its media, uint8 [frames height width 3], in the order of
      `written.media`; None for those that are known by their key only.
    length: of the row.
    slots: room for the media.
    keys: one a medium, where `slots.keys`.

  Raises:
    ValueError: when it does not fit.
  """
  count = len(written.tokens)
  if count > length:
    raise ValueError(
      f"A document of {count} tokens does not fit a row of {length}. Let the "
      "prompt cut it, or raise `length`."
    )
  if len(clips) > slots.count:
    raise ValueError(
      f"A document of {len(clips)} media does not fit {slots.count} slots."
    )
  example = empty(length, slots)
  example["tokens"][:count] = written.tokens
  if count:
    example["targets"][: count - 1] = written.tokens[1:]
    example["weights"][: count - 1] = written.weights[1:]
  example["positions"][:count] = np.arange(count)
  example["segments"][:count] = 1
  media = example["media"][slots.name]
  media["index"][:count] = written.index
  for m, clip in enumerate(clips):
    _place(media, m, clip, slots)
  if slots.keys:
    media["keys"][: len(keys)] = keys
  return example


def _place(media: dict, m: int, clip: np.ndarray | None, slots: Slots) -> None:
  """Puts the frames of a medium into its slot."""
  if clip is None:
    media["mask"][m] = True
    return
  expected = (slots.height, slots.width, 3)
  if clip.shape[1:] != expected or clip.dtype != np.uint8:
    raise ValueError(
      f"A medium is {clip.dtype}{list(clip.shape[1:])}, its slot is "
      f"uint8{list(expected)}. End the transforms with one of fixed size."
    )
  if len(clip) > slots.frames:
    raise ValueError(f"A medium has {len(clip)} frames, {slots.frames} fit.")
  media["mask"][m, : len(clip)] = True
  if slots.values:
    media["values"][m, : len(clip)] = clip


def pack(
  examples: Sequence[Example],
  length: int,
  slots: Slots,
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
  row, at, slot, segment, dropped = empty(length, slots), 0, 0, 0, 0
  target = row["media"][slots.name]
  for example in examples:
    count = int((example["segments"] > 0).sum())
    media = example["media"][slots.name]
    used = int(media["mask"].any(axis=1).sum())
    if at + count > length or slot + used > slots.count:
      if overflow == "error":
        raise ValueError(
          f"{at + count} tokens and {slot + used} media do not fit a row of "
          f"{length} and {slots.count}. Pack fewer, or overflow='drop'."
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
    index = media["index"][:count]
    target["index"][to] = np.where(index > 0, index + slot, 0)
    for key in media.keys() - {"index"}:
      target[key][slot : slot + used] = media[key][:used]
    at, slot = at + count, slot + used
  return row, dropped


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
  """Cuts off the ends that no row of a batch uses, tokens and media alike.

  What is left is a power of two, or all of it, so that the batches of an
  evaluation have few shapes, and short prompts do not pay for long ones.

  Args:
    batch: of `stack`; padded on the right.
    least: tokens that stay.
  """
  length = _room(batch["segments"] > 0, least)
  trimmed = {k: v[:, :length] for k, v in batch.items() if k != "media"}
  trimmed["media"] = {}
  for name, media in batch["media"].items():
    count = _room(media["mask"].any(axis=2), 1)
    trimmed["media"][name] = {
      key: value[:, : length if key == "index" else count]
      for key, value in media.items()
    }
  return trimmed


def _room(used: np.ndarray, least: int) -> int:
  """Places to keep of [rows places], of which the used ones are True."""
  places = np.flatnonzero(used.any(axis=0))
  needed = places[-1] + 1 if len(places) else 0
  power = 1 << int(max(needed, least, 1) - 1).bit_length()
  return min(power, used.shape[1])


def occupancy(batch: Mapping[str, Any]) -> float:
  """Share of the places that hold a token."""
  return float((np.asarray(batch["segments"]) > 0).mean())
