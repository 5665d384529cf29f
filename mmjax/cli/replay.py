"""`mmjax data replay`: the batch of a step, again, as a function."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mmjax import tree
from mmjax.cli.data import render
from mmjax.config import require
from mmjax.data import build
from mmjax.data.document import BadSample, Filtered, printable
from mmjax.data.sources import Source
from mmjax.training.sources import make_tokenizer


def replay(
  config: Mapping[str, Any] | ConfigDict,
  step: int,
  save: Path | None = None,
  write: Callable[[str], None] = print,
) -> dict[str, Any]:
  """The batch of a step, whatever the number of hosts was.

  Args:
    config: of the run.
    step: 1 is the first, as in metrics and in the log.
    save: gets the batch's arrays, named `dataset/array`.
    write: takes a line at a time.

  Returns:
    the batch of every dataset of the step.

  Raises:
    ValueError: when the data end before it.
  """
  if step < 1:
    raise ValueError(f"The step is {step}; expected 1 or more.")
  config = build.plain(config)
  require(config, ("tokenizer", "data"))
  data = dict(config["data"], workers=0)
  with build.batches(data, make_tokenizer(config["tokenizer"])) as batches:
    batches.set_state({"step": step - 1})
    batch = next(batches, None)
    if batch is None:
      raise ValueError(
        f"There is no step {step}: a dataset with repeat=False ends before it."
      )
    records = batches.records(step)
  found = _Documents(data)
  for name, parts in records.items():
    write(f"step {step}, {name}: {_shapes(batch[name])}")
    for part in parts:
      write(f"[{part}] {found.show(part)}")
  if save is not None:
    np.savez(save, **tree.flatten(batch))
    write(f"Wrote {save}")
  return batch


def _shapes(batch: Mapping[str, Any]) -> str:
  return ", ".join(
    f"{path} {value.dtype}{list(value.shape)}"
    for path, value in tree.flatten(batch).items()
  )


class _Documents:
  """Documents by the names that examples give to their records."""

  def __init__(self, data: Mapping[str, Any]):
    self._seed = data.get("seed", 0)
    self._entries: dict[str, Mapping[str, Any]] = {}
    for name, entry in data["datasets"].items():
      for key, part in (entry.get("mix") or {"": entry}).items():
        self._entries[f"{name}/{key}" if key else name] = part
    self._open: dict[str, Source] = {}

  def show(self, record: str) -> str:
    """The document of `name:number`, or why there is none."""
    name, _, number = record.rpartition(":")
    if name not in self._open:
      entry = self._entries[name]
      named = {k: entry.get(k) for k in ("source", "format", "filter")}
      self._open[name] = build.documents(**named, seed=self._seed)
    try:
      return render(self._open[name][int(number)])
    except (Filtered, BadSample) as error:
      return f"BAD: {printable(str(error))}"
