"""Several datasets in one run.

Two things go by that name. Datasets of one shape can be mixed into one
stream (`mix`). Datasets of their own shapes take turns (`schedule`):

  step           0      1      2      3
  accumulate    a0 b0  a1 b1  a2 b2  a3 b3   one update from all gradients
  round_robin   a0     b0     a1     b1      an update from each in turn

where a0 is batch number 0 of dataset a.
"""

import math
from collections.abc import Sequence

import grain

from mmjax.data.sources import Source

UPDATES = ("accumulate", "round_robin")


def schedule(step: int, names: Sequence[str], update: str) -> dict[str, int]:
  """The batches of a step: dataset to the number of its batch.

  Args:
    step: from 0.
    names: of the datasets, in the order of the config.
    update: one of UPDATES.
  """
  if update == "accumulate":
    return dict.fromkeys(names, step)
  if update == "round_robin":
    turn, place = divmod(step, len(names))
    return {names[place]: turn}
  raise ValueError(f"update is {update!r}, expected one of {UPDATES}.")


def first_batch(step: int, names: Sequence[str], update: str) -> dict[str, int]:
  """The number of the next batch of every dataset, before a step."""
  if update == "accumulate":
    return dict.fromkeys(names, step)
  schedule(step, names, update)
  turn, place = divmod(step, len(names))
  return {name: turn + (i < place) for i, name in enumerate(names)}


def mix(streams: Sequence[Source], weights: Sequence[float | int]) -> Source:
  """One stream of examples of several, in the given proportions.

  Which stream a sample comes from is a function of its number alone.

  Args:
    streams: of examples of one shape.
    weights: positive; only their proportions matter.
  """
  if len(streams) != len(weights) or not streams:
    raise ValueError(f"{len(streams)} streams have {len(weights)} weights.")
  if not all(0 < weight < math.inf for weight in weights):
    raise ValueError(f"Weights have to be positive: {list(weights)}.")
  parents = [grain.MapDataset.source(stream) for stream in streams]
  return grain.MapDataset.mix(parents, weights)
