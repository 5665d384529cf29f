"""Two processes are one run."""

import json
import math
import re
import signal

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
  losses = [line["loss"] for line in read_jsonl(tmp_path / "metrics.jsonl")]
  assert len(losses) == 3 and all(map(math.isfinite, losses))


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
