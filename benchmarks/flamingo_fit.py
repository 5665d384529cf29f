"""What the step times of the paper's ablations may be made of.

Each hypothesis is a few costs that add up to a step, with a price each. The
prices are fitted to the paper's rows, none below zero, so that the relative
errors are least in squares. A fit is no proof: it says which hypothesis is
consistent with all rows at once, and where it is not.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize

from benchmarks import flamingo_costs as costs
from mmjax import tree

# Name to costs, keys of `features`.
HYPOTHESES = {
  "operations": ("operations",),
  "operations, a constant": ("operations", "one"),
  "operations, data sets": ("operations", "datasets"),
  "operations, frames": ("operations", "frames"),
  "operations, tokens": ("operations", "tokens"),
  "operations with the text's forward pass twice": ("with_remat",),
  "operations of media, of text": ("media", "text"),
  "operations of M3W's media, others": ("m3w_media", "without_m3w_media"),
  "operations, trainable parameters": ("operations", "trainable"),
  "operations, all parameters x data sets": ("operations", "all_x_datasets"),
  "operations, trainable parameters x data sets": (
    "operations",
    "trainable_x_datasets",
  ),
  "operations of M3W's media, others, trainable parameters x data sets": (
    "m3w_media",
    "without_m3w_media",
    "trainable_x_datasets",
  ),
}
BEST = "operations, trainable parameters x data sets"


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of the paper's tables.

  Attributes:
    seconds: of a step, the paper's.
    features: what it costs; see `features`.
    chips: on how many times the chips of the others it ran; its seconds are
      multiplied by that already.
  """

  seconds: float
  features: Mapping[str, float]
  chips: int = 1


def features(config: Any) -> dict[str, float]:
  """Costs of a config: operations in 1e15, parameters in 1e9."""
  counts = costs.operations(config)
  trainable, frozen = map(tree.count, costs.split(config))
  datasets = config.data.datasets
  all_operations = costs.total(counts)
  media = _media(counts)
  m3w = _media({"m3w": counts["m3w"]}) if "m3w" in counts else 0
  again = sum(costs.total(counts, c, "forward") for c in ("blocks", "lm"))
  units = {
    "operations": (all_operations, 1e15),
    "with_remat": (all_operations + again, 1e15),
    "media": (media, 1e15),
    "text": (all_operations - media, 1e15),
    "m3w_media": (m3w, 1e15),
    "without_m3w_media": (all_operations - m3w, 1e15),
    "trainable": (trainable, 1e9),
    "trainable_x_datasets": (trainable * len(datasets), 1e9),
    "all_x_datasets": ((trainable + frozen) * len(datasets), 1e9),
    "datasets": (len(datasets), 1),
    "one": (1, 1),
    "frames": (sum(_frames(d) for d in datasets.values()), 1e3),
    "tokens": (sum(d.batch * d.prompt.length for d in datasets.values()), 1e5),
  }
  return {name: value / unit for name, (value, unit) in units.items()}


def _media(counts: Mapping[str, costs.Counts]) -> int:
  return sum(costs.total(counts, c) for c in ("vision", "resampler"))


def _frames(dataset: Any) -> int:
  return dataset.batch * dataset.prompt.media * dataset.get("frames", 1)


def fit(
  rows: Sequence[Row], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Prices of the named costs, and each row's relative error."""
  seconds = np.array([row.seconds for row in rows])
  table = np.array([[row.features[n] for n in names] for row in rows])
  prices, _ = optimize.nnls(table / seconds[:, None], np.ones(len(rows)))
  return prices, table @ prices / seconds - 1


def predict(row: Row, names: Sequence[str], prices: np.ndarray) -> float:
  """Seconds of a row as the paper counts them.

  On more chips each does less of the operations, and as much of what goes
  with parameters; multiplying by the chips leaves operations as they were.
  """
  return sum(
    price * row.features[name] * (1 if name == "operations" else row.chips)
    for name, price in zip(names, prices)
  )


def different(rows: Mapping[str, Row]) -> list[Row]:
  """Those to fit: run on the usual chips, and no two that say the same."""
  kept: dict[tuple, Row] = {}
  for row in rows.values():
    if row.chips == 1:
      kept.setdefault((row.seconds, *row.features.values()), row)
  return list(kept.values())


def table(rows: Mapping[str, Row]) -> str:
  """All hypotheses with their errors, as Markdown."""
  chosen = different(rows)
  lines = [
    "| a step costs | prices, s | error, r.m.s. | largest |",
    "| --- | --- | --- | --- |",
  ]
  for name, parts in HYPOTHESES.items():
    prices, error = fit(chosen, parts)
    rms, largest = np.sqrt((error**2).mean()), np.abs(error).max()
    listed = ", ".join(f"{price:.3f}" for price in prices)
    lines.append(f"| {name} | {listed} | {rms:.1%} | {largest:.0%} |")
  return "\n".join(lines)
