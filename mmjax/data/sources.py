"""Records of files, in random access: `len(source)` and `source[i]`.

A record is a dict; `formats.py` makes a Document of it. All sources can be
sent to another process, and be read from several threads.

  Jsonl        a line is a record
  Json         an element of an array is a record
  Tar          the members of a tar that share a key are a record
  ArrayRecord  a record is JSON, or a tf.train.Example
  Parquet      a row is a record
  Tfds         an element of a TensorFlow dataset on disk
  Folder       a csv or jsonl table whose rows name files of a folder
"""

import bisect
import glob
import itertools
import json
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from grain import sources as grain_sources

from mmjax.config import nearest
from mmjax.data import json_array, parquet, tar, tf_example, webdataset
from mmjax.data.document import BadSample
from mmjax.data.paths import below
from mmjax.data.reader import Reader
from mmjax.data.table import Table

log = logging.getLogger(__name__)

Record = dict[str, Any]
MAX_RECORD = 2**30
CHUNK = 2**24
# Lines that may be blank; longer ones are records whatever they hold.
SHORT = 16


@runtime_checkable
class Source(Protocol):
  """What gives records, or documents, or examples by their number."""

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> Any: ...


def expand(paths: str | Sequence[str]) -> list[str]:
  """Paths and patterns (`shard-*.tar`) to the files they name, sorted each.

  Raises:
    ValueError: for one that names none. Nothing is ever run or fetched:
      "pipe:..." and "https://..." are paths that are not there.
  """
  found: list[str] = []
  for path in [paths] if isinstance(paths, str) else paths:
    hits = [path] if Path(path).is_file() else sorted(glob.glob(path))
    if not hits:
      raise ValueError(f"No file matches {path!r}. Give local paths.")
    found += hits
  if not found:
    raise ValueError("No paths were given.")
  return found


class _Files:
  """Records of several files, one file after the other."""

  def __init__(self, counts: Sequence[int]):
    self._ends = list(itertools.accumulate(counts))

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def _locate(self, index: int) -> tuple[int, int]:
    """Number of the file, and of the record in it."""
    if not 0 <= index < len(self):
      raise IndexError(f"Record {index} of {len(self)}.")
    file = bisect.bisect_right(self._ends, index)
    return file, index - (self._ends[file - 1] if file else 0)


class _Parts(_Files):
  """Files that are records of JSON, from one place to another."""

  def __init__(
    self,
    paths: str | Sequence[str],
    places: Callable[[Reader], np.ndarray],
  ):
    self._readers = [Reader(path) for path in expand(paths)]
    self._places = [places(reader) for reader in self._readers]
    super().__init__([len(found) for found in self._places])

  def __getitem__(self, index: int) -> Record:
    return _json(*self._read(index))

  def raw(self, index: int) -> bytes:
    """A record as it is written."""
    return self._read(index)[0].strip()

  def _read(self, index: int) -> tuple[bytes, str]:
    """The bytes of a record, and what it is called."""
    file, row = self._locate(index)
    reader = self._readers[file]
    start, stop = map(int, self._places[file][row])
    name = f"{reader.path}@{start}"
    _check_size(stop - start, name)
    return reader.read(start, stop - start), name


class Jsonl(_Parts):
  """Lines of JSON; empty ones are no records."""

  def __init__(self, paths: str | Sequence[str]):
    super().__init__(paths, _lines)


class Json(_Parts):
  """Elements of files that are a JSON array each, such as LLaVA's.

  A file is looked through once, a gigabyte in seconds, and never held; an
  element is parsed when it is read.
  """

  def __init__(self, paths: str | Sequence[str]):
    """Finds the elements.

    Raises:
      ValueError: for a file that is not one whole array.
    """
    super().__init__(paths, json_array.elements)


