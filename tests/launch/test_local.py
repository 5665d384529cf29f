"""Processes of this machine: what they get, how they end, who ends them."""

import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launch import local
from launch.job import CONTRACT, Job
from launch.local import Local
from tests.launch import stand_in
from tests.launch.stand_in import attempts, notes, wait_for


@pytest.fixture
def make(tmp_path):
  """A job of stand-ins, `plan` being what its processes do."""

  def make(plan=None, **fields):
    given = {"nodes": 2, "cpu": True, "config": "a.py", "max_restarts": 1}
    return Job(
      workdir=str(tmp_path / "run"),
      python=stand_in.install(tmp_path),
      env={"STAND_IN": json.dumps(plan or {})},
      **(given | fields),
    )

  return make


def signalled(number: int, when, times: int = 1) -> threading.Thread:
  """Sends this process a signal when it is time, and perhaps again."""

  def send():
    wait_for(when)
    for _ in range(times):
      os.kill(os.getpid(), number)
      time.sleep(0.2)

  thread = threading.Thread(target=send)
  thread.start()
  return thread


def test_processes_know_their_places(make, tmp_path, capfd):
  assert local.run(make(devices=4, processes=2)) == 0
  seen = [notes(tmp_path / "run", i)["env"] for i in range(4)]
  assert [env[CONTRACT[2]] for env in seen] == ["0", "1", "2", "3"]
  assert {env[CONTRACT[1]] for env in seen} == {"4"}
  (address,) = {env[CONTRACT[0]] for env in seen}
  assert address.startswith("localhost:")
  assert {env["JAX_NUM_CPU_DEVICES"] for env in seen} == {"2"}
  lines = capfd.readouterr().out.splitlines()
  expected = [f"[{i}] process {i} attempt 0" for i in range(4)]
  assert sorted(lines) == expected


def test_one_process_is_alone(make, tmp_path, monkeypatch):
  monkeypatch.setenv(CONTRACT[0], "stale:1")
  assert local.run(make(nodes=1, devices=2)) == 0
  env = notes(tmp_path / "run", 0)["env"]
  assert not set(CONTRACT) & set(env)
  assert env["JAX_NUM_CPU_DEVICES"] == "2"


def test_forced_devices_give_way(make, tmp_path, monkeypatch):
  flags = "--xla_force_host_platform_device_count=8 --xla_cpu_x=1"
  monkeypatch.setenv("XLA_FLAGS", flags)
  assert local.run(make()) == 0
  assert notes(tmp_path / "run", 1)["env"]["XLA_FLAGS"] == "--xla_cpu_x=1"


