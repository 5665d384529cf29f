"""Where the numbers of a run go: terminal, JSON lines, TensorBoard, W&B.

  sums = Sums()
  with open_writers("runs/demo", total=1000) as writer:
    for step in range(1, 1001):
      state, metrics = train_step(state, batch)   # {"loss": (sum, count), ...}
      sums.add(metrics)
      if step % 10 == 0:
        writer.write(step, sums.take())

A mean is kept as sum and count until it is shown, so it is right over packing,
accumulation and hosts. Adding does not wait for the device; taking does.
"""

import importlib.util
import io
import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

log = logging.getLogger(__name__)

# A pair (sum, count), or a value that counts once.
Metrics = Mapping[str, Any]


class Sums:
  """Collects metrics of several steps into means."""

  def __init__(self):
    self._pending: list[dict[str, tuple[Any, Any]]] = []

  def add(self, metrics: Metrics) -> None:
    pairs = {
      k: v if isinstance(v, tuple) else (v, 1) for k, v in metrics.items()
    }
    for x in (x for pair in pairs.values() for x in pair):
      # A device array then travels while the next steps run.
      getattr(x, "copy_to_host_async", lambda: None)()
    self._pending.append(pairs)

  def take(self) -> dict[str, float]:
    """The means since the last call; a count of 0 gives NaN."""
    sums: dict[str, np.ndarray] = {}
    for pairs in self._pending:
      for name, pair in pairs.items():
        values = np.array([float(np.asarray(x)) for x in pair])
        sums[name] = sums.get(name, np.zeros(2)) + values
    self._pending = []
    return {
      name: float(total / count) if count else math.nan
      for name, (total, count) in sums.items()
    }


@runtime_checkable
class Writer(Protocol):
  """Takes the metrics of a step."""

  def write(self, step: int, values: Mapping[str, float]) -> None: ...

  def close(self) -> None: ...


class MultiWriter:
  """Several writers as one; closes them all at the end of a `with`."""

  def __init__(self, writers: Sequence[Writer]):
    self.writers = list(writers)

  def write(self, step: int, values: Metrics) -> None:
    plain = {k: float(np.asarray(v)) for k, v in values.items()}
    for writer in self.writers:
      writer.write(step, plain)

  def close(self) -> None:
    for writer in self.writers:
      writer.close()

  def __enter__(self) -> "MultiWriter":
    return self

  def __exit__(self, *error) -> None:
    self.close()


class JsonlWriter:
  """One JSON object a line: {"step": 10, "time": 1.7e9, "loss": 2.5}.

  Every line is on its way to the disk when `write` returns. A resumed run
  appends, so a step that was done twice stands twice; `read_jsonl` takes the
  later one. Numbers that JSON does not have are strings ("nan", "inf").
  """

  def __init__(self, path: str | Path, clock: Callable[[], float] = time.time):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    self._clock = clock
    self._file = path.open("a", encoding="utf-8")
    if not ends_a_line(path):
      self._file.write("\n")

  def write(self, step: int, values: Mapping[str, float]) -> None:
    line = {"step": int(step), "time": round(self._clock(), 3)}
    for name, value in values.items():
      line[name] = value if math.isfinite(value) else str(value)
    self._file.write(json.dumps(line) + "\n")
    self._file.flush()

  def close(self) -> None:
    self._file.close()


def ends_a_line(path: Path) -> bool:
  """Whether a file is empty, or its last line is whole."""
  with path.open("rb") as file:
    size = file.seek(0, 2)
    file.seek(max(size - 1, 0))
    return file.read(1) in (b"", b"\n")


def read_jsonl(path: str | Path) -> list[dict[str, float]]:
  """The lines of a `JsonlWriter`, in the order of their steps.

  A line that a killed process left unfinished is reported and left out.
  """
  lines: dict[int, dict[str, float]] = {}
  text = Path(path).read_text(encoding="utf-8")
  for number, line in enumerate(text.splitlines(), start=1):
    if not line.strip():
      continue
    try:
      values = {k: float(v) for k, v in json.loads(line).items()}
      lines[int(values["step"])] = values
    except (ValueError, KeyError, AttributeError, TypeError):
      log.warning("%s line %d is no line of metrics: left out", path, number)
  return [lines[step] for step in sorted(lines)]


class TensorBoardWriter:
  """Scalars for TensorBoard."""

  def __init__(self, directory: str | Path):
    from tensorboardX import SummaryWriter

    self._writer = SummaryWriter(str(directory))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


class WandbWriter:
  """Scalars for Weights & Biases."""

  def __init__(self, directory: str | Path, **options: Any):
    import wandb

    self._run = wandb.init(dir=str(directory), **options)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    self._run.log(dict(values), step=step)

  def close(self) -> None:
    self._run.finish()


