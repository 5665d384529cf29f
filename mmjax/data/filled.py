"""Rows that are filled with as many samples as fit, of any stream.

  epoch     its positions, in the order of the stream
  window    4096 of them in a row, shared out to rows by `packing.fill`
  row r     of all rows of the epoch, in a random order of (seed, epoch)

Every position of an epoch is in exactly one of its rows. Row number r is a
pure function of the seed and of the documents' lengths, whatever reads it; an
epoch is planned when its first row is asked for, which takes seconds.
"""

import bisect
import dataclasses
import logging
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from mmjax.data import mixtures, packing
from mmjax.data.batching import Example, Slots
from mmjax.data.lengths import Lengths
from mmjax.data.stream import ENDLESS, Stream, blank, packed
from mmjax.typing import Int

log = logging.getLogger(__name__)

Sizes = tuple[Int[np.ndarray, "position"], Int[np.ndarray, "position"]]


@dataclasses.dataclass(frozen=True)
class Fill:
  """How rows are filled.

  Attributes:
    length: of a row, in tokens.
    media: that fit a row.
    window: samples that are shared out to rows together. More of them fill
      rows better, and samples that were far apart come together.
    cache: folder in which lengths are kept; see `lengths`.
  """

  length: int
  media: int
  window: int = 4096
  cache: str | None = None

  def __post_init__(self):
    if self.length < 2 or self.media < 0 or self.window < 1:
      raise ValueError(
        f"fill has the length {self.length}, media {self.media} and window "
        f"{self.window}; expected 2, 0 and 1, or more."
      )

  def check(self, length: int, media: Mapping[str, int]) -> None:
    """Whether every document of a prompt fits a row.

    Args:
      length: tokens of a document at most.
      media: of each kind, how many at most.

    Raises:
      ValueError: when a document may be larger, or have media of two kinds,
        which lengths do not tell apart.
    """
    if len(media) > 1:
      raise ValueError(
        f"Documents have media of the kinds {sorted(media)}; `fill` counts one "
        "kind. Use `pack`, or a dataset for each kind."
      )
    most = sum(media.values())
    if length > self.length or most > self.media:
      raise ValueError(
        f"A document may have {length} tokens and {most} media by its prompt, "
        f"a row {self.length} and {self.media} by `fill`. Lower the prompt's "
        "`length` and `media`, or raise those of `fill`."
      )


@runtime_checkable
class Sized(Protocol):
  """A stream that knows the sizes of its samples before it reads them."""

  def __len__(self) -> int: ...
  def __getitem__(self, position: int) -> Example: ...
  def sizes(self, first: int, last: int) -> Sizes: ...


class Measured:
  """A stream of documents whose lengths are known; no sample is larger."""

  def __init__(self, stream: Stream, lengths: Lengths):
    self._stream, self._lengths = stream, lengths

  def __len__(self) -> int:
    return len(self._stream)

  def __getitem__(self, position: int) -> Example:
    tokens, media = self.sizes(position, position + 1)
    return self._stream.at(position, (int(tokens[0]), int(media[0])))

  def sizes(self, first: int, last: int) -> Sizes:
    """Tokens and media of the samples `first` to `last` - 1."""
    lengths, stream = self._lengths, self._stream
    index = np.array([stream.record(p) for p in range(first, last)], np.int64)
    for i in np.flatnonzero(lengths.filtered[index]):
      index[i] = stream.taken(first + int(i), lengths.filtered)
    usable = index >= 0
    tokens = np.where(usable, lengths.tokens[index], 1)
    return tokens, np.where(usable, lengths.media[index], 0)


class Mixed:
  """Measured streams in given proportions; see `mixtures.mix`."""

  def __init__(
    self, streams: Sequence[Measured], weights: Sequence[float | int]
  ):
    self._streams, self._mix = streams, mixtures.mix(streams, weights)
    places = [_Places(i, len(stream)) for i, stream in enumerate(streams)]
    self._places = mixtures.mix(places, weights)

  def __len__(self) -> int:
    return len(self._mix)

  def __getitem__(self, position: int) -> Example:
    return self._mix[position]

  def sizes(self, first: int, last: int) -> Sizes:
    places = [self._places[p] for p in range(first, last)]
    part, own = np.array(places, np.int64).reshape(-1, 2).T
    tokens, media = np.empty((2, last - first), np.int64)
    for i, stream in enumerate(self._streams):
      # Those of one part follow each other.
      here = part == i
      if here.any():
        begin, end = int(own[here][0]), int(own[here][-1]) + 1
        tokens[here], media[here] = stream.sizes(begin, end)
    return tokens, media


