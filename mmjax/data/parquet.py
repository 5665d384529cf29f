"""Groups of rows of Parquet files, no larger than memory allows."""

from collections.abc import Sequence
from typing import Any

# Bytes of a group of rows when it is unpacked; real ones have some hundred
# millions, and some kilobytes can promise any number.
MAX_GROUP = 2**30


def open_file(path: str) -> Any:
  """A `pyarrow.parquet.ParquetFile`.

  Raises:
    ImportError: without pyarrow.
    ValueError: for another file.
  """
  try:
    from pyarrow import parquet
  except ImportError as error:
    raise ImportError("Parquet needs pyarrow: pip install pyarrow") from error
  try:
    return parquet.ParquetFile(path)
  except (OSError, ValueError) as error:
    raise ValueError(f"{path} is no Parquet file: {error}") from error


def row_group(path: str, group: int, columns: Sequence[str] | None) -> Any:
  """A group of rows as a `pyarrow.Table`.

  What a file says of its sizes is looked at before it is read. A value that
  is written once may stand in every row, so what comes is added up as well.

  Raises:
    ValueError: for one that is larger than MAX_GROUP, and, as other errors of
      Arrow's, for one that is damaged.
  """
  file = open_file(path)
  import pyarrow

  size = largest = 0
  meta = file.metadata.row_group(group)
  for chunk in map(meta.column, range(meta.num_columns)):
    if columns is None or chunk.path_in_schema.split(".")[0] in columns:
      size += chunk.total_uncompressed_size
      largest = max(largest, chunk.total_uncompressed_size)
  _check(size)
  # No value is larger than all values of its column.
  rows = min(max(MAX_GROUP // max(largest, 1), 1), 1024)
  found, size = [], 0
  for batch in file.iter_batches(rows, row_groups=[group], columns=columns):
    found.append(batch)
    size += batch.nbytes
    _check(size)
  return pyarrow.Table.from_batches(found)


def _check(size: int) -> None:
  if size > MAX_GROUP:
    raise ValueError(
      f"it has more than the cap of {MAX_GROUP} bytes when it is unpacked. "
      "Write the file with smaller row groups."
    )
