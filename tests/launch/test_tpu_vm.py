"""Steps on TPU VMs: understood by gcloud, and run in their order."""

import json
import re
import shlex
import shutil
import subprocess

import pytest

from launch import tpu_vm
from launch.job import Job
from launch.tpu_vm import Steps, TpuVm
from tests.launch.test_slurm import HOSTILE

# Notes its arguments; answers are lines of `states` and `codes`, in turn.
GCLOUD = """#!/bin/bash
cd "$NOTED"
printf '%s\\n' "$*" >> calls
exec 9> lock
next() { flock 9; head -n 1 "$1"; sed -i 1d "$1"; flock -u 9; }
case "$*" in
  *queued-resources\\ describe*) next states ;;
  *mmjax.cli.main*)
    code=$(next codes)
    [ "$code" -eq 0 ] || echo "##### Command execution on worker 1 failed with \
exit status $code. Continuing." >&2
    exit "${code:-0}" ;;
esac
"""


def job(**fields) -> Job:
  given = {"config": "configs/flamingo/demo.py", "workdir": "/mnt/shared/run"}
  return Job(**(given | {"nodes": 4, "devices": 4, "name": "demo"} | fields))


def slices(**fields) -> TpuVm:
  given = {"accelerator": "v5litepod-16", "zone": "us-east5-b"}
  return TpuVm(**(given | fields))


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
  """Runs a job where gcloud is ours; returns its exit code and the calls."""
  (tmp_path / "gcloud").write_text(GCLOUD)
  (tmp_path / "gcloud").chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
  monkeypatch.setenv("NOTED", str(tmp_path))

  def run(states, codes, made=None, options=None):
    (tmp_path / "states").write_text("".join(f"{s}\n" for s in states))
    (tmp_path / "codes").write_text("".join(f"{c}\n" for c in codes))
    code = tpu_vm.run(made or job(), options or slices(), poll=0.01)
    calls = (tmp_path / "calls").read_text().splitlines()
    return code, [_kind(call) for call in calls]

  return run


def _kind(call: str) -> str:
  for word in ("create", "describe", "delete", "scp", "mmjax.cli.main", "ssh"):
    if f" {word} " in call:
      return "train" if word.startswith("mmjax") else word
  return call


PREPARE = ["ssh", "scp", "ssh"]


def test_from_nothing_to_a_run(gcloud):
  code, calls = gcloud(["", "WAITING_FOR_RESOURCES", "ACTIVE"], [0])
  assert code == 0
  looks = ["describe", "create", "describe", "describe"]
  assert calls == [*looks, *PREPARE, "train"]


@pytest.mark.parametrize("code", [75, 76])
def test_a_stopped_run_starts_again(gcloud, code):
  last, calls = gcloud(["ACTIVE"], [code, 0])
  assert last == 0
  assert calls == ["describe", *PREPARE, "train", "train"]


def test_restarts_end(gcloud):
  made = job(max_restarts=1)
  code, calls = gcloud(["ACTIVE"], [75, 75], made)
  assert (code, calls.count("train")) == (75, 2)


def test_an_error_ends_it(gcloud):
  code, calls = gcloud(["ACTIVE", "ACTIVE"], [2])
  assert (code, calls.count("train")) == (2, 1)


@pytest.mark.parametrize("code", [134, 137, 255])
def test_a_worker_that_died_or_was_lost(gcloud, code):
  """What it may have left is ended before the next start."""
  last, calls = gcloud(["ACTIVE", "ACTIVE"], [code, 0])
  assert last == 0
  assert calls == ["describe", *PREPARE, "train"] * 2


def test_a_preempted_slice_is_asked_for_again(gcloud):
  states = ["ACTIVE", "SUSPENDED", "ACTIVE"]
  code, calls = gcloud(states, [255, 0])
  assert code == 0
  again = ["describe", "delete", "create", "describe"]
  assert calls == ["describe", *PREPARE, "train", *again, *PREPARE, "train"]


def test_a_request_that_fails_says_so(gcloud):
  with pytest.raises(ValueError, match="is FAILED; see gcloud"):
    gcloud(["", "FAILED"], [])


def test_a_final_code_of_any_worker_decides(gcloud):
  made = job(nodes=8)
  # One slice cannot go on, the other has lost it.
  code, calls = gcloud(["ACTIVE"], [1, 76], made, slices(slices=2))
  assert (code, calls.count("train")) == (1, 2)


def test_several_slices_are_one_request():
  steps = Steps(job(nodes=8), slices(slices=2, spot=True, project="my-project"))
  assert "--node-count=2" in steps.create
  assert "--node-prefix=demo" in steps.create
  assert "--spot" in steps.create
  assert [command[5] for command in steps.train] == ["demo-0", "demo-1"]
  assert len(steps.prepare) == 2 * len(PREPARE)
  for command in (steps.create, steps.delete, *steps.prepare, *steps.train):
    assert "--project=my-project" in command