def _lines(reader: Reader) -> np.ndarray:
  """Start and end of every line that is not empty.

  Read in pieces, because a line may be larger than the memory.
  """
  ends = []
  for at in range(0, reader.size, CHUNK):
    piece = reader.read(at, min(CHUNK, reader.size - at))
    ends.append(at + 1 + np.flatnonzero(np.frombuffer(piece, "u1") == 10))
  last = np.concatenate([*ends, [reader.size]]).astype(np.int64)
  lines = np.stack([np.concatenate([[0], last[:-1]]), last], axis=1)
  short = np.flatnonzero(lines[:, 1] - lines[:, 0] < SHORT)
  blank = [
    i
    for i in short
    if not reader.read(int(lines[i, 0]), int(np.ptp(lines[i]))).strip()
  ]
  return np.delete(lines, blank, axis=0)


def _check_size(size: int, name: str) -> None:
  if size > MAX_RECORD:
    raise BadSample(f"{name} has {size} bytes, the cap is {MAX_RECORD}.")


def _json(data: bytes, name: str) -> Record:
  try:
    record = json.loads(data)
  except (ValueError, RecursionError) as error:
    raise BadSample(f"{name} is no JSON: {error}") from None
  if not isinstance(record, dict):
    raise BadSample(f"{name} is a JSON {type(record).__name__}, not an object.")
  record.setdefault("__key__", name)
  return record


class Tar(_Files):
  """WebDataset's layout: `a/01.jpg`, `a/01.txt` are one record.

  {"__key__": "a/01", "jpg": b"...", "txt": b"..."}

  A record with a link, a device, a pipe or a sparse file among its members is
  a BadSample when it is read, and so is every member with an unsafe name.

  Attributes:
    problems: why records cannot be used, a line each.
  """

  def __init__(self, paths: str | Sequence[str], on_bad_shard: str = "error"):
    """Reads the indexes, or scans shards that have none.

    Args:
      paths: tar files, uncompressed.
      on_bad_shard: "error", or "skip" to log a damaged shard and go on
        without it: one bad record stands for all of it, and counts.
    """
    if on_bad_shard not in ("error", "skip"):
      raise ValueError(
        f"on_bad_shard is {on_bad_shard!r}, expected 'error' or 'skip'."
      )
    self._readers, self._groups = [], []
    for path in expand(paths):
      try:
        groups = webdataset.group(tar.members(path), path)
      except tar.BadTar as error:
        if on_bad_shard == "error":
          raise
        log.warning("Shard skipped: %s", error)
        groups = [(path, [], f"A shard is skipped: {error}")]
      self._readers.append(Reader(path))
      self._groups.append(groups)
    super().__init__([len(groups) for groups in self._groups])

  @property
  def problems(self) -> list[str]:
    return [why for groups in self._groups for _, _, why in groups if why]

  def __getitem__(self, index: int) -> Record:
    file, row = self._locate(index)
    key, parts, problem = self._groups[file][row]
    if problem:
      raise BadSample(problem)
    reader = self._readers[file]
    record: Record = {"__key__": f"{Path(reader.path).name}/{key}"}
    for suffix, offset, size in parts:
      if suffix in record:
        raise BadSample(f"{record['__key__']} has two .{suffix} members.")
      _check_size(size, f"{record['__key__']}.{suffix}")
      record[suffix] = reader.read(offset, size)
    return record


CODECS = {"json": _json, "tf_example": tf_example.parse}


class ArrayRecord(_Files):
  """ArrayRecord files; `codec` is "json" or "tf_example"."""

  def __init__(self, paths: str | Sequence[str], codec: str = "json"):
    if codec not in CODECS:
      raise ValueError(f"codec is {codec!r}, expected one of {list(CODECS)}.")
    self._codec, self._paths = codec, expand(paths)
    self._sources = [_array_record(path) for path in self._paths]
    super().__init__([len(source) for source in self._sources])

  def __getitem__(self, index: int) -> Record:
    file, row = self._locate(index)
    name = f"{self._paths[file]}, record {row}"
    try:
      data = self._sources[file][row]
    except (ValueError, RuntimeError) as error:
      raise BadSample(f"{name}: {error}") from error
    return {**CODECS[self._codec](data, name), "__key__": name}


def _array_record(path: str) -> grain_sources.ArrayRecordDataSource:
  try:
    return grain_sources.ArrayRecordDataSource([path])
  except (ValueError, RuntimeError) as error:
    raise ValueError(f"{path} is no whole ArrayRecord file: {error}") from error


