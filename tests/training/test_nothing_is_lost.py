"""Whatever ends a run, the next start ends with the same bits."""

import json
import re
import shutil
import signal
import time

import numpy as np
import pytest

from mmjax.training import goodput
from mmjax.training.loop import REQUEUE
from mmjax.training.watchdog import STUCK
from tests.job import Job

TOY = "tests.training.toy"
STEPS, EVERY = 20, 5
pytestmark = pytest.mark.heavy


def also(*values):
  """Another case of what one case shows already."""
  return pytest.param(*values, marks=pytest.mark.long)


def start(workdir, *options, processes=1, devices=2, **same) -> Job:
  """Processes of a run; `options` are those of each."""
  given = list(options) or [{}] * processes
  plan = dict(steps=STEPS, every=EVERY) | same
  return Job(
    TOY,
    str(workdir),
    [plan | g for g in given],
    processes=processes,
    devices=devices,
  )


def finish(workdir, **kwargs) -> str:
  """The hash that all processes of a run end with."""
  with start(workdir, **kwargs) as job:
    assert job.codes() == [0] * len(job.children), job.said
    (found,) = {re.search("hash (.*)", said)[1] for said in job.said}
    return found


def kept(workdir) -> list[int]:
  found = (workdir / "checkpoints").glob("*")
  return sorted(int(p.name) for p in found if p.name.isdigit())


def rows(workdir) -> dict[int, list[int]]:
  """Step to the rows that its processes read, in their order."""
  read: dict[int, list[int]] = {}
  for path in sorted(workdir.glob("rows-*.txt")):
    # A step that was done again was read again.
    own = dict(map(json.loads, path.read_text().splitlines()))
    for step, found in own.items():
      read.setdefault(step, []).extend(found)
  return read


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """The hash of an undisturbed run, and its directory."""
  workdir = tmp_path_factory.mktemp("straight")
  return finish(workdir), workdir


@pytest.fixture
def half(straight, tmp_path):
  """A copy of it that stopped at step 15."""
  workdir = tmp_path / "half"
  shutil.copytree(straight[1], workdir)
  shutil.rmtree(workdir / "checkpoints" / "20")
  for path in workdir.glob("rows-*"):
    path.unlink()
  return workdir


@pytest.mark.parametrize("how", ["term", "kill"])
def test_a_signal_in_the_middle_of_a_step(how, straight, tmp_path):
  with start(tmp_path, at={how: 10}) as job:
    expected = REQUEUE if how == "term" else -signal.SIGKILL
    assert job.codes() == [expected], job.said
  # Batches are read ahead: 10 is read before step 8 is done.
  done = kept(tmp_path)[-1]
  assert done == 5 if how == "kill" else 5 < done < 10
  assert finish(tmp_path) == straight[0]
  assert rows(tmp_path) == rows(straight[1])
  seconds = goodput.summary(goodput.read(tmp_path))
  lost = seconds["lost"]
  assert all(seconds[k] > 0 for k in ("step", "compile", "checkpoint", "away"))
  assert (lost > 0) == (how == "kill")


def test_a_kill_in_the_middle_of_a_save(straight, tmp_path):
  with start(tmp_path, width=8192) as job:
    end = time.monotonic() + 300
    saves = tmp_path / "checkpoints"
    while not (kept(tmp_path) and list(saves.glob("*tmp*"))):
      assert job.children[0].poll() is None, job.said
      assert time.monotonic() < end
      time.sleep(0.001)
    job.children[0].kill()
    assert job.codes() == [-signal.SIGKILL]
  assert list(saves.glob("*tmp*")), "the save was over"
  assert finish(tmp_path, width=8192) == straight[0]
  assert not list(saves.glob("*tmp*"))


def test_a_full_disk(straight, tmp_path):
  with start(tmp_path, at={"fill": 8}, width=256) as job:
    assert job.codes() == [1], job.said
    (said,) = job.said
  assert "Traceback" not in said
  last = said.splitlines()[-1]
  assert "Step 20 could not be saved" in last, "it goes on without"
  assert "The newest checkpoint is that of step 5" in last
  assert kept(tmp_path) == [5]
  assert finish(tmp_path, width=256) == straight[0]


