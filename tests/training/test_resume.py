"""A run that is stopped and started again ends with the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmjax.training.loop import REQUEUE

# Many more than a run gets to before it is stopped.
STEPS = 60


def start(workdir: Path, steps: int = STEPS) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "-m", "tests.training.child", str(workdir), str(steps)],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=os.environ | {"PYTHONPATH": "."},
  )


def finish(process: subprocess.Popen) -> str:
  """The hash that a child prints."""
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  return output.rsplit("hash ", 1)[1].strip()


def kept(workdir: Path) -> list[int]:
  """Steps of the complete checkpoints."""
  found = (workdir / "checkpoints").glob("*")
  return sorted(int(p.name) for p in found if p.name.isdigit())


def wait_for_checkpoint(workdir: Path, process: subprocess.Popen) -> None:
  for _ in range(3000):
    if kept(workdir):
      return
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.02)
  raise TimeoutError(f"No checkpoint in {workdir}.")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  return finish(start(tmp_path_factory.mktemp("straight")))


@pytest.mark.heavy
@pytest.mark.parametrize(
  "number",
  [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL],
)
def test_same_bits_after_a_signal(number, straight, tmp_path):
  process = start(tmp_path, steps=100 * STEPS)
  wait_for_checkpoint(tmp_path, process)
  process.send_signal(number)
  process.communicate(timeout=300)
  expected = REQUEUE if number == signal.SIGTERM else -signal.SIGKILL
  assert process.returncode == expected
  assert 0 < kept(tmp_path)[-1] < STEPS
  assert finish(start(tmp_path)) == straight