def test_workers_can_read_their_lines():
  steps = Steps(job(), slices(nfs="10.0.0.2:/share"))
  lines = [*steps.prepare, *steps.train, *steps.stop]
  texts = [command[-1].removeprefix("--command=") for command in lines]
  for text in texts:
    if text != "--recurse":
      subprocess.run(["bash", "-n", "-c", text], check=True)
  # Else the shell that looks for the training would find itself.
  assert "mmjax.cli.main train" not in steps.stop[0][-1].replace("[m]mjax", "")
  assert re.search("[m]mjax.cli.main train", " ".join(job().command("python")))


def test_a_shared_disk_is_mounted():
  steps = Steps(job(), slices(nfs="10.0.0.2:/share"))
  assert "sudo mount 10.0.0.2:/share /mnt/shared" in steps.prepare[-1][-1]


@pytest.mark.parametrize(
  "kind, runtime",
  [
    ("v4-32", "tpu-ubuntu2204-base"),
    ("v5p-32", "v2-alpha-tpuv5"),
    ("v5litepod-16", "v2-alpha-tpuv5-lite"),
    ("v6e-16", "v2-alpha-tpuv6e"),
  ],
)
def test_sizes_and_software_of_a_type(kind, runtime):
  options = slices(accelerator=kind)
  assert options.chips == 16
  assert f"--runtime-version={runtime}" in Steps(job(), options).create


@pytest.mark.parametrize("value", [v for v in HOSTILE if "${" not in v])
def test_nothing_breaks_out_of_the_remote_shell(value, tmp_path):
  made = job(
    config=f"configs/{value}.py",
    changes=(f"key={value}",),
    env={"HOSTILE": value},
    python=str(tmp_path / "show"),
  )
  (tmp_path / "show").write_text('#!/bin/bash\nprintf "%s\\0" "$HOSTILE" "$@"')
  (tmp_path / "show").chmod(0o755)
  (tmp_path / "mmjax").mkdir()
  (command,) = Steps(made, slices()).train
  remote = command[-1].removeprefix("--command=")
  done = subprocess.run(
    ["bash", "-c", remote], cwd=tmp_path, capture_output=True, check=True
  )
  assert done.stdout.decode().split("\0")[:-1] == [value, *made.command("")[1:]]
  assert not list(tmp_path.glob("**/broken"))


@pytest.mark.parametrize(
  "fields, options, message",
  [
    ({"nodes": 2}, {}, "have 16 chips, but 2 nodes of 4"),
    ({}, {"slices": 2}, "have 32 chips"),
    ({"nodes": 1, "devices": 32}, {"slices": 2}, "cannot be shared"),
    ({"processes": 2}, {}, "one process a node"),
    ({"cpu": True}, {}, "one process a node"),
    ({"workdir": "runs/x"}, {}, "an absolute path"),
    ({"workdir": "/home/x"}, {"nfs": "host:/a"}, "is not in /mnt/shared"),
    ({"config": "/home/me/a.py"}, {}, "is not copied to the workers"),
    ({"config": "../a.py"}, {}, "is not copied to the workers"),
    ({}, {"source": "/no/such"}, "has no setup.py"),
    ({}, {"accelerator": "v5e-16"}, "Unknown kind of TPU 'v5e'"),
    ({}, {"accelerator": "v5litepod"}, "accelerator is"),
    ({}, {"zone": "us-east5"}, "zone is"),
    ({}, {"zone": ""}, "zone is"),
    ({}, {"project": "a b"}, "project is"),
    ({}, {"runtime": "--x"}, "runtime is"),
    ({}, {"nfs": "host:/a; touch x"}, "nfs is"),
    ({}, {"nfs": "-o:/x"}, "nfs is"),
    ({}, {"service_account": "me"}, "service_account is"),
    ({}, {"mount": "/mnt/a b"}, "mount is"),
    ({}, {"install": "a\nb"}, "is not allowed"),
    ({}, {"slices": 0}, "slices is 0"),
  ],
)
def test_what_is_refused(fields, options, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    tpu_vm.render(job(**fields), slices(**options))


@pytest.mark.heavy
def test_gcloud_knows_every_command():
  if not shutil.which("gcloud"):
    pytest.skip("no gcloud, which would check the commands")
  options = slices(
    slices=2,
    spot=True,
    project="my-project",
    nfs="10.0.0.2:/share",
    service_account="me@my-project.iam.gserviceaccount.com",
  )
  text = tpu_vm.render(job(nodes=8), options)
  # The second slice's are those of the first.
  lines = [line for line in text.splitlines() if " demo-1" not in line]
  commands = [shlex.split(line) for line in lines if line[0] != "#"]
  assert len(commands) == 9
  for command in commands:
    # What a worker's shell gets is not for gcloud to read.
    plain = [
      "--command=x" if p.startswith("--command=") else p for p in command
    ]
    assert _lint(plain), command
  assert not _lint([*plain, "--no-such-flag"])


def _lint(command: list[str]) -> bool:
  """What gcloud says of a command, without running it."""
  lint = ["gcloud", "meta", "lint-gcloud-commands"]
  done = subprocess.run(
    [*lint, f"--command-string={shlex.join(command)}"],
    capture_output=True,
    text=True,
  )
  return json.loads(done.stdout)[0]["success"]