@pytest.mark.parametrize("whose", [also([0]), [1], also([0, 1])])
def test_a_full_disk_of_some_processes(whose, straight, tmp_path):
  """Each saves a part of its own; those that can must not wait for ever."""
  options = [dict(at={"fill": 8}) if i in whose else {} for i in range(2)]
  shape = dict(processes=2, devices=1, width=256, cut=True)
  with start(tmp_path, *options, **shape) as job:
    assert job.codes() == [1, 1], job.said
  for i, said in enumerate(job.said):
    assert "step 20" in said, "it goes on without"
    assert "The newest checkpoint is that of step 5" in said.splitlines()[-1]
    assert "File too large" in said
    if whose == [1 - i]:
      assert f"could not be saved: process {1 - i}: " in said
  # And nothing takes up the room of a disk that is full.
  assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["5"]
  assert finish(tmp_path, **shape) == straight[0]


def test_a_disk_that_has_room_again(straight, tmp_path):
  """The saves after one that failed are whole, and one stopped run's last."""
  shape = dict(processes=2, devices=1, width=256, cut=True)
  full = dict(at={"fill": 8, "free": 14, "term": 17})
  with start(tmp_path, {}, full, **shape) as job:
    assert job.codes() == [REQUEUE, REQUEUE], job.said
  assert "newest checkpoint is that of step 5" in job.said[1]
  assert kept(tmp_path)[0] == 15 < kept(tmp_path)[1] < 18
  assert finish(tmp_path, **shape) == straight[0]


