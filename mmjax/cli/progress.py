"""How far a command is, on the terminal."""

from collections.abc import Callable

from mmjax import distributed
from mmjax.training import metrics

# Is told how many of how many are done.
Progress = Callable[[int, int], None]


def show_progress() -> Progress:
  """A progress bar that learns its total when it is first told."""
  bars: list[metrics.Progress] = []

  def show(done: int, total: int) -> None:
    if not distributed.is_first():
      return
    if not bars:
      bars.append(metrics.Progress(total, shown=()))
    bars[0].write(done, {})
    if done == total:
      bars[0].close()

  return show
