"""Jobs on a real SLURM: submitted, told to stop, queued again, resumed.

What a stopped run ends with is compared with the same run as processes of this
machine, which nothing disturbs.
"""

import dataclasses
import json
import re
import time
from pathlib import Path

import pytest

from launch import local, slurm
from launch.job import Job
from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.training.metrics import read_jsonl
from tests.cli.test_train import config_of
from tests.data.pictures import encode, photo
from tests.launch import stand_in
from tests.launch.cluster import Cluster, find_programs
from tests.launch.stand_in import attempts, notes, wait_for

pytestmark = [pytest.mark.heavy, pytest.mark.long]
ROOT = Path(__file__).parents[2]
STEPS = 60
COLOURS = ("red", "blue", "green", "black")
THINGS = ("kite", "dog", "cat", "ball")


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


def test_a_cancelled_job_saves_and_stays_cancelled(cluster, tmp_path, capfd):
  plan = {"0": ["wait", 0], "1": ["wait", 0]}
  number = submit(stand(tmp_path, plan=plan), capfd)
  run, log = tmp_path / "run", tmp_path / "run" / f"slurm-{number}.log"
  wait_for(lambda: attempts(run, 0) and attempts(run, 1))
  cluster.ask("scancel", number)
  cluster.wait(number, log, 60)
  # Time in which it might come back.
  wait_for(lambda: not cluster.ask("squeue", "-h", "-t", "CG", "-j", number))
  time.sleep(8)
  state = cluster.state(number)
  assert (state["JobState"], state["Restarts"]) == ("CANCELLED", "0")
  assert "queued again" not in log.read_text()
  assert attempts(run) == 1


@pytest.mark.parametrize(
  "plan, restarts, code",
  [
    # One that is stuck is ended by its watchdog, and its peer is aborted.
    ({"0": ["abort", 0], "1": [76, 0]}, 1, "0:0"),
    ({"0": ["kill", 0], "1": ["abort", 0]}, 1, "0:0"),
    ({"0": [0], "1": [2]}, 0, "2:0"),
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


@pytest.fixture
def training(tmp_path) -> Job:
  """A real run of two small towers on two nodes of two devices."""
  rows = ["file,caption"]
  for i in range(16):
    # Large ones, so that a step cannot be too short to be stopped.
    picture = encode(photo(1200, 1600, seed=i), "JPEG")
    (tmp_path / f"{i}.jpg").write_bytes(picture)
    rows.append(f"{i}.jpg,a {COLOURS[i % 4]} {THINGS[i // 4]}")
  (tmp_path / "table.csv").write_text("\n".join(rows))
  config = config_of(tmp_path)
  config["data"]["datasets"]["pairs"]["batch"] = 8
  plan = {"steps": STEPS, "log_every": 1, "checkpoint_every": 1000}
  config["train"]["plan"] = plan
  config["mesh"] = {"data": -1}
  path = tmp_path / "config.json"
  path.write_text(json.dumps(config))
  return Job(
    config=str(path),
    workdir=str(tmp_path / "straight"),
    nodes=2,
    devices=2,
    cpu=True,
    max_restarts=1,
    env={"PYTHONPATH": str(ROOT)},
  )


def bits(job: Job, step: int = STEPS) -> dict[str, bytes]:
  """The parameters of a step of a run."""
  found = load_trainable(Path(job.workdir) / "checkpoints", step)
  return {path: value.tobytes() for path, value in tree.flatten(found).items()}


def at_step(metrics: Path) -> int:
  return metrics.read_text().count("\n")


def test_a_stopped_run_ends_with_the_bits_of_a_straight_one(
  cluster, training, tmp_path, capfd
):
  assert local.run(training) == 0
  stopped = dataclasses.replace(training, workdir=str(tmp_path / "stopped"))
  number = submit(stopped, capfd)
  run = tmp_path / "stopped"
  log, metrics = run / f"slurm-{number}.log", run / "metrics.jsonl"
  wait_for(lambda: metrics.exists() and at_step(metrics) >= STEPS // 3, 300)
  cluster.ask("scancel", "--signal=TERM", number)
  state = cluster.wait(number, log, 600)
  said = log.read_text()
  assert state["JobState"] == "COMPLETED", said
  assert state["Restarts"] == "1"
  at = int(re.search(r"saved step (\d+)", said)[1])
  assert 0 < at < STEPS
  assert f"Restored step {at}" in said
  lines = read_jsonl(metrics)
  assert [line["step"] for line in lines] == list(range(1, STEPS + 1))

  assert bits(stopped) == bits(training)
  assert bits(stopped, at) != bits(training)
