"""Which support examples a query is shown.

A pool is drawn once for a task (2048 examples, or 32 a class), then examples
from it for each query: at random, or the most similar ones (RICES).
"""

from collections.abc import Sequence

import numpy as np

from mmjax.typing import Float, Int

POOL_SIZE = 2048
PER_CLASS = 32


def draw_pool(
  ids: Sequence[str],
  *,
  seed: int,
  size: int = POOL_SIZE,
  labels: Sequence[str] | None = None,
  per_class: int = PER_CLASS,
) -> Int[np.ndarray, "pool"]:
  """Places of the examples that may be support.

  Args:
    ids: of all examples; only their number and order count.
    seed: another seed, another pool.
    size: of the pool, where there are no labels.
    labels: of classification; then `per_class` of each label are drawn.
    per_class: see `labels`.
  """
  rng = np.random.default_rng([seed, 0])
  order = rng.permutation(len(ids))
  if labels is None:
    return np.sort(order[:size])
  chosen: list[int] = []
  seen: dict[str, int] = {}
  for i in order:
    seen[labels[i]] = seen.get(labels[i], 0) + 1
    if seen[labels[i]] <= per_class:
      chosen.append(i)
  return np.sort(np.array(chosen, int))


def random_support(
  query: str, pool: Sequence[str], shots: int, *, seed: int, number: int
) -> list[int]:
  """Places in the pool, in a random order, the same for (seed, number).

  More shots of the same query contain its fewer ones.

  Args:
    query: id of the query, which is never its own support.
    pool: ids of the pool.
    shots: how many.
    seed: of the run.
    number: of the query.
  """
  rng = np.random.default_rng([seed, 1, number])
  order = [i for i in rng.permutation(len(pool)) if _other(query, pool[i])]
  _enough(order, shots)
  return [int(i) for i in order[:shots]]


def rices(
  query: str,
  pool: Sequence[str],
  shots: int,
  similarity: Float[np.ndarray, "pool"],
) -> list[int]:
  """The most similar examples of the pool, the most similar one last.

  Args:
    query: id of the query, which is never its own support.
    pool: ids of the pool.
    shots: how many.
    similarity: of each example of the pool to the query, see `cosine`.
  """
  order = np.argsort(-similarity, kind="stable")
  best = [int(i) for i in order if _other(query, pool[i])]
  _enough(best, shots)
  return best[:shots][::-1]


def cosine(
  queries: Float[np.ndarray, "queries E"],
  examples: Float[np.ndarray, "examples E"],
) -> Float[np.ndarray, "queries examples"]:
  """Cosines of features of the frozen vision encoder; 0 for a zero vector."""

  def unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float32)
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(norm == 0, 1, norm)

  return unit(queries) @ unit(examples).T


def permutations(
  count: int, limit: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
  """The given order and random other ones: `limit` of them, or all there are.

  permutations(2, 6, rng)  ->  [(0, 1), (1, 0)]
  """
  found = {tuple(range(count)): None}
  total = int(np.prod(np.arange(1, min(count, 12) + 1)))
  while len(found) < min(limit, total):
    found[tuple(int(i) for i in rng.permutation(count))] = None
  return list(found)


def _other(query: str, example: str) -> bool:
  return not query or query != example


def _enough(order: Sequence, shots: int) -> None:
  if len(order) < shots:
    raise ValueError(
      f"{shots} shots from a pool of {len(order)} examples. Give a larger "
      "pool, or fewer shots."
    )