@dataclasses.dataclass(frozen=True)
class _Places:
  """In place of stream number `part`: where its samples are."""

  part: int
  count: int

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, position: int) -> tuple[int, int]:
    return self.part, position


class Filled:
  """Rows of a stream, each filled with samples of its epoch."""

  def __init__(
    self,
    stream: Sized,
    epoch: int,
    fill: Fill,
    slots: Mapping[str, Slots],
    *,
    seed: int = 0,
    name: str = "",
    shuffle: bool = True,
    repeat: bool = True,
  ):
    """Makes the rows; nothing is planned yet.

    Args:
      stream: of samples that fit a row.
      epoch: samples of one.
      fill: how rows are filled.
      slots: room for the media of a row.
      seed: of the order of the rows.
      name: of the dataset; another name, another order.
      shuffle: the rows of an epoch, too.
      repeat: goes on for ever.
    """
    self._stream, self._fill, self._slots = stream, fill, slots
    self._seed = (seed, zlib.crc32(name.encode()))
    self._name = name
    self._shuffle, self._repeat = shuffle, repeat
    self._size = epoch if repeat else min(epoch, len(stream))
    self._lock = threading.Lock()
    self._ends: list[int] = []
    self._planned: dict[int, list[list[int]]] = {}

  def __len__(self) -> int:
    return ENDLESS if self._repeat else len(self.epoch(0))

  def blank(self) -> Example:
    return blank(self._fill.length, self._slots)

  def __getitem__(self, row: int) -> Example:
    parts = [self._stream[position] for position in self.samples(row)]
    return packed(parts, self._fill.length, self._slots)

  def samples(self, row: int) -> list[int]:
    """The positions in the stream that share a row."""
    if not 0 <= row < len(self):
      raise IndexError(f"Row {row} of {len(self)}.")
    with self._lock:
      while not self._ends or self._ends[-1] <= row:
        before = self._ends[-1] if self._ends else 0
        self._ends.append(before + len(self._rows(len(self._ends))))
      epoch = bisect.bisect_right(self._ends, row)
      first = self._ends[epoch - 1] if epoch else 0
      return self._rows(epoch)[row - first]

  def epoch(self, number: int) -> list[list[int]]:
    """The rows of an epoch."""
    with self._lock:
      return self._rows(number)

  def _rows(self, epoch: int) -> list[list[int]]:
    if epoch not in self._planned:
      # Batches that are read ahead are of this epoch or of the next.
      self._planned.pop(epoch - 2, None)
      self._planned[epoch] = self._plan(epoch)
    return self._planned[epoch]

  def _plan(self, epoch: int) -> list[list[int]]:
    first, began = epoch * self._size, time.monotonic()
    tokens, media = self._stream.sizes(first, first + self._size)
    rows = []
    for at in range(0, self._size, self._fill.window):
      part = slice(at, at + self._fill.window)
      found = packing.fill(
        tokens[part], media[part], self._fill.length, self._fill.media
      )
      rows += [[first + at + i for i in row] for row in found]
    log.info(
      "Dataset %r, epoch %d: %d samples in %d rows, %.1f %% of places taken "
      "(planned in %.1f s).",
      *(self._name, epoch, self._size, len(rows)),
      100 * tokens.sum() / (len(rows) * self._fill.length),
      time.monotonic() - began,
    )
    if not self._shuffle:
      return rows
    rng = np.random.default_rng([*self._seed, epoch])
    return [rows[i] for i in rng.permutation(len(rows))]

  def __getstate__(self) -> dict:
    # Plans are made again where they are needed; a lock cannot be sent.
    return self.__dict__ | {"_lock": None, "_ends": [], "_planned": {}}

  def __setstate__(self, state: dict) -> None:
    self.__dict__.update(state, _lock=threading.Lock())
