"""The sbatch script: what it holds, and that nothing breaks out of it."""

import os
import re
import subprocess

import pytest

from launch import slurm
from launch.job import Job
from launch.slurm import Slurm
from tests.launch import stand_in
from tests.launch.stand_in import notes

# Runs the task once, as srun would on one node.
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$NOTED"
while [[ $1 == --* ]]; do shift; done
SLURM_PROCID=0 "$@"
"""
SCONTROL = """#!/bin/bash
case $1 in
  show) echo "  JobState=${STATE:-RUNNING} Reason=None" ;;
  *) echo "$@" >> "$NOTED.requeued" ;;
esac
"""
HOSTILE = [
  "$(touch broken)",
  "`touch broken`",
  "'; touch broken; '",
  '"; touch broken; "',
  "a && touch broken",
  "\\' ; touch broken #",
  "!!",
  "* ? [a-z] ~ {1,2}",
  "--wrap=touch broken",
  "${SLURM_JOB_ID}",
  "end\\",
  "é\u200b",
]


def directives(text: str) -> dict[str, str]:
  found = re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE)
  return dict(found)


def job(**fields) -> Job:
  given = {"config": "a.py", "workdir": "/mnt/run", "nodes": 2, "devices": 8}
  return Job(**(given | fields))


def execute(text: str, tmp_path, **env) -> subprocess.CompletedProcess:
  """Runs a script where srun and scontrol are ours."""
  programs = tmp_path / "bin"
  programs.mkdir(exist_ok=True)
  for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
    (programs / name).write_text(script)
    (programs / name).chmod(0o755)
  return subprocess.run(
    ["bash", "-c", text],
    cwd=tmp_path,
    env=os.environ
    | {
      "PATH": f"{programs}:{os.environ['PATH']}",
      "NOTED": str(tmp_path / "noted"),
      "SLURM_JOB_ID": "7",
    }
    | env,
    capture_output=True,
    text=True,
  )


def test_one_task_a_node_has_all_its_gpus():
  found = directives(slurm.render(job(name="big")))
  assert found == {
    "job-name": "big",
    "nodes": "2",
    "ntasks-per-node": "1",
    "gpus-per-node": "8",
    "output": "/mnt/run/slurm-%j.log",
    "open-mode": "append",
    "signal": "TERM@300",
    "requeue": "",
  }


def test_one_task_a_gpu():
  found = directives(slurm.render(job(processes=8)))
  assert (found["ntasks-per-node"], found["gpus-per-node"]) == ("8", "8")


def test_cpu_asks_for_no_gpu():
  text = slurm.render(job(cpu=True))
  assert "gpus" not in text
  assert "export JAX_NUM_CPU_DEVICES=8" in text


def test_options_of_the_site():
  options = Slurm(
    partition="gpu,gpu-long",
    account="me",
    qos="high",
    constraint="h200&nvlink",
    time="2-00:00:00",
    cpus=12,
    memory="500G",
    warn=120,
    image="nvcr.io#nvidia/jax:25.01-py3",
    mounts=("/data:/data:ro",),
  )
  text = slurm.render(job(), options)
  found = directives(text)
  assert found["partition"] == "gpu,gpu-long"
  assert found["constraint"] == "h200&nvlink"
  assert found["time"] == "2-00:00:00"
  assert found["signal"] == "TERM@120"
  assert "--container-mounts=/mnt/run:/mnt/run,/data:/data:ro" in text
  assert "--cpus-per-task=12" in text.split("srun", 1)[1]
  assert "\n  python -m mmjax.cli.main" in text


@pytest.mark.parametrize(
  "kind, fields, message",
  [
    (Slurm, {"partition": "a b"}, "partition is 'a b'"),
    (Slurm, {"partition": "a\n#SBATCH --uid=0"}, "partition is"),
    (Slurm, {"account": "-x"}, "account is"),
    (Slurm, {"qos": "a;b"}, "qos is"),
    (Slurm, {"constraint": "$(x)"}, "constraint is"),
    (Slurm, {"time": "tomorrow"}, "time is"),
    (Slurm, {"memory": "much"}, "memory is"),
    (Slurm, {"image": "a b"}, "image is"),
    (Slurm, {"image": "a", "mounts": ("/a:/b,/etc:/etc",)}, "mounts is"),
    (Slurm, {"mounts": ("/a:/b",)}, "there is no image"),
    (Slurm, {"cpus": -1}, "cpus=-1"),
    (Slurm, {"warn": 0}, "warn=0"),
    (job, {"workdir": "runs/demo"}, "an absolute path"),
    (job, {"workdir": "/mnt/a b"}, "an absolute path"),
    (job, {"workdir": "/mnt/%u"}, "an absolute path"),
    (job, {"workdir": "/mnt/$HOME"}, "an absolute path"),
    (job, {"workdir": "/mnt/../etc"}, "without '..'"),
    (job, {"workdir": "/"}, "an absolute path"),
  ],
)
def test_what_is_refused(kind, fields, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    made = kind(**fields)
    slurm.render(made if kind is job else job())


@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_breaks_out_of_the_script(value, tmp_path):
  made = job(
    config=value,
    workdir=str(tmp_path / "run"),
    changes=(f"key={value}",),
    env={"HOSTILE": value},
    python=stand_in.install(tmp_path),
    cpu=True,
  )
  done = execute(slurm.render(made), tmp_path)
  assert done.returncode == 0, done.stderr
  seen = notes(tmp_path / "run", 0)
  assert seen["arguments"] == made.command("")[1:]
  assert seen["env"]["HOSTILE"] == value
  assert not list(tmp_path.glob("**/broken"))


@pytest.mark.parametrize(
  "ends, count, code, queued",
  [
    (0, 0, 0, False),
    (75, 0, 0, True),
    (76, 9, 0, True),
    (75, 10, 75, False),
    (1, 0, 1, False),
    (2, 0, 2, False),
    (127, 0, 127, False),
    # Its peer has gone, or it was killed.
    ('"abort"', 0, 0, True),
    ('"abort"', 10, 134, False),
    ('"kill"', 0, 0, True),
    # What a raised code looks like is none.
    (240, 10, 239, False),
    (255, 0, 0, True),
  ],
)
def test_what_is_queued_again(ends, count, code, queued, tmp_path):
  made = job(
    workdir=str(tmp_path / "run"),
    env={"STAND_IN": f'{{"0": [{ends}]}}'},
    python=stand_in.install(tmp_path),
  )
  done = execute(slurm.render(made), tmp_path, SLURM_RESTART_COUNT=str(count))
  assert done.returncode == code, done.stderr
  noted = tmp_path / "noted.requeued"
  assert (noted.read_text() == "requeue 7\n") if queued else not noted.exists()


def test_a_cancelled_job_does_not_come_back(tmp_path):
  made = job(
    workdir=str(tmp_path / "run"),
    env={"STAND_IN": '{"0": [75]}'},
    python=stand_in.install(tmp_path),
  )
  done = execute(slurm.render(made), tmp_path, STATE="CANCELLED")
  assert done.returncode == 75
  assert not (tmp_path / "noted.requeued").exists()


def test_sbatch_gets_the_script(tmp_path, monkeypatch):
  sbatch = tmp_path / "sbatch"
  sbatch.write_text('#!/bin/bash\necho "$@" > "$NOTED"; cat >> "$NOTED"\n')
  sbatch.chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
  monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
  made = job(workdir=str(tmp_path / "run"))
  assert slurm.submit(made) == 0
  first, rest = (tmp_path / "noted").read_text().split("\n", 1)
  assert first == f"--chdir={os.getcwd()}"
  assert rest == slurm.render(made)
  assert (tmp_path / "run").is_dir()


def test_a_workdir_that_cannot_be_made(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(ValueError, match="cannot be made here"):
    slurm.submit(job(workdir=str(tmp_path / "file" / "run")))