def test_gpus_are_split(make, tmp_path, monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,3,1")
  assert local.run(make(cpu=False, devices=2)) == 0
  seen = [notes(tmp_path / "run", i)["env"] for i in range(2)]
  assert [env["CUDA_VISIBLE_DEVICES"] for env in seen] == ["7,5", "3,1"]
  with pytest.raises(ValueError, match="want 6 GPUs"):
    local.run(make(cpu=False, devices=3))


def test_dry_run_prints_lines_that_run(make, tmp_path):
  job = make(config="a'b $(touch x).py", changes=("k=\"; exit 3 #'",))
  lines = local.render(job).splitlines()
  assert len(lines) == 2
  for i, line in enumerate(lines):
    subprocess.run(["bash", "-c", line], check=True, cwd=tmp_path)
    assert notes(tmp_path / "run", i)["arguments"] == job.command("")[1:]
    assert shlex.split(line)[0] == "env"
  assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("code", [75, 76])
def test_the_job_starts_again(make, tmp_path, code):
  assert local.run(make({"0": [code, 0], "1": [code, 0]})) == 0
  assert attempts(tmp_path / "run", 0) == attempts(tmp_path / "run", 1) == 2


def test_restarts_end(make, tmp_path):
  assert local.run(make({"0": [75, 75], "1": [75, 75]})) == 75
  assert attempts(tmp_path / "run") == 2


def test_a_job_starts_again_when_all_were_aborted(make, tmp_path):
  """On GPUs and TPUs a dead peer ends the others with JAX's abort, not 76."""
  assert local.run(make({"0": ["abort", 0], "1": ["kill", 0]})) == 0
  assert attempts(tmp_path / "run", 0) == attempts(tmp_path / "run", 1) == 2


def test_aborts_do_not_go_on_for_ever(make, tmp_path):
  plan = {"0": ["abort"] * 3, "1": ["kill"] * 3}
  assert local.run(make(plan, max_restarts=2)) in (134, 137)
  assert attempts(tmp_path / "run") == 3


@pytest.mark.parametrize("code", [1, 2, 127])
def test_final_codes_pass_through(make, tmp_path, code):
  assert local.run(make({"1": [code]})) == code
  assert attempts(tmp_path / "run") == 1


def test_what_is_left_is_killed(make, tmp_path, capfd):
  job = make({"0": ["hang"], "1": [2]})
  assert local.run(job, Local(grace=0.2)) == 2
  assert "1 process(es) still run" in capfd.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_go_on_and_are_no_reason_to_restart(make, tmp_path, number):
  plan = {"0": ["wait", 0], "1": ["wait", 0]}
  run = tmp_path / "run"
  thread = signalled(number, lambda: attempts(run, 0) and attempts(run, 1))
  code = local.run(make(plan))
  thread.join()
  assert code == (75 if number == signal.SIGTERM else 130)
  assert attempts(run) == 1


def test_a_second_interrupt_kills(make, tmp_path):
  run = tmp_path / "run"
  thread = signalled(signal.SIGINT, lambda: attempts(run, 0), times=2)
  assert local.run(make({"0": ["hang"]}, nodes=1)) == 137
  assert attempts(run) == 1
  thread.join()


def test_a_program_that_is_not_there(make):
  with pytest.raises(FileNotFoundError):
    local.run(dataclasses.replace(make(), python="/no/such/python"))


def test_python_is_this_one_unless_another_is_named():
  job = Job(config="a.py", workdir="run", cpu=True)
  assert f" {sys.executable} -m mmjax.cli.main train" in local.render(job)


def toy(tmp_path, name: str, dies: int | None = None) -> Job:
  """A real training of two processes, of which one may die in the middle."""
  workdir = tmp_path / name
  plain = json.dumps({"steps": 20, "every": 5})
  bad = json.dumps({"steps": 20, "every": 5, "at": {"kill": 8}})
  program = tmp_path / f"{name}.sh"
  program.write_text(
    f"""#!/bin/sh
options='{plain}'
[ "$MMJAX_PROCESS" = "{dies}" ] && options='{bad}'
exec {sys.executable} -u -m tests.training.toy {workdir} "$options"
"""
  )
  program.chmod(0o755)
  return Job(
    config="a.py",
    workdir=str(workdir),
    nodes=2,
    cpu=True,
    python=str(program),
    env={"PYTHONPATH": str(Path(__file__).parents[2])},
  )


@pytest.mark.heavy
@pytest.mark.long
def test_a_dead_process_costs_no_step(tmp_path, capfd):
  """Of a job that nobody looks after; also when it is the coordinator."""
  ends = set()
  for name, dies in (("straight", None), ("first", 0), ("second", 1)):
    assert local.run(toy(tmp_path, name, dies), Local(grace=30)) == 0
    said = capfd.readouterr().out
    assert ("restart 1 of 10" in said) == (dies is not None)
    assert "restart 2" not in said
    ends |= set(re.findall("hash (.*)", said))
  assert len(ends) == 1


@pytest.mark.heavy
def test_a_config_that_is_wrong_is_not_tried_again(tmp_path, capfd):
  job = Job(
    config="configs/contrastive/tiny.py",
    changes=("train.plan.stepz=3",),
    workdir=str(tmp_path / "run"),
    nodes=2,
    cpu=True,
  )
  assert local.run(job) == 1
  said = capfd.readouterr().out
  assert "stepz" in said and "restart" not in said