class Progress:
  """A bar on a terminal, a line now and then elsewhere.

    120/1000 ███▎                   12%  loss 2.31  45 ms/step  1:23 left

  The step time is that of the steps since the last write, smoothed, and
  leaves out the first write, which waits for the compiler.

  Args:
    total: steps of the run.
    shown: names of the metrics to show, those that there are.
    file: where to write.
    every: seconds between two lines where there is no terminal.
    clock: of seconds.
  """

  def __init__(
    self,
    total: int,
    *,
    shown: Sequence[str] = ("loss",),
    file: io.TextIOBase | None = None,
    every: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._total, self._shown, self._every = total, shown, every
    self._file = sys.stderr if file is None else file
    self._clock = clock
    self._terminal = self._file.isatty()
    self._last: tuple[int, float] | None = None
    self._seconds = math.nan  # of a step
    self._printed = -math.inf
    self._open = False

  def write(self, step: int, values: Mapping[str, float]) -> None:
    now = self._clock()
    self._measure(step, now)
    done = step >= self._total
    if self._terminal:
      width = shutil.get_terminal_size().columns - 1
      self._file.write("\r" + self._bar(step, values, width).ljust(width))
      self._open = True
    elif done or now - self._printed >= self._every:
      self._file.write(self._line(step, values) + "\n")
      self._printed = now
    self._file.flush()

  def close(self) -> None:
    if self._open:
      self._file.write("\n")
      self._file.flush()
      self._open = False

  def _measure(self, step: int, now: float) -> None:
    if self._last is not None and step > self._last[0]:
      new = (now - self._last[1]) / (step - self._last[0])
      old = self._seconds
      self._seconds = new if math.isnan(old) else 0.7 * old + 0.3 * new
    self._last = (step, now)

  def _facts(self, step: int, values: Mapping[str, float]) -> Iterator[str]:
    for name in self._shown:
      if name in values:
        yield f"{name} {values[name]:.4g}"
    if not math.isnan(self._seconds):
      yield f"{duration(self._seconds)}/step"
      left = max(self._total - step, 0) * self._seconds
      yield f"{clock_time(left)} left"

  def _line(self, step: int, values: Mapping[str, float]) -> str:
    return "  ".join([f"{step}/{self._total}", *self._facts(step, values)])

  def _bar(self, step: int, values: Mapping[str, float], width: int) -> str:
    part = min(step / self._total, 1.0) if self._total else 1.0
    facts = "  ".join([f"{part:4.0%}", *self._facts(step, values)])
    count = f"{step:>{len(str(self._total))}}/{self._total}"
    room = min(30, width - len(count) - len(facts) - 3)
    if room < 5:
      return f"{count} {facts}"[:width]
    eighths = round(part * room * 8)
    bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]
    return f"{count} {bar[:room].ljust(room)} {facts}"


def duration(seconds: float) -> str:
  """A short time: `45 ms`, `1.25 s`."""
  if seconds < 1:
    return f"{1000 * seconds:.3g} ms"
  return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def clock_time(seconds: float) -> str:
  """A long time: `1:23`, `2:03:04`, `1 d 2:03:04`."""
  minutes, second = divmod(round(seconds), 60)
  hours, minute = divmod(minutes, 60)
  days, hour = divmod(hours, 24)
  if not hours:
    return f"{minute}:{second:02d}"
  return f"{days} d " * bool(days) + f"{hour}:{minute:02d}:{second:02d}"


def open_writers(
  directory: str | Path,
  total: int,
  *,
  shown: Sequence[str] = ("loss",),
  tensorboard: bool = True,
  wandb: Mapping[str, Any] | None = None,
) -> MultiWriter:
  """All writers of a run: `metrics.jsonl`, the terminal, TensorBoard, W&B.

  Args:
    directory: of the run.
    total: steps of the run.
    shown: metrics that the terminal shows.
    tensorboard: whether to write for it; left out with a line in the log
      where tensorboardX is not installed.
    wandb: arguments of `wandb.init`, or None for no W&B.
  """
  directory = Path(directory)
  writers: list[Writer] = [JsonlWriter(directory / "metrics.jsonl")]
  if tensorboard and _installed("tensorboardX"):
    writers.append(TensorBoardWriter(directory / "tensorboard"))
  if wandb is not None and _installed("wandb"):
    writers.append(WandbWriter(directory, **wandb))
  return MultiWriter([*writers, Progress(total, shown=shown)])


def _installed(package: str) -> bool:
  found = importlib.util.find_spec(package) is not None
  if not found:
    log.warning(
      "%s is not installed: nothing is written for it. `pip install %s` "
      "brings it.",
      package,
      package,
    )
  return found
