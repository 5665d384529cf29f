"""A job on TPU VMs: a queued resource of one or several slices, by gcloud.

Every step is one gcloud command, which --dry-run prints. All workers of all
slices get the code, then the same command at once; JAX finds its peers.
"""

import dataclasses
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from launch.job import (
  FINAL,
  RESTART,
  Job,
  again,
  check_cluster_path,
  check_match,
  check_text,
  option,
  verdict,
)
from mmjax.config import lookup

# Accelerator types to the numbers in their names a chip, and to the software
# that Google asks for (cloud.google.com/tpu/docs/runtimes).
TYPES = {
  "v4": (2, "tpu-ubuntu2204-base"),
  "v5litepod": (1, "v2-alpha-tpuv5-lite"),
  "v5p": (2, "v2-alpha-tpuv5"),
  "v6e": (1, "v2-alpha-tpuv6e"),
}
# The VMs' own Python is older than mmjax needs.
INSTALL = (
  "python3 -m pip install --quiet --user uv && "
  "~/.local/bin/uv venv --quiet --python 3.12 .venv && "
  "~/.local/bin/uv pip install --quiet --python .venv/bin/python "
  "-e . 'jax[tpu]'"
)
# States of a queued resource that become ACTIVE by waiting.
_PENDING = ("CREATING", "ACCEPTED", "PROVISIONING", "WAITING_FOR_RESOURCES")
_TYPE = re.compile(r"([a-z0-9]+)-([1-9]\d{0,4})")
_ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")
_PROJECT = re.compile(r"[a-z][a-z0-9.:-]{4,61}[a-z0-9]")
_WORD = re.compile(r"[a-z0-9][a-z0-9.-]*")
_EMAIL = re.compile(r"[\w.+-]+@[\w.-]+", re.ASCII)
_NFS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*:/[\w./-]*", re.ASCII)
# gcloud returns the code of the first worker that failed, and says them all.
_FAILED = re.compile(r"failed with exit status (\d+)")
_HOME = "mmjax"
# The brackets keep the shell that looks for it from finding itself.
_RUNNING = "'[m]mjax.cli.main train'"
# A run whose launcher has gone is still there: it may save, then it goes.
_CLEAR = (
  f"pkill -TERM -f {_RUNNING}; for _ in $(seq 150); do "
  f"pgrep -f {_RUNNING} > /dev/null || break; sleep 2; done; "
  f"pkill -KILL -f {_RUNNING}; rm -rf {_HOME}"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuVm:
  """What only this target is told."""

  accelerator: str = option(
    dataclasses.MISSING, "type of one slice: v5litepod-16, v5p-128, v6e-64, ..."
  )
  zone: str = option(dataclasses.MISSING, "such as us-east5-b")
  project: str = option("", "default: gcloud's")
  slices: int = option(1, "which share the nodes evenly")
  runtime: str = option("", "TPU software; default: Google's for this type")
  spot: bool = option(False, "cheaper, and preempted at any time")
  service_account: str = option("", "of the VMs")
  source: str = option(".", "a clean checkout of mmjax, which is copied")
  install: str = option(INSTALL, "what installs it there; default: uv")
  nfs: str = option("", "HOST:/PATH that all workers mount")
  mount: str = option("/mnt/shared", "where they do; the workdir is in it")

  def __post_init__(self):
    for name, pattern, expected in (
      ("zone", _ZONE, "such as us-east5-b"),
      ("project", _PROJECT, "a project's id"),
      ("runtime", _WORD, "such as v2-alpha-tpuv6e"),
      ("service_account", _EMAIL, "an address"),
      ("nfs", _NFS, "HOST:/PATH"),
    ):
      if getattr(self, name) or name == "zone":
        check_match(name, getattr(self, name), pattern, expected)
    check_text("source", self.source)
    check_text("install", self.install)
    check_cluster_path("mount", self.mount)
    check_match("accelerator", self.accelerator, _TYPE, "such as v5litepod-16")
    lookup(TYPES, self.kind, "kind of TPU")
    if self.slices < 1:
      raise ValueError(f"slices is {self.slices}, expected 1 or more.")

  @property
  def kind(self) -> str:
    """Of the accelerator, without its size."""
    return self.accelerator.rpartition("-")[0]

  @property
  def chips(self) -> int:
    """Of all slices."""
    size = int(self.accelerator.rpartition("-")[2])
    return self.slices * size // TYPES[self.kind][0]


def render(job: Job, options: TpuVm) -> str:
  """The steps as shell lines."""
  steps = Steps(job, options)
  parts = [
    ("", [steps.create]),
    ("# until it says ACTIVE", [steps.describe]),
    ("# the code, on all workers", steps.prepare),
    (
      "# the training: all slices at once, and again on any exit code but "
      + ", ".join(map(str, (0, *FINAL))),
      steps.train,
    ),
    ("# to stop it from elsewhere: it saves, and is started again", steps.stop),
    ("# when you are done with the machines", [steps.delete]),
  ]
  lines = [
    line
    for comment, commands in parts
    for line in [comment, *map(shlex.join, commands)]
    if line
  ]
  return "\n".join(lines) + "\n"


def run(job: Job, options: TpuVm, poll: float = 30.0) -> int:
  """Takes the slices, trains, and starts again where `again` says so.

  Slices of this name that are there are used; those that were preempted are
  given back and asked for again, which counts as a restart. They are kept at
  the end, for the next run.

  Args:
    job: what runs.
    options: where.
    poll: seconds between two looks at the queue.

  Returns:
    the exit code of the training.
  """
  steps = Steps(job, options)
  ready = False
  for restart in range(job.max_restarts + 1):
    if restart:
      _say(f"restart {restart} of {job.max_restarts}")
    if not ready:
      _take(steps, poll)
      for command in steps.prepare:
        _call(command)
    code = _train(steps)
    if not again(code):
      break
    # Else what it left running is ended first, where the slices still are.
    ready = code in RESTART
  _say(f"when you are done: {shlex.join(steps.delete)}")
  return code


class Steps:
  """The commands of a job.

  Attributes:
    create: asks for the slices.
    describe: prints the state of that.
    delete: gives them back.
    prepare: copies and installs the code, slice by slice.
    train: runs the job, a command a slice.
    stop: tells the processes of each slice to save and stop.
  """

  def __init__(self, job: Job, options: TpuVm):
    _check(job, options)
    self._options = options
    nodes = [job.name]
    if options.slices > 1:
      nodes = [f"{job.name}-{i}" for i in range(options.slices)]
    self.create = self._create(job.name)
    self.describe = [
      *self._queue("describe", job.name),
      "--format=value(state.state)",
    ]
    self.delete = [*self._queue("delete", job.name), "--force", "--quiet"]
    self.prepare = [
      command for node in nodes for command in self._prepare(node)
    ]
    self.train = [self._ssh(node, _remote(job)) for node in nodes]
    self.stop = [
      self._ssh(node, f"pkill -TERM -f {_RUNNING}") for node in nodes
    ]

  def _create(self, name: str) -> list[str]:
    options = self._options
    given = {
      "accelerator-type": options.accelerator,
      "runtime-version": options.runtime or TYPES[options.kind][1],
      "service-account": options.service_account,
    }
    if options.slices > 1:
      given |= {"node-count": options.slices, "node-prefix": name}
    else:
      given["node-id"] = name
    return [
      *self._queue("create", name),
      *(f"--{key}={value}" for key, value in given.items() if value),
      *(("--spot",) if options.spot else ()),
    ]

  def _queue(self, verb: str, name: str) -> list[str]:
    return [
      *("gcloud", "compute", "tpus", "queued-resources", verb, name),
      *self._place(),
    ]

  def _place(self) -> list[str]:
    project = self._options.project
    return [
      f"--zone={self._options.zone}",
      *((f"--project={project}",) if project else ()),
    ]

  def _prepare(self, node: str) -> list[list[str]]:
    options = self._options
    source = str(Path(options.source).absolute())
    commands = [
      self._ssh(node, _CLEAR),
      [
        *("gcloud", "compute", "tpus", "tpu-vm", "scp", source),
        *(f"{node}:{_HOME}", "--worker=all", *self._place(), "--recurse"),
      ],
      self._ssh(node, f"cd {_HOME} && {options.install}"),
    ]
    if options.nfs:
      where = shlex.quote(options.mount)
      commands.append(
        self._ssh(
          node,
          "sudo apt-get install -qq -y nfs-common && "
          f"sudo mkdir -p {where} && (mountpoint -q {where} || "
          f"sudo mount {shlex.quote(options.nfs)} {where})",
        )
      )
    return commands

  def _ssh(self, node: str, command: str) -> list[str]:
    return [
      *("gcloud", "compute", "tpus", "tpu-vm", "ssh", node, "--worker=all"),
      *self._place(),
      f"--command={command}",
    ]


def _check(job: Job, options: TpuVm) -> None:
  if job.cpu or job.processes > 1:
    raise ValueError("tpu_vm runs one process a node, on its chips.")
  check_cluster_path("workdir", job.workdir)
  if job.nodes * job.devices != options.chips:
    raise ValueError(
      f"{options.slices} slice(s) of {options.accelerator} have "
      f"{options.chips} chips, but {job.nodes} nodes of {job.devices} devices "
      "were asked for. Count the nodes of all slices; most have 4 chips."
    )
  if job.nodes % options.slices:
    raise ValueError(
      f"{job.nodes} nodes cannot be shared by {options.slices} slices."
    )
  config = Path(job.config)
  if config.is_absolute() or ".." in config.parts:
    raise ValueError(
      f"{job.config} is not copied to the workers; take a path below "
      f"{options.source}, such as configs/flamingo/demo.py."
    )
  if not (Path(options.source) / "setup.py").is_file():
    raise ValueError(
      f"{options.source} is no checkout of mmjax: it has no setup.py. Go to "
      "one, or name it with --source."
    )
  root = f"{options.mount.rstrip('/')}/"
  if options.nfs and not f"{job.workdir}/".startswith(root):
    raise ValueError(
      f"The workdir {job.workdir} is not in {options.mount}, where "
      f"{options.nfs} is mounted."
    )


def _remote(job: Job) -> str:
  """The training as a line for a worker's shell."""
  variables = [f"{k}={v}" for k, v in job.device_env().items()]
  command = [*(("env", *variables) if variables else ())]
  command += job.command(".venv/bin/python")
  return f"cd {_HOME} && {shlex.join(command)}"


def _take(steps: Steps, poll: float) -> None:
  """Until the slices are there."""
  state = _state(steps)
  if state and state != "ACTIVE" and state not in _PENDING:
    _call(steps.delete)
    state = ""
  if not state:
    _call(steps.create)
    state = _state(steps)
  while state != "ACTIVE":
    if state not in _PENDING:
      raise ValueError(
        f"The queued resource is {state or 'not there'}; see "
        f"{shlex.join(steps.describe[:-1])}"
      )
    _say(f"{state}; looks again in {poll:g} s")
    time.sleep(poll)
    state = _state(steps)


def _state(steps: Steps) -> str:
  """Of the queued resource; empty when there is none."""
  done = subprocess.run(steps.describe, stdout=subprocess.PIPE, text=True)
  return done.stdout.strip() if done.returncode == 0 else ""


def _call(command: list[str]) -> None:
  _say(shlex.join(command))
  code = subprocess.run(command).returncode
  if code:
    raise ValueError(f"exit code {code} of: {shlex.join(command)}")


def _train(steps: Steps) -> int:
  try:
    return _together(steps.train)
  except KeyboardInterrupt:
    _say("the workers go on; this stops them:")
    for command in steps.stop:
      _say(shlex.join(command))
    raise


def _together(commands: list[list[str]]) -> int:
  """Runs all at once and returns one exit code for all of their workers."""
  for command in commands:
    _say(shlex.join(command))
  running = [
    subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands
  ]
  codes: list[int] = []
  readers = [
    threading.Thread(target=_listen, args=(process.stderr, codes))
    for process in running
  ]
  for reader in readers:
    reader.start()
  for reader in readers:
    reader.join()
  return verdict(codes + [process.wait() for process in running])


def _listen(lines: Iterable[bytes], codes: list[int]) -> None:
  """Passes lines on, and keeps the exit codes that they tell."""
  for line in lines:
    text = line.decode(errors="replace")
    print(text, end="", file=sys.stderr, flush=True)
    codes += map(int, _FAILED.findall(text))


def _say(text: str) -> None:
  print(f"launch: {text}", flush=True)
