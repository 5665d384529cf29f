"""Results of chat benchmarks as a table, beside published ones.

task  score        result   published  difference  questions  not read
pope  f1             85.3        85.9        -0.6       8910         0
"""

from collections.abc import Sequence

from mmjax.evaluation.chat import ChatResult
from mmjax.evaluation.published import Value

HEAD = (
  *("task", "score", "result", "published", "difference"),
  *("questions", "not read"),
)
_TEXTS = 2  # Columns of words, on the left.


def rows(results: Sequence[ChatResult]) -> list[tuple[str, ...]]:
  """A row for every score, and one for a task that has none."""
  made = []
  for result in results:
    counts = (str(result.count), str(result.failed))
    for name in result.scores:
      made.append((result.task, name, *_values(result, name), *counts))
    if not result.scores:
      made.append((result.task, "-", "-", "-", "-", *counts))
  return made


def _values(result: ChatResult, name: str) -> tuple[str, str, str]:
  own, spread = result.scores[name], result.spread.get(name)
  known = result.published.get(name)
  shown = _text(own if spread is None else (own, spread))
  if known is None:
    return shown, "-", "-"
  mean = known[0] if isinstance(known, tuple) else known
  return shown, _text(known), f"{own - mean:+.1f}"


def _text(value: Value) -> str:
  if isinstance(value, tuple):
    return f"{value[0]:.1f} ± {value[1]:.1f}"
  return f"{value:.1f}"


def table(results: Sequence[ChatResult]) -> str:
  """For a terminal."""
  lines = [HEAD, *rows(results)]
  widths = [max(len(row[i]) for row in lines) for i in range(len(HEAD))]
  return "\n".join(
    "  ".join(
      cell.ljust(width) if i < _TEXTS else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths))
    ).rstrip()
    for row in lines
  )


def markdown(results: Sequence[ChatResult]) -> str:
  """For a file."""
  marks = (":--",) * _TEXTS + ("--:",) * (len(HEAD) - _TEXTS)
  lines = [HEAD, marks, *rows(results)]
  # A task may be called anything.
  cells = [[cell.replace("|", "\\|") for cell in row] for row in lines]
  return "".join(f"| {' | '.join(row)} |\n" for row in cells)
