"""`mmjax data inspect` and `mmjax data index`, as functions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mmjax.data import (
  audio,
  build,
  image,
  points,
  sources,
  tar,
  video,
  webdataset,
)
from mmjax.data.document import (
  BadSample,
  Document,
  Filtered,
  printable,
  reading,
)
from mmjax.data.formats import FORMATS, Documents
from mmjax.data.sources import SOURCES

SUFFIXES = {
  ".tar": "tar",
  ".jsonl": "jsonl",
  ".json": "json",
  ".parquet": "parquet",
  ".array_record": "array_record",
}
# Lines about bad members of shards; the rest of them is a number.
TOLD = 10
# What the metadata of a medium may say of the part to decode.
_CLIP = {"start", "end"}
# Samples a second that sounds are read at, as `Sounds` does.
_RATE = 16_000


def inspect(
  target: str | Mapping[str, Any] | ConfigDict,
  format: str | None = None,
  count: int = 3,
  start: int = 0,
  write: Callable[[str], None] = print,
) -> int:
  """Shows the documents that records become, and which ones are bad.

  What is bad by its place in a tar is told whether it is shown or not.

  Args:
    target: a file or pattern, or `config.data`, of which every dataset is
      shown.
    format: of FORMATS, for a file; without it the records are shown.
    count: how many.
    start: the first.
    write: takes a line at a time.

  Returns:
    How many of those shown are bad.

  Raises:
    ValueError: when there is nothing to show.
  """
  if count < 1 or start < 0:
    raise ValueError(
      f"count is {count} and start {start}; expected 1 or more, and 0 or more."
    )
  if isinstance(target, str):
    return _show(_open(target, format), target, count, start, write)
  if format is not None:
    raise ValueError("A config names its formats; --format is for files.")
  bad, config = 0, build.plain(target)
  for name, entry in config["datasets"].items():
    parts = entry.get("mix") or {"": entry}
    for key, part in parts.items():
      if part.get("source") is None:
        raise ValueError(f"Dataset {name!r} names no source.")
      named = {k: part.get(k) for k in ("source", "format", "filter")}
      found = build.documents(**named, seed=config.get("seed", 0))
      label = f"{name}/{key}" if key else name
      bad += _show(found, label, count, start, write)
  return bad


def index(
  paths: str | Sequence[str], write: Callable[[str], None] = print
) -> list[Path]:
  """Writes the index of every tar that `paths` names, next to it.

  Links and other members that will make their records bad are told.

  Raises:
    BadTar: for a damaged shard; those before it have their index.
  """
  files, written = sources.expand(paths), []
  for i, path in enumerate(files):
    written.append(tar.write_index(path))
    members = tar.read_index(path) or ()
    bad = [webdataset.problem(m, path) for m in members if m.problem]
    count = len(members) - len(bad)
    write(f"[{i + 1}/{len(files)}] {written[-1]}: {count} files")
    _tell(bad, "members that make their records bad", write)
  return written


def _tell(
  lines: Sequence[str], what: str, write: Callable[[str], None]
) -> None:
  """The first lines, and how many there are."""
  if not lines:
    return
  write(f"  {what}: {len(lines):,}")
  for line in lines[:TOLD]:
    write(f"    {printable(line)}")
  if len(lines) > TOLD:
    write(f"    and {len(lines) - TOLD:,} more")


def _open(path: str, format: str | None) -> sources.Source:
  first = sources.expand(path)[0]
  suffix = Path(first).suffix
  if suffix not in SUFFIXES:
    raise ValueError(
      f"{first} is none of {', '.join(SUFFIXES)}. Unpack it when it is "
      "compressed; a folder with a table needs a config, such as --config "
      "configs/flamingo/folder.py."
    )
  records = SOURCES[SUFFIXES[suffix]](path)
  if format is None:
    return records
  return Documents(records, build.build(FORMATS, {"name": format}))


def _show(
  source: sources.Source,
  label: str,
  count: int,
  start: int,
  write: Callable[[str], None],
) -> int:
  size = "no end" if getattr(source, "endless", False) else f"{len(source):,}"
  write(f"{label}: {size} records")
  bad_shards = getattr(source, "problems", ())
  _tell(bad_shards, "records that are bad in their shards", write)
  if start >= len(source):
    raise ValueError(
      f"{label} has {len(source)} records, so there is none from {start} on."
    )
  bad = 0
  for i in range(start, min(start + count, len(source))):
    try:
      item = source[i]
      write(f"[{i}] {render(item)}")
    except Filtered as error:
      write(f"[{i}] filtered: {printable(str(error))}")
    except BadSample as error:
      bad += 1
      write(f"[{i}] BAD: {printable(str(error))}")
  return bad


def render(item: Any) -> str:
  """A record or document in lines; encoded media are decoded.

  Raises:
    BadSample: for a medium that cannot be used.
  """
  if not isinstance(item, Document):
    return "record\n" + "\n".join(
      f"    {key}: {_short(value)}" for key, value in item.items()
    )
  found: dict[str, list[str]] = {}
  for media in item.media:
    payload = media.load()
    name = f"{item.id}:{media.name}" if media.name else item.id
    if isinstance(payload, bytes):
      clip = {k: media.metadata[k] for k in media.metadata.keys() & _CLIP}
      label, describe = _DECODED[media.kind]
      with reading(name):
        told = describe(payload, name, **clip)
      found.setdefault(label, []).append(told)
  lines = [f"\n  {label}: {', '.join(x)}" for label, x in found.items()]
  return f"{item}{''.join(lines)}"


def _picture(payload: bytes, name: str, **_: Any) -> str:
  height, width = image.decode(payload, name).shape[:2]
  return f"{width}x{height}"


def _clip(payload: bytes, name: str, **clip: float) -> str:
  frames, height, width = video.decode(payload, name=name, **clip).shape[:3]
  return f"{frames} frames of {width}x{height}"


def _sound(payload: bytes, name: str, **clip: float) -> str:
  """Its seconds, as readers would have it, and the rate of the file."""
  wave, found = audio.read(payload, _RATE, name)
  wave = audio.check(audio.resample(wave, found, _RATE), name)
  wave = audio.part(wave, _RATE, name=name, **clip)
  return f"{round(len(wave) / _RATE, 2):g} s at {found} Hz"


def _shape(payload: bytes, name: str, **_: Any) -> str:
  shape = points.read(payload, name)
  points.sample(shape, name=name)
  vertices, triangles = len(shape.vertices), len(shape.triangles)
  if not triangles:
    return f"{vertices} points"
  return f"{vertices} vertices, {triangles} triangles"


# By kind: the line on which media are told, and what makes words of one.
_DECODED = {
  "image": ("pictures", _picture),
  "video": ("pictures", _clip),
  "audio": ("sounds", _sound),
  "points": ("points", _shape),
}


def _short(value: Any) -> str:
  if isinstance(value, bytes):
    return f"{len(value):,} bytes"
  if isinstance(value, np.ndarray):
    return f"{value.dtype}{list(value.shape)}"
  text = repr(value)
  return text if len(text) <= 100 else f"{text[:97]}..."
