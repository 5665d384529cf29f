"""Which samples share a row, so that few places of it stay empty.

  lengths  5 2 6 3 4 4    row of 8    ->    [0 3] [1 2] [4 5]

Two ways, of which the one with fewer rows is taken. Best fit decreasing puts
the longest first, each into the fullest row that has room for it. Where a
sample takes a fifth of a row that leaves six percent empty: when most of a
row is taken, nothing is short enough for the rest. There, rows are begun in
the order of the samples, and closed by the two that together fill best of all
that are left. As the order is shuffled, what is left stays like the whole
until it is few, and nearly every row is full.
"""

import bisect
from collections.abc import Sequence

import numpy as np

from mmjax.typing import Int

# A row is closed by two when fewer than so many average samples fit in it.
_CLOSING = 2.5


def fill(
  tokens: Int[np.ndarray, "sample"],
  media: Int[np.ndarray, "sample"],
  length: int,
  slots: int,
) -> list[list[int]]:
  """Rows of samples; every sample is in exactly one.

  Args:
    tokens: of each sample, 1 or more.
    media: of each sample.
    length: of a row, in tokens.
    slots: media that fit a row.

  Returns:
    the samples of each row, by their number.

  Raises:
    ValueError: for a sample that fits no row.
  """
  if len(tokens) and (tokens.min() < 1 or media.min() < 0):
    raise ValueError("A sample has 1 token or more, and 0 media or more.")
  large = np.flatnonzero((tokens > length) | (media > slots))
  if len(large):
    raise ValueError(
      f"Sample {large[0]} has {tokens[large[0]]} tokens and {media[large[0]]} "
      f"media, a row {length} and {slots}."
    )
  return min(
    _closed(tokens, media, length, slots),
    _decreasing(tokens, media, length, slots),
    key=len,
  )


def _decreasing(
  tokens: np.ndarray, media: np.ndarray, length: int, slots: int
) -> list[list[int]]:
  """Best fit decreasing."""
  rows: list[list[int]] = []
  free: list[int] = []
  # Rows by the tokens that are left in them.
  left: list[tuple[int, int]] = []
  sizes, counts = tokens.tolist(), media.tolist()
  for i in np.argsort(-tokens, kind="stable").tolist():
    at = bisect.bisect_left(left, (sizes[i], -1))
    while at < len(left) and free[left[at][1]] < counts[i]:
      at += 1
    if at < len(left):
      room, row = left.pop(at)
    else:
      room, row = length, len(rows)
      rows.append([])
      free.append(slots)
    rows[row].append(i)
    free[row] -= counts[i]
    bisect.insort(left, (room - sizes[i], row))
  return rows


def _closed(
  tokens: np.ndarray, media: np.ndarray, length: int, slots: int
) -> list[list[int]]:
  """Rows that are begun in order, and closed by the best two."""
  left, rows = _Left(tokens, media, length), []
  while left.count:
    row, room, free = [], length, slots
    found = [left.first()]
    while found:
      row += found
      room -= sum(left.tokens[i] for i in found)
      free -= sum(left.media[i] for i in found)
      found = _following(left, room, free) if left.count else []
    rows.append(row)
  return rows


def _following(left: "_Left", room: int, free: int) -> list[int]:
  """What a row with so much room takes next; nothing when it is closed."""
  if room >= _CLOSING * left.mean:
    following = left.peek()
    if left.tokens[following] <= room and left.media[following] <= free:
      return [left.first()]
  return left.best(room, free)


class _Left:
  """Samples that are in no row yet, by their length and number of media.

  Attributes:
    tokens: of every sample.
    media: of every sample.
    count: how many are left.
  """

  def __init__(self, tokens: np.ndarray, media: np.ndarray, length: int):
    self.tokens: list[int] = tokens.tolist()
    self.media: list[int] = media.tolist()
    self.count, self._sum = len(self.tokens), int(tokens.sum())
    self._taken = [False] * self.count
    self._next = 0
    # By media, which lengths there are, and by both, which samples.
    self._there = {m: np.zeros(length + 1, bool) for m in set(self.media)}
    self._where: dict[tuple[int, int], list[int]] = {}
    for i, key in enumerate(zip(self.media, self.tokens)):
      self._there[key[0]][key[1]] = True
      self._where.setdefault(key, []).append(i)

  @property
  def mean(self) -> float:
    """Tokens of those that are left."""
    return self._sum / self.count

  def peek(self) -> int:
    """The first in the order of the samples."""
    while self._taken[self._next]:
      self._next += 1
    return self._next

  def first(self) -> int:
    """Takes the first."""
    i = self.peek()
    return self._take(self.media[i], self.tokens[i], 0)

  def best(self, room: int, free: int) -> list[int]:
    """Takes the one or two that fill `room` best with `free` media.

    One that fills it as well as two is taken, since the long ones are harder
    to place.

    Returns:
      their numbers; none when no sample fits.
    """
    one, two = self._one(room, free), self._two(room, free)
    chosen = two if sum(t for _, t in two) > sum(t for _, t in one) else one
    return [self._take(*key) for key in chosen]

  def _one(self, room: int, free: int) -> Sequence[tuple[int, int]]:
    """Media and tokens of the longest that fits."""
    found = []
    for m, there in self._there.items():
      lengths = np.flatnonzero(there[: room + 1]) if m <= free else ()
      if len(lengths):
        found.append((int(lengths[-1]), m))
    return [(m, t) for t, m in [max(found)]] if found else []

  def _two(self, room: int, free: int) -> Sequence[tuple[int, int]]:
    """Media and tokens of the two that fill `room` best."""
    found, most = [], 0
    for b, there in self._there.items():
      # The longest with b media that has at most so many tokens.
      upto = np.maximum.accumulate(np.where(there[:room], np.arange(room), 0))
      for a in self._there:
        if a > b or a + b > free or room < 2:
          continue
        one = np.flatnonzero(self._there[a][:room])
        other = upto[room - one]
        if a == b:
          self._part_twins(one, other, upto, a)
        total = np.where(other > 0, one + other, 0)
        if len(total) and total.max() > most:
          most = int(total.max())
          # Of those, the two most alike: the extremes are kept for later.
          ties = np.flatnonzero(total == most)
          at = ties[np.abs(one[ties] - other[ties]).argmin()]
          found = [(a, int(one[at])), (b, int(other[at]))]
    return found

  def _part_twins(
    self, one: np.ndarray, other: np.ndarray, upto: np.ndarray, media: int
  ) -> None:
    """Where a sample would be both of the two, the other becomes shorter."""
    for i in np.flatnonzero(other == one):
      if len(self._where[media, int(one[i])]) < 2:
        other[i] = upto[one[i] - 1]

  def _take(self, media: int, tokens: int, at: int = -1) -> int:
    """Takes one of a kind, from the end so that `first` is not disturbed."""
    where = self._where[media, tokens]
    i = where.pop(at)
    if not where:
      self._there[media][tokens] = False
    self._taken[i] = True
    self.count, self._sum = self.count - 1, self._sum - tokens
    return i
