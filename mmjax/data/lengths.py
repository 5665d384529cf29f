"""How long the documents of a source are, before any medium is read.

Every document is written once by the prompt; its pictures are not opened,
unless a filter looks at them. What is found is kept in a file whose name
tells the source's files, format, prompt, tokenizer and this code, so that
another start of the run needs no pass:

  ~/.cache/mmjax/lengths/3f0c....npz
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import glob
import hashlib
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.document import BadSample, Filtered
from mmjax.data.sources import Source
from mmjax.typing import Bool, Int

log = logging.getLogger(__name__)

LAYOUT = "mmjax-lengths-1"
# Wordings that are tried of a document where chance has a part in them.
DRAWS = 4
# Documents that a process measures at a time.
_PART = 512
# Seconds between two lines about the progress.
_TELL = 10.0


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Of every document of a source, what it takes of a row.

  Attributes:
    tokens: 1 or more; 1 of what cannot be used, which is found again, and
      counted, when it is read.
    media: how many.
    filtered: whether an option leaves it out.
  """

  tokens: Int[np.ndarray, "record"]
  media: Int[np.ndarray, "record"]
  filtered: Bool[np.ndarray, "record"]

  def sound(self, count: int, length: int, media: int) -> bool:
    """Whether they can be those of `count` documents of a prompt."""
    shapes = {x.shape for x in dataclasses.astuple(self)}
    kinds = "".join(x.dtype.kind for x in dataclasses.astuple(self))
    if shapes != {(count,)} or kinds != "iib":
      return False
    return bool(
      ((self.tokens >= 1) & (self.tokens <= max(length, 1))).all()
      and ((self.media >= 0) & (self.media <= media)).all()
    )


def measure(
  documents: Source, prompt: Any, processes: int = 0, name: str = ""
) -> Lengths:
  """Writes every document once, and counts.

  What chance makes of a document is measured as the largest of DRAWS wordings
  and the one without chance; `Encoder` falls back on the last.

  Args:
    documents: with an end.
    prompt: has `write`.
    processes: that share the work; 0 for this one alone.
    name: of the dataset, for the log.
  """
  count, began, told = len(documents), time.monotonic(), time.monotonic()
  parts = [range(i, min(i + _PART, count)) for i in range(0, count, _PART)]
  found: list[tuple[int, int, bool]] = []
  for part in _map(documents, prompt, parts, processes):
    found += part
    if time.monotonic() - told > _TELL:
      told = time.monotonic()
      log.info(
        "Dataset %r: measured %d of %d documents in %.0f s.",
        *(name, len(found), count, told - began),
      )
  tokens, media, filtered = zip(*found) if found else ((), (), ())
  return Lengths(
    np.array(tokens, np.int32),
    np.array(media, np.int32),
    np.array(filtered, bool),
  )


def _map(
  documents: Source, prompt: Any, parts: Sequence[range], processes: int
) -> Iterator[list[tuple[int, int, bool]]]:
  if not processes:
    yield from (_sizes(documents, prompt, part) for part in parts)
    return
  # Started anew: a copy of a process with threads may hang.
  with concurrent.futures.ProcessPoolExecutor(
    processes,
    multiprocessing.get_context("spawn"),
    _begin,
    (documents, prompt),
  ) as pool:
    yield from pool.map(_sizes_here, parts)


_HERE: list[Any] = []


def _begin(documents: Source, prompt: Any) -> None:
  _HERE[:] = [documents, prompt]


def _sizes_here(part: range) -> list[tuple[int, int, bool]]:
  return _sizes(*_HERE, part)


def _sizes(
  documents: Source, prompt: Any, part: range
) -> list[tuple[int, int, bool]]:
  return [_size(documents, prompt, i) for i in part]


def _size(documents: Source, prompt: Any, index: int) -> tuple[int, int, bool]:
  """Tokens, media, and whether it is filtered, of one document."""
  try:
    document = documents[index]
  except Filtered:
    return 1, 0, True
  except BadSample:
    return 1, 0, False
  tokens, media = 1, 0
  for rng in (np.random.default_rng([index, i]) for i in range(DRAWS)):
    before = rng.bit_generator.state
    size = _written(prompt, document, rng)
    tokens, media = max(tokens, size[0]), max(media, size[1])
    if rng.bit_generator.state == before:
      return tokens, media, False
  size = _written(prompt, document, None)
  return max(tokens, size[0]), max(media, size[1]), False


def _written(
  prompt: Any, document: Any, rng: np.random.Generator | None
) -> tuple[int, int]:
  try:
    written = prompt.write(document, rng)
  except ValueError:
    return 1, 0
  return len(written.tokens), len(written.media)


def kept(
  folder: Path,
  key: str,
  find: Callable[[], Lengths],
  sound: Callable[[Lengths], bool],
) -> Lengths:
  """Lengths of a file, or those that are found, which are written to it.

  A file that is damaged or not of these documents is found again; one that
  cannot be written is no reason to stop.

  Args:
    folder: of the files.
    key: names the file; see `fingerprint`.
    find: measures.
    sound: whether what a file says can be so.
  """
  path = folder / f"{key}.npz"
  if (lengths := _load(path)) is not None:
    if sound(lengths):
      return lengths
    log.warning("%s is damaged; measuring again.", path)
  lengths = find()
  part = path.with_name(f"{path.name}.{os.getpid()}.part")
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with open(part, "wb") as file:
      np.savez(file, **dataclasses.asdict(lengths))
    part.replace(path)
  except OSError as error:
    log.warning("Lengths are not kept for the next start: %s", error)
    with contextlib.suppress(OSError):
      part.unlink()
  return lengths


def _load(path: Path) -> Lengths | None:
  names = [field.name for field in dataclasses.fields(Lengths)]
  try:
    with np.load(path, allow_pickle=False) as file:
      return Lengths(*(file[name] for name in names))
  except FileNotFoundError:
    return None
  # What a damaged archive raises depends on where it is damaged.
  except Exception as error:
    log.warning("%s cannot be read (%s); measuring again.", path, error)
    return None


def fingerprint(named: Mapping[str, Any]) -> str:
  """Another one whenever lengths may be others.

  Args:
    named: what a config says of source, format, filter and prompt, and the
      tokenizer's fingerprint. Files and folders that it names count with
      their size and time.
  """
  files = sorted({file for text in _texts(named) for file in _files(text)})
  stamps = [(file, *_stamp(file)) for file in files]
  content = [LAYOUT, _code(), named, stamps]
  text = json.dumps(content, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def _code() -> str:
  """Of what reads and writes documents: it may come to other lengths."""
  here = Path(__file__).parent
  found = hashlib.sha256()
  for path in sorted([*here.glob("*.py"), *here.parent.glob("text/**/*.py")]):
    found.update(path.read_bytes())
  return found.hexdigest()


def _texts(value: Any) -> Iterator[str]:
  if isinstance(value, str):
    yield value
  elif isinstance(value, Mapping):
    for inner in value.values():
      yield from _texts(inner)
  elif isinstance(value, list | tuple):
    for inner in value:
      yield from _texts(inner)


def _files(text: str) -> list[str]:
  return [text] if os.path.exists(text) else glob.glob(text)


def _stamp(file: str) -> tuple[int, int]:
  try:
    status = Path(file).stat()
  except OSError:
    return -1, -1
  return status.st_size, status.st_mtime_ns


def cache_folder() -> Path:
  """Where lengths are kept when a config names no place."""
  home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(home) / "mmjax" / "lengths"
