"""`python -m launch`: what it takes, prints, and refuses."""

import ast
import json
from pathlib import Path

import pytest
import yaml

from launch import __main__ as main
from launch.job import Job
from tests.launch import stand_in
from tests.launch.stand_in import notes
from tests.test_imports import dangers

DEMO = "configs/flamingo/demo.py"
SHORT = ["--config", DEMO, "--workdir", "/mnt/shared/run"]


def launch(*arguments: str) -> int:
  return main.main(list(arguments))


@pytest.mark.parametrize(
  "target, extra, expected",
  [
    ("local", ["--cpu"], "JAX_NUM_CPU_DEVICES=4"),
    ("slurm", ["--partition", "gpu"], "#SBATCH --partition=gpu"),
    ("slurm", ["--image=a", "--mounts=/a:/b", "--mounts=/c:/d"], "/c:/d"),
    (
      "gke",
      ["--image=a", "--accelerator=nvidia-h200-141gb", "--claim=disk"],
      "kind: JobSet",
    ),
    (
      "tpu_vm",
      ["--accelerator=v6e-8", "--zone=us-east5-b", "--spot"],
      "--spot",
    ),
  ],
)
def test_a_dry_run_prints_and_does_nothing(
  target, extra, expected, capsys, monkeypatch
):
  monkeypatch.setattr("subprocess.run", None)
  monkeypatch.setattr("subprocess.Popen", None)
  given = [*SHORT, "--nodes=2", "--devices=4", "--env", "A=b=c", *extra]
  change = "--config.train.plan.steps=3"
  assert launch(target, *given, change, "--dry-run") == 0
  said = capsys.readouterr()
  assert expected in said.out and not said.err
  assert change in said.out or target == "gke"
  if target == "gke":
    yaml.safe_load(said.out)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["slurm", *SHORT, "--partitoin=a"], "Did you mean '--partition'?"),
    (["local", *SHORT, "--partition=a"], "local has no option --partition"),
    (["slurm", *SHORT, "--env", "A"], "--env NAME=VALUE"),
    (["slurm", *SHORT, "--env", "A B=1"], "letters, digits and _"),
    (["slurm", *SHORT, "--name", "a;b"], "a-z, 0-9 and -"),
    (["slurm", *SHORT, "--nodes", "0"], "nodes is 0"),
    (["slurm", "--config", DEMO, "--workdir", "run"], "an absolute path"),
    (
      ["local", "--config", "configs/flamingo/dem.py", "--workdir", "run"],
      "Did you mean 'configs/flamingo/demo.py'?",
    ),
    (
      ["local", *SHORT, "--config.train.plan.step=3"],
      "Did you mean 'steps'?",
    ),
    (["local", *SHORT, "--config.train"], "needs a value"),
  ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_nothing_is_submitted_that_cannot_run(
  arguments, message, dry, capsys, monkeypatch
):
  monkeypatch.setattr("subprocess.run", None)
  monkeypatch.setattr("subprocess.Popen", None)
  target, *rest = arguments
  code = launch(target, *dry, *rest)
  said = capsys.readouterr()
  # Without --dry-run a target checks what is its own when it renders.
  assert code in ((2,) if dry else (1, 2))
  assert message in said.err and not said.out
  assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("path", sorted(Path("launch").glob("*.py")), ids=str)
def test_no_shell_is_asked(path):
  assert not list(dangers(ast.parse(path.read_text())))


def test_what_is_needed(capsys):
  with pytest.raises(SystemExit) as ended:
    launch("gke", *SHORT)
  assert ended.value.code == 2
  said = capsys.readouterr().err
  assert "--image" in said and "--accelerator" in said


def test_help_names_every_option(capsys):
  with pytest.raises(SystemExit):
    launch("slurm", "--help")
  said = capsys.readouterr().out
  for option in ("--max-restarts", "--partition", "--dry-run", "--mounts"):
    assert option in said


def test_a_program_that_is_not_there(capsys, monkeypatch, tmp_path):
  monkeypatch.setenv("PATH", str(tmp_path))
  workdir = str(tmp_path / "run")
  assert launch("slurm", "--config", DEMO, "--workdir", workdir) == 1
  assert "sbatch" in capsys.readouterr().err


def test_an_interrupt_says_that_workers_go_on(capsys, monkeypatch):
  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr("launch.tpu_vm._take", lambda *_: None)
  monkeypatch.setattr("launch.tpu_vm._call", lambda *_: None)
  monkeypatch.setattr("launch.tpu_vm._together", interrupted)
  slices = ["--accelerator=v6e-4", "--zone=us-east5-b"]
  assert launch("tpu_vm", *SHORT, "--devices=4", *slices) == 130
  assert "pkill -TERM" in capsys.readouterr().out.splitlines()[-1]


def test_local_runs(tmp_path):
  workdir = tmp_path / "run"
  plan = json.dumps({"0": [75, 0], "1": [75, 0]})
  code = launch(
    *("local", "--config", DEMO, "--workdir", str(workdir), "--cpu"),
    *("--nodes", "2", "--python", stand_in.install(tmp_path)),
    *("--env", f"STAND_IN={plan}", "--max-restarts", "1"),
  )
  assert code == 0
  assert notes(workdir, 1, 1)["env"]["MMJAX_PROCESS"] == "1"


@pytest.mark.parametrize(
  "config, name",
  [
    ("configs/flamingo/baseline_3b.py", "baseline-3b"),
    ("/a/My Config!.json", "my-config"),
    ("3b.py", "mmjax"),
    ("é.py", "mmjax"),
    ("a" * 60 + ".py", "a" * 40),
  ],
)
def test_a_job_is_named_after_its_config(config, name):
  assert main._name(config) == name
  assert Job(config=config, workdir="run", name=name).name == name
