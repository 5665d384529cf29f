"""Which two things are compared: alike enough to be hard to tell apart.

As for DisCRn (arXiv 2311.18799): of so many others, drawn at random, one of
the ten whose captions are most alike.
"""

import collections
import dataclasses
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from mmjax.data.instruct.agreement import plain
from mmjax.data.instruct.captions import Item

# Texts to rows of length 1, [texts features], whose products are similarities.
Encode = Callable[[Sequence[str]], Any]


@dataclasses.dataclass(frozen=True)
class Drawing:
  """How the other of a pair is chosen.

  Attributes:
    others: that are drawn for each; 100 in DisCRn, 500 for sounds.
    among: of which, by their captions, one is taken.
    seed: of both draws.
  """

  others: int = 100
  among: int = 10
  seed: int = 0

  def __post_init__(self):
    if min(self.others, self.among) < 1:
      raise ValueError(
        f"others is {self.others} and among {self.among}; expected 1 or more."
      )


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two things."""

  first: Item
  second: Item

  @property
  def id(self) -> str:
    """Both ids as JSON, which no other two have: '["a", "b"]'."""
    return json.dumps([self.first.id, self.second.id])

  @property
  def items(self) -> tuple[Item, Item]:
    return self.first, self.second


def draw(
  items: Sequence[Item],
  encode: Encode,
  drawing: Drawing,
  differ: Callable[[Item], str] = lambda item: plain(item.caption),
) -> list[Pair]:
  """A pair for each item that another one can be found for, by their ids.

  A pair depends on the items and the seed, and not on their order.

  Args:
    items: of which each is the first of a pair.
    encode: captions, for their similarity.
    drawing: how.
    differ: what has to differ between the two.

  Raises:
    ValueError: when there is no pair at all.
  """
  items = sorted(items, key=lambda item: item.id)
  rows = encode([item.caption for item in items])
  values = [differ(item) for item in items]
  found = []
  for i, item in enumerate(items):
    chance = random.Random(f"{drawing.seed}/{item.id}")
    count = min(drawing.others, len(items) - 1)
    # Numbers behind its own are one too low.
    drawn = [j + (j >= i) for j in chance.sample(range(len(items) - 1), count)]
    drawn = sorted(j for j in drawn if values[j] != values[i])
    if drawn:
      best = _most_alike(rows, i, drawn)[: drawing.among]
      found.append(Pair(item, items[chance.choice(best)]))
  if not found:
    raise ValueError(
      f"{len(items)} items make no pair; expected two or more that differ."
    )
  return found


def _most_alike(rows: Any, i: int, others: Sequence[int]) -> list[int]:
  scores = rows[others] @ rows[[i]].T
  if sparse.issparse(scores):
    scores = scores.toarray()
  order = np.argsort(-np.asarray(scores).ravel(), kind="stable")
  return [others[k] for k in order]


def tf_idf(texts: Sequence[str]) -> sparse.csr_matrix:
  """Counts of words, those of few texts weighing more; rows of length 1.

  A word that is in n of N texts weighs 1 + ln((1 + N) / (1 + n)).
  """
  counts = [collections.Counter(re.findall(r"\w+", t.lower())) for t in texts]
  of_texts = collections.Counter(word for words in counts for word in words)
  columns = {word: k for k, word in enumerate(sorted(of_texts))}
  weights = {
    word: 1 + np.log((1 + len(texts)) / (1 + n)) for word, n in of_texts.items()
  }
  data, places, starts = [], [], [0]
  for words in counts:
    row = np.array([n * weights[word] for word, n in words.items()])
    data.append(row / np.linalg.norm(row) if len(row) else row)
    places += [columns[word] for word in words]
    starts.append(len(places))
  shape = (len(texts), max(len(columns), 1))
  return sparse.csr_matrix((np.concatenate(data), places, starts), shape)