def test_the_newest_checkpoint_is_damaged(straight, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(straight[1], workdir)
  newest = workdir / "checkpoints" / "20" / "state"
  for file in newest.rglob("d/*"):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
  with start(workdir) as job:
    assert job.codes() == [0], job.said
    assert "GOES BACK TO STEP 15" in job.said[0]
    assert straight[0] in job.said[0]


@pytest.mark.parametrize("how", [also("unreadable"), "altered"])
@pytest.mark.parametrize("who", [0, also(1)])
def test_one_of_two_processes_finds_the_newest_damaged(
  who, how, straight, tmp_path
):
  """As when its machine reads other bytes: both go back to the same step."""
  workdir = tmp_path / "run"
  shutil.copytree(straight[1], workdir)
  options = [dict(damaged=how) if i == who else {} for i in range(2)]
  with start(workdir, *options, processes=2, devices=1) as job:
    assert job.codes() == [0, 0], job.said
  for said in job.said:
    assert "GOES BACK TO STEP 15" in said
    assert straight[0] in said
  assert kept(workdir) == [15, 20]


def test_one_of_two_processes_does_not_see_the_newest_at_once(
  straight, tmp_path
):
  workdir = tmp_path / "run"
  shutil.copytree(straight[1], workdir)
  late = dict(damaged="unseen")
  with start(workdir, {}, late, processes=2, devices=1) as job:
    assert job.codes() == [0, 0], job.said
  assert "Restored step 20" in job.said[0]
  assert all(straight[0] in said for said in job.said)


def test_another_number_of_workers(straight, half):
  assert finish(half, workers=2) == straight[0]


def test_half_the_devices(straight, half):
  """The sums have another order, so the last bits differ; the rows do not."""
  with start(half, devices=1) as job:
    assert job.codes() == [0], job.said
    found = json.loads(re.search("weights (.*)", job.said[0])[1])
  with start(straight[1]) as job:
    assert job.codes() == [0], job.said
    expected = json.loads(re.search("weights (.*)", job.said[0])[1])
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  all_rows = rows(straight[1])
  assert rows(half) == {step: all_rows[step] for step in range(16, 21)}


def test_two_processes_in_place_of_one(straight, half):
  assert finish(half, processes=2, devices=1) == straight[0]
  all_rows = rows(straight[1])
  assert rows(half) == {step: all_rows[step] for step in range(16, 21)}


@pytest.mark.parametrize("processes", [also(1), 2])
@pytest.mark.parametrize("when", ["compile", also("restore")])
def test_a_signal_before_the_first_step(when, processes, half, straight):
  """There is nothing to save, and the end is not waited for."""
  shape = dict(processes=processes, devices=2 // processes)
  with start(half, stalls=when, **shape) as job:
    job.wait_for("is compiled now" if when == "compile" else "restoring")
    time.sleep(3)  # Into the compiler, where Python looks at no signal.
    asked = time.monotonic()
    for child in job.children:
      child.send_signal(signal.SIGTERM)
    assert job.codes() == [REQUEUE] * processes, job.said
    assert time.monotonic() - asked < 5
  assert all("before there was a step to save" in said for said in job.said)
  assert kept(half) == [15]
  assert finish(half, **shape) == straight[0]


@pytest.mark.parametrize("told", [also(0), 1])
def test_a_signal_to_one_of_two_processes(told, straight, tmp_path):
  options = [{}, {}]
  options[told] = dict(at={"term": 8})
  with start(tmp_path, *options, processes=2, devices=1) as job:
    assert job.codes() == [REQUEUE, REQUEUE], job.said
  assert 6 <= kept(tmp_path)[-1] <= 8
  # And one process goes on where two stopped.
  assert finish(tmp_path) == straight[0]


def test_two_signals_to_each_of_two_processes(straight, tmp_path):
  """The second changes nothing, whatever the first has begun."""
  shape = dict(processes=2, devices=1, slow=0.05)
  with start(tmp_path, **shape) as job:
    job.wait_for("step 8\n")
    for _ in range(2):
      for child in job.children:
        child.send_signal(signal.SIGTERM)
      time.sleep(0.3)
    assert job.codes() == [REQUEUE, REQUEUE], job.said
  assert finish(tmp_path, **shape) == straight[0]


def test_a_signal_to_one_of_two_processes_in_a_save(straight, tmp_path):
  shape = dict(processes=2, devices=1, width=8192, cut=True)
  saves = tmp_path / "checkpoints"
  with start(tmp_path, **shape) as job:
    end = time.monotonic() + 300
    while not list(saves.glob("5.*tmp*")):
      assert job.children[0].poll() is None, job.said
      assert time.monotonic() < end
      time.sleep(0.001)
    job.children[1].send_signal(signal.SIGTERM)
    assert job.codes() == [REQUEUE, REQUEUE], job.said
  # The save that had begun is whole, as is that of the step it stopped at.
  assert kept(tmp_path)[0] == 5 < kept(tmp_path)[-1] < STEPS
  assert finish(tmp_path, **shape) == straight[0]


def test_one_of_two_processes_has_no_batch(straight, tmp_path):
  bad = dict(at={"fail": 8})
  with start(tmp_path, {}, bad, processes=2, devices=1) as job:
    assert job.codes() == [1, 1], job.said
    other, own = (said.splitlines()[-1] for said in job.said)
  assert "cannot go on" in own
  assert "Another process has no batch for step 8" in other
  assert kept(tmp_path) == [5, 7]
  assert finish(tmp_path, processes=2, devices=1) == straight[0]


def test_one_of_two_processes_is_stuck(straight, tmp_path):
  patience = dict(times=10.0, least=15.0, first=300.0)
  stuck = dict(at={"hang": 8})
  with start(
    tmp_path, {}, stuck, processes=2, devices=1, watchdog=patience
  ) as job:
    job.wait_for("step 8\n", 1)
    for child in job.children:
      child.send_signal(signal.SIGTERM)  # Which nobody looks at.
    codes = job.codes()
    waiting, own = job.said
  assert codes[1] == STUCK and codes[0] == STUCK, job.said
  assert "in hang" in own, "the stacks"
  assert "in to_the_end" in waiting
  for said in (waiting, own):
    assert "n:" in said and "mmjax data replay --step" in said
  assert finish(tmp_path, processes=2, devices=1) == straight[0]


@pytest.mark.parametrize("how", ["kill", also("die")])
def test_one_of_two_processes_dies(how, straight, tmp_path):
  """In a step, or in a save, for which the other does not wait then."""
  shape = dict(processes=2, devices=1)
  if how == "die":
    shape |= dict(width=8192, cut=True)
  with start(tmp_path, {}, dict(at={how: 8}), **shape) as job:
    job.children[1].wait()
    died = time.monotonic()
    assert job.codes() == [STUCK, -signal.SIGKILL], job.said
    assert time.monotonic() - died < 60, "JAX aborts it after 100 seconds"
  assert finish(tmp_path, **shape) == straight[0]
