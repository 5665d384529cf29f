"""Where a run's time goes, in goodput.jsonl and as a table at its end.

  {"time": 1.7e9, "start": 120}                      a start, from step 120
  {"time": 1.7e9, "step": 130, "step_s": 4.1, ...}   seconds since the last line

Steps that a later start did again are lost; so is what follows the last line
of a start that was killed, which is counted as away.
"""

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

# What a second can go to, and what the table calls it.
KINDS = {
  "step": "steps",
  "input": "waiting for data",
  "compile": "compiling",
  "checkpoint": "saving, as far as it blocks",
  "restart": "starting, restoring",
}
FILE = "goodput.jsonl"


class Goodput:
  """A clock that always runs for one of KINDS."""

  def __init__(self, directory: Path | None):
    """Starts it, for "restart".

    Args:
      directory: of the run; None for a process that writes nothing.
    """
    self._path = directory / FILE if directory else None
    self._seconds = dict.fromkeys(KINDS, 0.0)
    self._kind, self._since = "restart", time.monotonic()
    self._begun = time.time()

  def __enter__(self) -> "Goodput":
    return self

  def __exit__(self, *_) -> None:
    """Shows the table of the whole run, earlier starts included."""
    if self._path is not None and self._path.exists():
      log.info("\n%s", table(summary(read(self._path.parent))))

  def start(self, step: int) -> None:
    """The steps after `step` begin."""
    self._write({"time": round(self._begun, 3), "start": step})
    self.write(step)
    self._kind = "step"

  @contextlib.contextmanager
  def spent(self, kind: str) -> Iterator[None]:
    """What is done inside is of this kind."""
    before = self._turn(kind)
    try:
      yield
    finally:
      self._turn(before)

  def was(self, kind: str, seconds: float) -> None:
    """So many of the last seconds turn out to have been of this kind."""
    self._turn(self._kind)
    self._seconds[self._kind] -= seconds
    self._seconds[kind] += seconds

  def write(self, step: int) -> None:
    """A line of the seconds since the last one."""
    self._turn(self._kind)
    seconds = {f"{k}_s": round(v, 4) for k, v in self._seconds.items() if v}
    self._write({"time": round(time.time(), 3), "step": step} | seconds)
    self._seconds = dict.fromkeys(KINDS, 0.0)

  def _turn(self, kind: str) -> str:
    now = time.monotonic()
    self._seconds[self._kind] += now - self._since
    before, self._kind, self._since = self._kind, kind, now
    return before

  def _write(self, line: Mapping[str, Any]) -> None:
    if self._path is None:
      return
    with self._path.open("a", encoding="utf-8") as file:
      file.write(json.dumps(line) + "\n")


def read(directory: Path) -> list[dict[str, float]]:
  """The lines of a run; one that a kill cut off is left out."""
  lines = []
  text = (directory / FILE).read_text(encoding="utf-8")
  for number, line in enumerate(text.splitlines(), start=1):
    try:
      lines.append({k: float(v) for k, v in json.loads(line).items()})
    except (ValueError, AttributeError, TypeError):
      log.warning("%s line %d is no line of it: left out", directory, number)
  return lines


def summary(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Seconds by kind, with those that are `lost` and `away`."""
  total = dict.fromkeys((*KINDS, "lost", "away"), 0.0)
  spans: list[_Span] = []
  at, now = 0.0, None
  for line in lines:
    if "start" in line:
      at = line["start"]
      total["away"] += max(line["time"] - (now or line["time"]), 0.0)
      spans = [span.cut(at, total) for span in spans]
    else:
      seconds = {kind: line.get(f"{kind}_s", 0.0) for kind in KINDS}
      total = {k: v + seconds.get(k, 0.0) for k, v in total.items()}
      spans.append(_Span(at, line["step"], seconds))
      at = line["step"]
    now = line["time"]
  return total


@dataclasses.dataclass(frozen=True)
class _Span:
  """Steps first + 1 ... last, with the seconds that still count."""

  first: float
  last: float
  seconds: Mapping[str, float]

  def cut(self, at: float, total: dict[str, float]) -> "_Span":
    """What is left when steps after `at` are done again."""
    if self.last <= at:
      return self
    part = (self.last - max(self.first, at)) / max(self.last - self.first, 1)
    gone = {kind: part * self.seconds[kind] for kind in ("step", "input")}
    for kind, value in gone.items():
      total[kind] -= value
      total["lost"] += value
    left = {k: v - gone.get(k, 0.0) for k, v in self.seconds.items()}
    return _Span(min(self.first, at), at, left)


def table(seconds: Mapping[str, float]) -> str:
  """The summary as text, with the share of each kind."""
  names = KINDS | {
    "lost": "lost: steps done again",
    "away": "away: between two starts",
  }
  whole = max(sum(seconds.values()), 1e-9)
  lines = [f"{'where the time went':28}{'seconds':>12}{'share':>9}"]
  for kind, value in seconds.items():
    lines.append(f"{names[kind]:28}{value:>12.1f}{value / whole:>9.2%}")
  lines.append(f"{'total':28}{whole:>12.1f}{1:>9.2%}")
  return "\n".join(lines)
