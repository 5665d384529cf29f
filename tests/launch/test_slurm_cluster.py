"""Jobs on a real SLURM: submitted, told to stop, queued again, resumed."""

import json
import re

import pytest

from launch import slurm
from launch.job import Job
from tests.launch import stand_in
from tests.launch.cluster import Cluster, find_programs
from tests.launch.stand_in import attempts, notes, wait_for

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
  find_programs()
  with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
    yield cluster


def submit(job: Job, capfd) -> str:
  assert slurm.submit(job) == 0
  return re.search(r"Submitted batch job (\d+)", capfd.readouterr().out)[1]


def stand(tmp_path, **fields) -> Job:
  plan = fields.pop("plan", {})
  given = {"nodes": 2, "devices": 2, "cpu": True, "config": "a.py"}
  return Job(
    workdir=str(tmp_path / "run"),
    python=stand_in.install(tmp_path),
    env={"STAND_IN": json.dumps(plan)},
    **(given | fields),
  )


def test_two_nodes_are_told_to_stop_and_queued_again(cluster, tmp_path, capfd):
  plan = {"0": ["wait", 0], "1": ["wait", 0]}
  job = stand(tmp_path, plan=plan)
  number = submit(job, capfd)
  run, log = tmp_path / "run", tmp_path / "run" / f"slurm-{number}.log"
  wait_for(lambda: attempts(run, 0) and attempts(run, 1))
  nodes = {notes(run, i)["env"]["SLURMD_NODENAME"] for i in range(2)}
  assert len(nodes) == 2
  assert notes(run, 0)["arguments"] == job.command("")[1:]
  cluster.ask("scancel", "--signal=TERM", number)
  state = cluster.wait(number, log, 90)
  assert (state["JobState"], state["Restarts"]) == ("COMPLETED", "1")
  assert attempts(run, 0) == attempts(run, 1) == 2
  assert "exit code 75; queued again" in log.read_text()


@pytest.mark.parametrize(
  "plan, restarts, code",
  [
    # One that is stuck is ended by its watchdog, and its peer is aborted.
    ({"0": ["abort", 0], "1": [76, 0]}, 1, "0:0"),
    ({"0": [0], "1": [3]}, 0, "3:0"),
    # A peer of one that cannot go on says that it lost it.
    ({"0": [76, 0], "1": [1, 0]}, 0, "1:0"),
    ({"0": [255, 0], "1": [76, 0]}, 1, "0:0"),
    # No restart is left.
    ({"0": [75, 75], "1": [75, 75]}, 1, "75:0"),
  ],
)
def test_what_queues_a_job_again(
  cluster, tmp_path, capfd, plan, restarts, code
):
  number = submit(stand(tmp_path, plan=plan, max_restarts=1), capfd)
  log = tmp_path / "run" / f"slurm-{number}.log"
  state = cluster.wait(number, log, 90)
  assert int(state["Restarts"]) == restarts, log.read_text()
  assert state["ExitCode"] == code
