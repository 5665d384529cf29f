"""Sample number p of a dataset, as a pure function of (seed, p).

A record that cannot be used gives an example that counts for nothing and
says why; it is never replaced. A record that its format leaves out by an
option gives way to another, drawn by (seed, p) too.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from grain import experimental

from mmjax.data.batching import Example, Slots, empty, pack
from mmjax.data.document import BadSample, Filtered, printable
from mmjax.data.encoder import Encoder
from mmjax.data.sources import Source

# A stream that repeats has no end; this many samples are enough.
ENDLESS = 2**48
# Characters of what is said of a bad sample.
REASON = 256


def _skipped(
  samples: int,
  bad: int,
  filtered: int,
  why: str,
  records: str = "",
  room: int = REASON,
) -> dict:
  return {
    "records": np.array(records),
    "samples": np.array(samples, np.int32),
    "bad": np.array(bad, np.int32),
    "filtered": np.array(filtered, np.int32),
    "why": np.array(why, f"U{room}"),
  }


class Stream:
  """An endless, or a finite, random-access sequence of examples.

  Besides the arrays of `batching.empty`, an example has `skipped`: how many
  `samples` it stands for, how many of them are `bad` and `why`, a line for
  each, how many records were `filtered` out on the way, and its `records`, as
  `name:number`.
  """

  def __init__(
    self,
    documents: Source,
    encoder: Encoder,
    *,
    seed: int = 0,
    name: str = "",
    shuffle: bool = True,
    repeat: bool = True,
    attempts: int = 16,
  ):
    """Makes the stream.

    Args:
      documents: in random access.
      encoder: makes examples of them.
      seed: of the order and of everything random.
      name: of the dataset; another name, another order.
      shuffle: another order in every epoch.
      repeat: goes on for ever.
      attempts: how many records in a row may be filtered out.
    """
    if not len(documents):
      raise ValueError(f"Dataset {name!r} has no records.")
    if seed < 0:
      raise ValueError(f"config.data.seed is {seed}; expected 0 or more.")
    self._documents, self._encoder = documents, encoder
    self._seed = (seed, zlib.crc32(name.encode()))
    self._name, self._attempts = name, attempts
    self._repeat = repeat
    self._shuffle = shuffle and not getattr(documents, "endless", False)
    self._epoch = (-1, 0)

  def __len__(self) -> int:
    return ENDLESS if self._repeat else len(self._documents)

  def blank(self) -> Example:
    return blank(self._encoder.prompt.length, self._encoder.slots)

  def record(self, position: int) -> int:
    """Which record is sample number `position`."""
    count = len(self._documents)
    epoch, index = divmod(position, count)
    if not self._shuffle or count == 1:
      return index
    # Of the last epoch that was asked for, as whole epochs are planned.
    known, seed = self._epoch
    if known != epoch:
      state = np.random.SeedSequence([*self._seed, epoch]).generate_state(1)
      seed = int(state[0])
      self._epoch = epoch, seed
    return experimental.index_shuffle(
      index, max_index=count - 1, seed=seed, rounds=4
    )

  def taken(self, position: int, filtered: np.ndarray) -> int:
    """Which record comes to be sample number `position`.

    Args:
      position: of the sample.
      filtered: bool, of every record, whether its format leaves it out.

    Returns:
      its number; -1 for none, after too many in a row were left out.
    """
    index = self.record(position)
    for attempt in range(self._attempts):
      if not filtered[index]:
        return index
      index = self._other([*self._seed, position, attempt])
    return -1

  def _other(self, seed: Sequence[int]) -> int:
    """The record that comes in place of one that is left out."""
    return int(np.random.default_rng(seed).integers(len(self._documents)))

  def __getitem__(self, position: int) -> Example:
    return self.at(position)

  def at(self, position: int, room: tuple[int, int] | None = None) -> Example:
    """Sample number `position`, of no more than `room` tokens and media."""
    if not 0 <= position < len(self):
      raise IndexError(f"Sample {position} of {len(self)}.")
    index, reason = self.record(position), ""
    for attempt in range(self._attempts):
      seed = [*self._seed, position, attempt]
      try:
        example = self._encoder(self._documents[index], seed, room)
        break
      except Filtered as error:
        reason = f"{self._attempts} records in a row filtered, last: {error}"
        index = self._other(seed)
      except BadSample as error:
        reason = f"{self._name} record {index}: {error}"
        example = None
        break
    else:
      example = None
    if example is None:
      example = empty(self._encoder.prompt.length, self._encoder.slots)
    else:
      reason = ""
    example["skipped"] = _skipped(
      1,
      int(bool(reason)),
      attempt,
      printable(reason)[:REASON],
      f"{self._name}:{index}",
    )
    return example


class Packed:
  """Rows of a stream: row r packs the samples r·k ... r·k + k - 1."""

  def __init__(
    self,
    stream: Source,
    documents: int,
    length: int,
    slots: Mapping[str, Slots],
    overflow: str = "error",
  ):
    """Makes the rows.

    Args:
      stream: of padded documents.
      documents: how many a row packs (k).
      length: of a row.
      slots: room for the media of a row.
      overflow: "error", or "drop", which counts as filtered.
    """
    self._stream, self._documents = stream, documents
    self._length, self._slots, self._overflow = length, slots, overflow
    # For the reasons of all documents, a line each, should all be bad.
    self._room = documents * (REASON + 1)

  def __len__(self) -> int:
    return -(-len(self._stream) // self._documents)

  def blank(self) -> Example:
    return blank(self._length, self._slots, self._room)

  def __getitem__(self, row: int) -> Example:
    first = row * self._documents
    last = min(first + self._documents, len(self._stream))
    parts = [self._stream[i] for i in range(first, last)]
    return packed(parts, self._length, self._slots, self._overflow, self._room)


def packed(
  parts: Sequence[Example],
  length: int,
  slots: Mapping[str, Slots],
  overflow: str = "error",
  room: int = 0,
) -> Example:
  """A row of samples of a stream, and what is to be said of them all.

  Args:
    parts: the samples.
    length: of the row.
    slots: room for its media.
    overflow: see `batching.pack`; what it drops counts as filtered.
    room: characters for the reasons; as many as there are, if that is more.
  """
  row, dropped = pack(parts, length, slots, overflow)
  notes = [part["skipped"] for part in parts]
  why = "\n".join(str(note["why"]) for note in notes if note["bad"])
  row["skipped"] = _skipped(
    sum(int(note["samples"]) for note in notes),
    sum(int(note["bad"]) for note in notes),
    sum(int(note["filtered"]) for note in notes) + dropped,
    why,
    "\n".join(str(note["records"]) for note in notes),
    max(room, len(why), 1),
  )
  return row


def blank(
  length: int, slots: Mapping[str, Slots], room: int = REASON
) -> Example:
  """What fills up a last batch: it stands for no sample."""
  example = empty(length, slots)
  example["skipped"] = _skipped(0, 0, 0, "", room=room)
  return example
