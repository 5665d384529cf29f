"""Signals to one process, from without its steps."""

import subprocess
import sys

import pytest

from mmjax.training.stopping import REQUEUE

LEAVES = """
import atexit, os, signal, sys
from mmjax.training.stopping import stop_signals

def told():
  os.kill(os.getpid(), signal.SIGTERM)

atexit.register(told)
with stop_signals() as stop:
  stop.saves()
  told()
  assert stop.is_set()
  {end}
"""


@pytest.mark.parametrize(
  "end, code", [("sys.exit(75)", REQUEUE), ("pass", -15)]
)
def test_a_signal_on_the_way_out(end, code):
  """Changes nothing for a run that has saved; it is no run's any more else."""
  done = subprocess.run([sys.executable, "-c", LEAVES.format(end=end)])
  assert done.returncode == code
