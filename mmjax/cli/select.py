"""`mmjax data select`, as a function."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmjax.cli.progress import Progress
from mmjax.config import lookup
from mmjax.data import noun_phrases
from mmjax.data.document import BadSample, printable
from mmjax.data.fields import text_of
from mmjax.data.sources import Json, Jsonl
from mmjax.data.table import Table

# Where a caption may be, when its column is not named.
COLUMNS = ("caption", "text", "txt")
ANSWERS = ("gpt", "assistant")
# Lines about records without a caption; the rest of them is a number.
TOLD = 10
_STEP = 1000


def select(
  source: Path,
  target: Path,
  *,
  column: str | None = None,
  phrases: str = "spacy",
  model: str = "en_core_web_sm",
  least: int = 3,
  most: int = 100,
  seed: int = 0,
  progress: Progress = lambda done, total: None,
  write: Callable[[str], None] = print,
) -> dict[str, Any]:
  """Writes the records that `noun_phrases.select` takes, as they are.

  Args:
    source: a .json or .jsonl of LLaVA's conversations, whose first answer is
      the caption, or of captions; or a .csv or .tsv with a header.
    target: a new file of the same kind; `<target>.summary.json` says how it
      came about.
    column: of the caption; default the first of COLUMNS that is there.
    phrases: of `noun_phrases.EXTRACTORS`.
    model: of spaCy.
    least, most, seed: see `noun_phrases.select`.
    progress: is told how many of how many records were read.
    write: takes a line at a time.

  Returns:
    the summary.

  Raises:
    ValueError: for files of other kinds, a target that is there already, and
      a source none of whose records has a caption.
  """
  _check(source, target)
  make = lookup(noun_phrases.EXTRACTORS, phrases, "extractor")
  extract = make(model)
  records, bad = _open(source, column), []
  captions = _captions(records, column, bad, progress)
  chosen = noun_phrases.select(extract(captions), seed, least, most)
  if len(bad) == len(records):
    raise ValueError(f"No record of {source} has a caption. First: {bad[0]}")
  summary = {
    "source": str(source),
    "records": len(records),
    "without_caption": len(bad),
    **_counts(chosen, len(bad)),
    "extractor": f"spacy {model}" if phrases == "spacy" else phrases,
    "least": least,
    "most": most,
    "seed": seed,
  }
  _put(target, _lines(records, chosen.taken.nonzero()[0].tolist(), target))
  text = json.dumps(summary, indent=2) + "\n"
  _put(target.with_name(f"{target.name}.summary.json"), iter([text.encode()]))
  _tell(summary, bad, target, write)
  return summary


def _counts(chosen: noun_phrases.Selection, bad: int) -> dict[str, int]:
  """Of a selection, for the summary; `bad` records have no caption at all."""
  return {
    "selected": int(chosen.taken.sum()),
    "without_phrase": chosen.without - bad,
    "phrases": chosen.phrases,
    "rare_phrases": chosen.rare,
    "frequent_phrases": chosen.frequent,
  }


def _check(source: Path, target: Path) -> None:
  if source.suffix not in (".json", ".jsonl", ".csv", ".tsv"):
    raise ValueError(f"{source} is no .json, .jsonl, .csv or .tsv.")
  if target.suffix != source.suffix:
    raise ValueError(
      f"{target} would be written like {source}; name it *{source.suffix}."
    )
  if target.exists():
    raise ValueError(f"{target} is there already; name a new file.")
  if not target.absolute().parent.is_dir():
    raise ValueError(f"There is no folder {target.parent} for {target.name}.")


def _open(source: Path, column: str | None) -> Json | Jsonl | Table:
  if not source.is_file():
    raise ValueError(f"There is no file {source}.")
  if source.suffix in (".json", ".jsonl"):
    found = (Json if source.suffix == ".json" else Jsonl)(str(source))
  else:
    mark = "\t" if source.suffix == ".tsv" else ","
    found = Table(str(source), mark, column or _column(source, mark))
  if not len(found):
    raise ValueError(f"{source} has no records.")
  return found


def _column(source: Path, mark: str) -> str:
  """The column of a table that holds its captions, if it is called so."""
  with open(source, encoding="utf-8-sig", errors="replace") as file:
    header = next(csv.reader(file, delimiter=mark), [])
  return next((name for name in COLUMNS if name in header), COLUMNS[0])


def _captions(
  records: Json | Jsonl | Table,
  column: str | None,
  bad: list[str],
  progress: Progress,
) -> Iterator[str]:
  """Of every record, "" where it has none; those are told in `bad`."""
  for i in range(len(records)):
    try:
      yield _caption(records[i], column)
    except BadSample as error:
      bad.append(f"record {i}: {error}")
      yield ""
    if (i + 1) % _STEP == 0 or i + 1 == len(records):
      progress(i + 1, len(records))


def _caption(record: Mapping[str, Any], column: str | None) -> str:
  name = str(record.get("__key__", "row"))
  if column is None and isinstance(record.get("conversations"), list):
    for turn in record["conversations"]:
      if isinstance(turn, Mapping) and turn.get("from") in ANSWERS:
        return text_of(turn.get("value"), name)
    raise BadSample(f"{name} has no answer.")
  for key in COLUMNS if column is None else (column,):
    if key in record:
      return text_of(record[key], name)
  raise BadSample(
    f"{name} has no {column or ' or '.join(COLUMNS)}, only "
    f"{[key for key in record if not key.startswith('__')]}. Name it with "
    "--column."
  )


def _lines(
  records: Json | Jsonl | Table, chosen: list[int], target: Path
) -> Iterator[bytes]:
  """The chosen records, in the form of the file."""
  if isinstance(records, Table):
    yield from records.lines(chosen)
  elif isinstance(records, Jsonl):
    yield from (records.raw(i) + b"\n" for i in chosen)
  else:
    yield b"["
    for place, i in enumerate(chosen):
      yield (b",\n" if place else b"\n") + records.raw(i)
    yield b"\n]\n"


def _put(target: Path, lines: Iterator[bytes]) -> None:
  """All of it, or nothing."""
  part = target.with_name(f"{target.name}.{os.getpid()}.part")
  try:
    with open(part, "wb") as file:
      file.writelines(lines)
    part.replace(target)
  finally:
    part.unlink(missing_ok=True)


def _tell(
  summary: Mapping[str, Any],
  bad: list[str],
  target: Path,
  write: Callable[[str], None],
) -> None:
  write(
    f"Wrote {target}: {summary['selected']:,} of {summary['records']:,} records"
  )
  write(
    f"  {summary['phrases']:,} phrases, {summary['rare_phrases']:,} in fewer "
    f"than {summary['least']} records, {summary['frequent_phrases']:,} in more "
    f"than {summary['most']}; {summary['without_phrase']:,} records have none"
  )
  if bad:
    write(f"  without a caption, and left out: {len(bad):,}")
  for line in bad[:TOLD]:
    write(f"    {printable(line)}")
  if len(bad) > TOLD:
    write(f"    and {len(bad) - TOLD:,} more")