class Parquet(_Files):
  """Rows of Parquet files; a group of rows is kept after it was read."""

  def __init__(
    self, paths: str | Sequence[str], columns: Sequence[str] | None = None
  ):
    self._paths = expand(paths)
    self._columns = list(columns) if columns else None
    counts, self._where = [], []
    for path in self._paths:
      file = parquet.open_file(path)
      names = file.schema_arrow.names
      for column in self._columns or ():
        if column not in names:
          raise ValueError(
            f"{path} has no column {column!r}. {nearest(column, names)}"
          )
      meta = file.metadata
      for group in range(meta.num_row_groups):
        counts.append(meta.row_group(group).num_rows)
        self._where.append((path, group))
    super().__init__(counts)
    self._local = threading.local()

  def __getitem__(self, index: int) -> Record:
    place, row = self._locate(index)
    path, group = self._where[place]
    if getattr(self._local, "place", None) != place:
      try:
        table = parquet.row_group(path, group, self._columns)
      # Arrow's errors derive from several of Python's.
      except Exception as error:
        raise BadSample(f"{path}, row group {group}: {error}") from error
      self._local.place, self._local.table = place, table
    name = f"{path}#{index}"
    try:
      record = self._local.table.slice(row, 1).to_pylist()[0]
    # Text that is no UTF-8, dates that Python does not have.
    except (ValueError, OverflowError) as error:
      raise BadSample(f"{name}: {error}") from error
    record.setdefault("__key__", name)
    return record

  def __getstate__(self) -> dict:
    return {k: v for k, v in self.__dict__.items() if k != "_local"}

  def __setstate__(self, state: dict) -> None:
    self.__dict__.update(state, _local=threading.local())


class Tfds:
  """A dataset that TensorFlow Datasets has prepared on disk.

  It has to be prepared for random access (`file_format="array_record"`).
  Nothing is downloaded.
  """

  def __init__(self, folder: str, split: str = "train"):
    """Opens it: the folder of `dataset_info.json`, and one of its splits."""
    try:
      import tensorflow_datasets as tfds
    except ImportError as error:
      raise ImportError(
        "TFDS sources need: pip install tensorflow-datasets"
      ) from error
    self._name = f"{folder}/{split}"
    try:
      builder = tfds.builder_from_directory(folder)
      self._source = builder.as_data_source(split=split)
    # Its errors have no root of their own.
    except Exception as error:
      raise ValueError(
        f"{folder} has no split {split!r} in random access: {error}"
      ) from error

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Record:
    name = f"{self._name}/{index}"
    try:
      return {**self._source[index], "__key__": name}
    # It decodes pictures by itself, with a decoder of the user's choice.
    except Exception as error:
      raise BadSample(f"{name}: {error}") from error


class Folder:
  """A table of which a column names files below a folder.

  images/a.jpg  images/b.jpg  and  file,caption   in table.csv
                                   a.jpg,a cat
  """

  def __init__(self, folder: str, table: str, column: str = "file"):
    """Reads the table, not the files.

    Args:
      folder: what the names are relative to.
      table: a .csv (with a header), .tsv or .jsonl.
      column: which one holds the names.
    """
    self._folder, self._column = Path(folder), column
    if not self._folder.is_dir():
      raise ValueError(f"There is no folder {folder}.")
    suffix = Path(table).suffix.lower()
    if suffix in (".csv", ".tsv"):
      delimiter = "\t" if suffix == ".tsv" else ","
      self._rows: Any = Table(expand(table)[0], delimiter, column)
    elif suffix == ".jsonl":
      self._rows = Jsonl(table)
    else:
      raise ValueError(f"{table} is no .csv, .tsv or .jsonl.")

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    record = dict(self._rows[index])
    name = record.get(self._column)
    if not name:
      raise BadSample(f"Row {index} has no {self._column!r}: {list(record)}.")
    record["__file__"] = below(self._folder, name)
    record["__key__"] = str(name)
    return record


SOURCES = {
  "jsonl": Jsonl,
  "json": Json,
  "tar": Tar,
  "array_record": ArrayRecord,
  "parquet": Parquet,
  "tfds": Tfds,
  "folder": Folder,
}
