"""Two processes are one run."""

import json
import math
import re
import shutil
import signal
import socket
import time

import pytest

from mmjax.training.loop import REQUEUE
from mmjax.training.metrics import read_jsonl
from tests.job import Job

TOWERS = "tests.training.towers"
APART = "tests.training.apart"
STEPS = 12
CHANGES = dict(steps=STEPS, every=50)


def hashes(job: Job) -> set[str]:
  """Of all processes' final states, which end well."""
  assert job.codes() == [0] * len(job.children), job.said
  return {said.rsplit("hash ", 1)[1].split()[0] for said in job.said}


def run(workdir, processes=1, devices=2, **changes) -> set[str]:
  shape = dict(processes=processes, devices=devices)
  with Job(TOWERS, str(workdir), CHANGES | changes, **shape) as job:
    return hashes(job)


def kept(workdir) -> list[int]:
  found = (workdir / "checkpoints").glob("*")
  return sorted(int(p.name) for p in found if p.name.isdigit())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """The hash of one process with two devices, and its directory."""
  workdir = tmp_path_factory.mktemp("straight")
  (found,) = run(workdir)
  return found, workdir


@pytest.mark.heavy
@pytest.mark.long
def test_a_signal_to_one_process_stops_both_at_one_step(straight, tmp_path):
  told = 1
  shape = dict(processes=2, devices=1)
  slow = CHANGES | dict(slow=0.3)
  with Job(TOWERS, str(tmp_path), slow, **shape) as job:
    job.wait_for("step 5\n", told)
    job.children[told].send_signal(signal.SIGTERM)
    assert job.codes() == [REQUEUE, REQUEUE], job.said
  (step,) = kept(tmp_path)
  assert 2 < step < STEPS
  assert run(tmp_path, **shape) == {straight[0]}
  # Written once, though two processes ran.
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in lines] == [5, 10, 12]


def reads(job: Job) -> dict[str, list[str]]:
  """Step to the records that all processes read, in the order of the rows."""
  read: dict[str, list[str]] = {}
  for said in job.said:
    for step, text in re.findall(r"reads (\d+) (.*)", said):
      own, known = json.loads(text)["pairs"], read.setdefault(step, [])
      if own != known[-len(own) :]:  # Else its neighbour has the same rows.
        known += own
  return read


def losses(workdir) -> list[float]:
  return [line["loss"] for line in read_jsonl(workdir / "metrics.jsonl")]


@pytest.mark.heavy
@pytest.mark.long
def test_axes_over_processes_and_then_another_mesh(tmp_path):
  """Parameters and heads are cut over four processes, then not at all."""
  cut = CHANGES | dict(mesh=dict(data=1, fsdp=2, tensor=2))
  four = dict(processes=4, devices=1)
  with Job(TOWERS, str(tmp_path / "a"), cut | dict(slow=0.3), **four) as job:
    job.wait_for("step 6\n", 3)
    job.children[3].send_signal(signal.SIGTERM)
    assert job.codes() == [REQUEUE] * 4, job.said
  order = reads(job)
  (step,) = kept(tmp_path / "a")
  shutil.copytree(tmp_path / "a", tmp_path / "b")
  with Job(TOWERS, str(tmp_path / "a"), cut, **four) as job:
    (stopped,) = hashes(job)
  order |= reads(job)
  with Job(TOWERS, str(tmp_path / "straight"), cut, **four) as job:
    assert hashes(job) == {stopped}
  assert reads(job) == order
  # Other processes, devices and axes go on from the same step.
  other = CHANGES | dict(mesh=dict(data=1, tensor=2))
  shape = dict(processes=2, devices=1)
  with Job(TOWERS, str(tmp_path / "b"), other, **shape) as job:
    hashes(job)
  rest = {str(i): order[str(i)] for i in range(step + 1, STEPS + 1)}
  assert reads(job) == rest
  a, b = (losses(tmp_path / name) for name in "ab")
  assert b == pytest.approx(a, rel=1e-4), "but for the order of sums"


@pytest.mark.heavy
@pytest.mark.parametrize("absent", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_signal_while_another_process_is_waited_for(absent, tmp_path):
  shape = dict(processes=2, devices=1, absent=absent)
  with Job(TOWERS, str(tmp_path), CHANGES, **shape) as job:
    if absent:
      until_connected(job.port)
    else:
      with socket.create_server(("localhost", job.port)) as server:
        server.accept()[0].recv(1)
    asked = time.monotonic()
    job.children[0].send_signal(signal.SIGTERM)
    assert job.codes() == [REQUEUE], job.said
    assert time.monotonic() - asked < 5


def until_connected(port: int) -> None:
  while True:
    try:
      return socket.create_connection(("localhost", port)).close()
    except ConnectionRefusedError:
      time.sleep(0.1)


@pytest.mark.heavy
def test_a_process_with_text_and_one_with_pictures_do_not_wait_for_ever(
  tmp_path,
):
  with Job(APART, str(tmp_path), processes=2, devices=1) as job:
    assert len(hashes(job)) == 1
    kinds = [
      re.findall(r"step \d (text|image|video)", said) for said in job.said
    ]
  assert kinds == [["image", "video", "text"], ["video", "text", "image"]]
  found = losses(tmp_path)
  assert len(found) == 3 and all(map(math.isfinite, found))


@pytest.mark.heavy
def test_processes_that_do_not_fit_together_are_told_so(tmp_path):
  other = CHANGES | dict(batch=16)
  with Job(
    TOWERS, str(tmp_path), [CHANGES, other], processes=2, devices=1
  ) as job:
    assert job.codes() == [1, 1], job.said
  for said in job.said:
    last = said.splitlines()[-1]
    assert "do not fit together: process 1 on " in last
    assert "has another config.data.datasets.pairs.batch" in last
  assert not list(tmp_path.iterdir())


@pytest.mark.heavy
def test_a_directory_that_only_one_process_sees_is_refused(tmp_path):
  places = [str(tmp_path / "one"), str(tmp_path / "two")]
  with Job(
    TOWERS, places, CHANGES | dict(patience=3.0), processes=2, devices=1
  ) as job:
    assert job.codes() == [1, 1], job.said
  for said in job.said:
    assert "process 1 on " in said.splitlines()[-1]
    assert "shared file system" in said.splitlines()[-1]
