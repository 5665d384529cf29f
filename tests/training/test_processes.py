"""Two processes are one run."""

import json
import signal

import pytest

from mmjax.training.loop import REQUEUE
from tests.job import Job

TOWERS = "tests.training.towers"
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
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_process_stops_both_at_one_step(
  told, straight, tmp_path
):
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
