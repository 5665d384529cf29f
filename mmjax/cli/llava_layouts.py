"""A LLaVA in the other layout of names: what it needs there and lacks here.

Hugging Face's model has a projector of two linear layers and reads the image's
own token, so a table without a row for it grows, as llava-hf's did: by that
token, by one for padding, and to a multiple of 64 rows. New rows are the mean
of the others: what they score is never the best, but they have a part in the
softmax, so that a loss there is a little higher. Scores of the old rows are as
they were.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.cli.llava_family import ORIGINAL

Fields = dict[str, Any]
TABLES = ("lm/embedding/table", "lm/head/table")
# New tokens of Hugging Face's, in their order.
IMAGE, PAD = "<image>", "<pad>"
_MULTIPLE = 64


class Grown:
  """A table with rows behind it, each the mean of its own."""

  def __init__(self, table: Any, rows: int):
    self._table = table
    self.shape, self.dtype = (rows, table.shape[1]), table.dtype

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    table = np.asarray(self._table)
    mean = table.astype(np.float32).mean(axis=0).astype(table.dtype)
    more = np.broadcast_to(mean, (self.shape[0] - len(table), len(mean)))
    return np.concatenate([table, more])


def to_layout(
  fields: Mapping[str, Any], arrays: Mapping[str, Any], layout: str
) -> tuple[Fields, dict[str, Any]]:
  """Settings and arrays as a layout has them.

  Raises:
    ValueError: for what the layout cannot hold.
  """
  fields, arrays = dict(fields) | dict(layout=layout), dict(arrays)
  if layout == ORIGINAL:
    _check_original(fields)
    return fields, arrays
  lacking = [part for part in ("encoder", "lm") if not fields[part]]
  if lacking:
    raise ValueError(
      f"Hugging Face's LLaVA is whole; this has no {' and no '.join(lacking)}. "
      "Convert the checkpoint with --tower DIR, or write --layout original."
    )
  _add_layer(fields, arrays)
  _add_rows(fields, arrays)
  return fields, arrays


def _check_original(fields: Fields) -> None:
  connector = fields["connector"]
  if connector["activation"] != "gelu" or not connector["use_bias"]:
    raise ValueError(
      f"LLaVA's own code has no projector such as {connector}: it has GELU and "
      "biases. Write --layout hf."
    )


def _add_layer(fields: Fields, arrays: dict[str, Any]) -> None:
  """LLaVA v1's one layer, and one behind it that changes nothing."""
  connector = fields["connector"]
  if connector["depth"] == 2:
    return
  if connector["depth"] != 1:
    raise ValueError(
      f"A projector of {connector['depth']} linear layers: Hugging Face's has "
      "2. Write --layout original."
    )
  width, dtype = connector["width"], arrays["connector/linear_1/bias"].dtype
  arrays["connector/linear_2/kernel"] = np.eye(width, dtype=dtype)
  arrays["connector/linear_2/bias"] = np.zeros(width, dtype)
  fields["connector"] = connector | dict(depth=2, activation="linear")


def _add_rows(fields: Fields, arrays: dict[str, Any]) -> None:
  rows, image = fields["lm"]["vocab_size"], fields["image_token"]
  if image is not None and image < rows:
    return
  grown = -(-(rows + 2) // _MULTIPLE) * _MULTIPLE
  for path in TABLES:
    if path in arrays:
      arrays[path] = Grown(arrays[path], grown)
  fields["lm"] = fields["lm"] | dict(vocab_size=grown)
  fields |= dict(image_token=rows, pad_token=rows + 1)
