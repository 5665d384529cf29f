"""The iterator that training and evaluation ask for.

  for batches in Batches({"pairs": dataset}):   # {"pairs": batch}

Sample order is a pure function of (seed, step): row r of batch b is sample
b·B + r, whatever the number of hosts, workers and threads. Host i of n reads
rows i·B/n ... (i+1)·B/n - 1, so the batches of all hosts, one after the
other, are the batch of one host. A resumed run continues at its step.
"""

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from mmjax.data import mixtures
from mmjax.data.batching import Example, stack
from mmjax.data.sources import Source

log = logging.getLogger(__name__)

# Before so many samples, the budget is that of so many: the first bad sample
# of a run is no reason to stop.
GRACE = 1000
# Steps whose records are known, for messages about a step.
_REMEMBERED = 8


class TooManyBadSamples(ValueError):
  """More samples than the budget allows cannot be used."""


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A stream, its batch, and its part in the loss.

  Attributes:
    stream: of examples.
    batch: rows of a batch, over all hosts.
    weight: of its loss; the trainer's concern.
    empty: an example of padding throughout, for the shapes of all.
  """

  stream: Source
  batch: int
  weight: float = 1.0
  empty: Example | None = None

  def __post_init__(self):
    if not 0 < self.weight < math.inf:
      raise ValueError(
        f"The weight of a dataset is {self.weight}; expected more than 0. "
        "Leave out a dataset that is not to be learned."
      )


def _lines(notes: np.ndarray) -> list[str]:
  """The lines of the notes of all rows."""
  return [line for note in notes for line in str(note).split("\n") if line]


class _Rows:
  """The rows of a stream that one host reads, batch after batch.

  A stream that ends is filled up with its `blank` to whole batches; without
  one what is left over is not read.
  """

  def __init__(self, stream: Source, batch: int, host: tuple[int, int]):
    index, count = host
    if not 0 <= index < count:
      raise ValueError(f"Host {index} of {count} hosts.")
    if batch < 1:
      raise ValueError(f"A batch of {batch} rows; expected 1 or more.")
    if batch % count:
      raise ValueError(
        f"A batch of {batch} rows cannot be shared by {count} hosts."
      )
    self._stream, self._batch = stream, batch
    self.rows = batch // count
    self._first = index * self.rows

  def __len__(self) -> int:
    up = self._batch - 1 if hasattr(self._stream, "blank") else 0
    return (len(self._stream) + up) // self._batch * self.rows

  def position(self, index: int) -> int:
    """Where in the stream a row of this host is."""
    batch, row = divmod(index, self.rows)
    return batch * self._batch + self._first + row

  def __getitem__(self, index: int) -> Any:
    position = self.position(index)
    if position >= len(self._stream):
      return self._stream.blank()
    return self._stream[position]


class Batches(Iterator):
  """Batches of all datasets, step after step; ends when one does.

  Attributes:
    step: the next one.
    seen: samples so far, by dataset.
    bad: those of them that could not be used.
    filtered: records that options of their format left out.
  """

  def __init__(
    self,
    datasets: Mapping[str, Dataset],
    *,
    update: str = "accumulate",
    max_bad_fraction: float = 0.01,
    host: tuple[int, int] = (0, 1),
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 2,
  ):
    """Makes the iterator; nothing is read before the first step.

    Args:
      datasets: by name.
      update: one of `mixtures.UPDATES`.
      max_bad_fraction: of a dataset's samples; beyond it the run stops.
      host: index of this host, and how many there are.
      workers: processes that read, 0 for threads of this one. A main module
        that uses them needs `if __name__ == "__main__"`.
      threads: that read batches, in each process.
      prefetch: batches read ahead by each process, at least one a thread.
    """
    if not datasets:
      raise ValueError("No datasets were given.")
    if not 0 <= max_bad_fraction <= 1:
      raise ValueError(
        f"max_bad_fraction is {max_bad_fraction}; expected 0 to 1."
      )
    if min(workers, threads, prefetch) < 0:
      raise ValueError(
        f"workers is {workers}, threads {threads}, prefetch {prefetch}; "
        "expected 0 or more."
      )
    self._datasets, self._update = dict(datasets), update
    self._max_bad_fraction = max_bad_fraction
    self._host, self._workers = host, workers
    self._read = grain.ReadOptions(
      num_threads=threads, prefetch_buffer_size=max(prefetch, threads)
    )
    mixtures.schedule(0, list(datasets), update)
    self.step = 0
    self.seen = dict.fromkeys(datasets, 0)
    self.bad = dict.fromkeys(datasets, 0)
    self.filtered = dict.fromkeys(datasets, 0)
    self._iterators: dict[str, grain.DatasetIterator] = {}
    self._records: dict[int, dict[str, list[str]]] = {}

  @property
  def weights(self) -> dict[str, float]:
    """Of the datasets' losses."""
    return {name: d.weight for name, d in self._datasets.items()}

  @property
  def example(self) -> dict[str, Any]:
    """A batch of one empty row, for its shapes; no record is read."""
    return stack([next(iter(self._datasets.values())).empty])

  def __next__(self) -> dict[str, Any]:
    wanted = mixtures.schedule(self.step, list(self._datasets), self._update)
    batches, read = {}, {}
    for name in wanted:
      if name not in self._iterators:
        self._iterators[name] = self._open(name)
      batch = next(self._iterators[name])
      # Out of the workers' shared memory, which dies with them.
      batch = jax.tree.map(np.array, batch) if self._workers else dict(batch)
      skipped = batch.pop("skipped")
      self._count(name, skipped)
      batches[name] = batch
      read[name] = _lines(skipped["records"])
    self.step += 1
    self._records[self.step] = read
    self._records.pop(self.step - _REMEMBERED, None)
    return batches

  def _open(self, name: str) -> grain.DatasetIterator:
    dataset = self._datasets[name]
    rows = _Rows(dataset.stream, dataset.batch, self._host)
    start = mixtures.first_batch(self.step, list(self._datasets), self._update)[
      name
    ]
    # Batched before it becomes an iterator: else the order would depend on
    # the number of workers.
    source = grain.MapDataset.source(rows).batch(rows.rows, batch_fn=stack)
    source = source.slice(slice(start, None)).to_iter_dataset(self._read)
    if self._workers:
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
      source = source.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=self._workers)
      )
    return iter(source)

  def _count(self, name: str, skipped: Mapping[str, Any]) -> None:
    self.seen[name] += int(skipped["samples"].sum())
    self.filtered[name] += int(skipped["filtered"].sum())
    self.bad[name] += int(skipped["bad"].sum())
    reasons = _lines(skipped["why"])
    for why in reasons:
      log.warning("Bad sample in step %d: %s", self.step, why)
    allowed = self._max_bad_fraction * max(self.seen[name], GRACE)
    if self.bad[name] > allowed:
      raise TooManyBadSamples(
        f"{self.bad[name]} of {self.seen[name]} samples of {name!r} are bad, "
        f"max_bad_fraction={self._max_bad_fraction} allows {allowed:g}. "
        f"Last: {''.join(reasons[-1:]).rstrip('.')}. The log names each; "
        "repair the data, or raise config.data.max_bad_fraction."
      )

  def describe(self, step: int) -> str:
    """The records of step 1, 2, ..., for a log; known of the last steps."""
    parts = []
    for name, records in self._records.get(step, {}).items():
      more = f" and {len(records) - 20} more" if len(records) > 20 else ""
      parts.append(f"{name!r}: {', '.join(records[:20])}{more}")
    return (
      f"of this process' records {'; '.join(parts) or 'unknown'} "
      f"(`mmjax data replay --step {step}` shows it)"
    )

  def records(self, step: int) -> dict[str, list[str]]:
    """The records of step 1, 2, ... as `part:number`, by dataset.

    Known of the last steps that were read.
    """
    return self._records[step]

  def get_state(self) -> dict[str, Any]:
    """What a checkpoint keeps; plain JSON, the same on every host but for
    the counts."""
    return {
      "step": self.step,
      "seen": dict(self.seen),
      "bad": dict(self.bad),
      "filtered": dict(self.filtered),
    }

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes on where `state` was taken, on any number of hosts."""
    self.close()
    self.step = int(state["step"])
    for mine in ("seen", "bad", "filtered"):
      counts = state.get(mine, {})
      getattr(self, mine).update(
        {k: int(v) for k, v in counts.items() if k in self._datasets}
      )

  def close(self) -> None:
    """Ends threads and processes. The iterator can be used again."""
    for iterator in self._iterators.values():
      iterator.close()
    self._iterators = {}

  def __enter__(self) -> "Batches":
    return self

  def __exit__(self, *_) -> None:
    self.close()
