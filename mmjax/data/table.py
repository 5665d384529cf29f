"""Tables of a folder's files: csv and tsv, read strictly.

A caption with a comma needs quotes; without them the rest would be cut off in
silence, so such a row is a bad sample.

  file,caption
  a.jpg,"a kite, red"      {"file": "a.jpg", "caption": "a kite, red"}
  b.jpg,a kite, red        BadSample when it is read
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mmjax.config import nearest
from mmjax.data.document import BadSample
from mmjax.data.reader import Reader

# Characters of a field; a caption of a million is none.
MAX_FIELD = 2**20


class Table:
  """The rows of a csv or tsv, in memory."""

  def __init__(
    self,
    path: str,
    delimiter: str,
    column: str,
    header: Sequence[str] = (),
  ):
    """Reads it.

    Args:
      path: UTF-8, with or without a byte order mark.
      delimiter: between fields.
      column: that the header has to have.
      header: names of the columns of a table that has none. Its lines with `#`
        are comments, and blanks behind a delimiter are no part of a field.

    Raises:
      ValueError: for another encoding, broken quotes, or another header.
    """
    given = [list(header)] if header else []
    rows = [*given, *_parse(path, delimiter, bare=bool(header))]
    header, *self._rows = rows or [[]]
    self._header, self._path, self._delimiter = header, path, delimiter
    if column not in header:
      advice = (
        f"{nearest(column, header)} Name the one with the files in the "
        "source's `column`."
      )
      if len(header) == 1 and any(mark in header[0] for mark in ",;\t|"):
        advice = (
          f"Fields are parted by {delimiter!r} in a {Path(path).suffix}: save "
          "it so."
        )
      raise ValueError(
        f"{path} has no column {column!r}, only {header}. {advice}"
      )
    if len(set(header)) < len(header):
      raise ValueError(f"{path} has two columns of one name: {header}.")

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> dict[str, str]:
    row = self._rows[index]
    if len(row) != len(self._header):
      raise BadSample(
        f"{self._path}: row {index} has {len(row)} fields, the header "
        f"{len(self._header)}. Put texts with a delimiter into quotes: {row}."
      )
    return dict(zip(self._header, row))

  def lines(self, chosen: Iterable[int]) -> Iterator[bytes]:
    """A table of some of its rows, the header first."""
    for row in (self._header, *(self._rows[i] for i in chosen)):
      line = io.StringIO()
      csv.writer(line, delimiter=self._delimiter, lineterminator="\n").writerow(
        row
      )
      yield line.getvalue().encode()


def _parse(
  path: str, delimiter: str, bare: bool = False
) -> Sequence[list[str]]:
  with Reader(path) as reader:
    data = reader.read(0, reader.size)
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise ValueError(
      f"{path} is no UTF-8 text ({error}). Save the table as UTF-8."
    ) from None
  csv.field_size_limit(MAX_FIELD)
  file = io.StringIO(text, newline="")
  rows = csv.reader(
    file, delimiter=delimiter, strict=True, skipinitialspace=bare
  )
  try:
    found = [row for row in rows if row]
  except csv.Error as error:
    raise ValueError(
      f"{path}, line {rows.line_num}: {error}. Check its quotes."
    ) from None
  return [row for row in found if not (bare and row[0].startswith("#"))]
