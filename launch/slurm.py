"""A job as an sbatch script with one srun; SLURM queues it again itself.

A step's exit code is the highest of its tasks', which is not always the one
that matters: a process whose peer has gone may be aborted with 134, when that
peer had said with 1 why it cannot go on. So every task raises the codes that
decide above all others, and the script takes them back. A job that `scancel`
ended would come to life again by `scontrol requeue`: the script asks first.
"""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from launch.job import (
  CONTRACT,
  FINAL,
  RESTART,
  Job,
  check_cluster_path,
  check_match,
  option,
)

_WORD = re.compile(r"[A-Za-z0-9][\w.,:+@/&|*-]*", re.ASCII)
_TIME = re.compile(r"\d+|(\d+-)?\d{1,2}(:\d{1,2}){0,2}")
_MEMORY = re.compile(r"\d+[KMGT]?")
_IMAGE = re.compile(r"[A-Za-z0-9/][\w./:@#+-]*", re.ASCII)
_MOUNT = re.compile(r"/[\w./@+=-]*:/[\w./@+=-]*(:[a-z+]+)?", re.ASCII)
# Exit codes that decide, the later before the earlier, and what they become.
# Not up to 255: SLURM takes 253 for its own (out of memory).
_RAISED = {code: 240 + i for i, code in enumerate(RESTART + FINAL)}
_ABOVE = "24[0-9]|25[0-5]"


def _cases(codes: dict[Any, int]) -> str:
  return "\n".join(f"  {a}) code={b} ;;" for a, b in codes.items())


# No name of a user's stands in it: it is the same for every job. Its shell
# stays when SIGTERM comes to all processes of the task.
_TASK = f"""
trap : TERM
"$@"
code=$?
case $code in
{_cases(_RAISED)}
{_cases({_ABOVE: 239})}
esac
exit $code
""".strip()
_END = """
case $code in
{lowered}
esac
case $code in
  {final}) exit $code ;;
esac
if (( ${{SLURM_RESTART_COUNT:-0}} >= {restarts} )); then
  echo "launch: exit code $code, and no restart is left" >&2
  exit $code
fi
if [[ $(scontrol show job "$SLURM_JOB_ID") != *" JobState=RUNNING "* ]]; then
  echo "launch: exit code $code, but the job is cancelled" >&2
  exit $code
fi
echo "launch: exit code $code; queued again" >&2
scontrol requeue "$SLURM_JOB_ID" || exit $code
""".strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
  """What only this target is told."""

  partition: str = option("", "where the job is queued; default: SLURM's")
  account: str = option("", "that pays")
  qos: str = option("", "quality of service")
  constraint: str = option("", "features of the nodes")
  time: str = option("", "limit, such as 2-00:00:00; default: the partition's")
  cpus: int = option(0, "cores of a process; 0: SLURM's default")
  memory: str = option("", "of a node, such as 500G, or 0 for all of it")
  warn: int = option(300, "seconds before the time limit in which it may save")
  image: str = option("", "container for pyxis; its bash and Python are used")
  mounts: tuple[str, ...] = option(
    (), "/path:/path into the container; the workdir is mounted anyway"
  )

  def __post_init__(self):
    names = "a name, or a list without spaces"
    for name, pattern, expected in (
      ("partition", _WORD, names),
      ("account", _WORD, names),
      ("qos", _WORD, names),
      ("constraint", _WORD, names),
      ("time", _TIME, "minutes, h:m:s or d-h:m:s"),
      ("memory", _MEMORY, "a number with K, M, G or T"),
      ("image", _IMAGE, "an image, such as nvcr.io#nvidia/jax:25.01-py3"),
    ):
      if getattr(self, name):
        check_match(name, getattr(self, name), pattern, expected)
    for mount in self.mounts:
      check_match("mounts", mount, _MOUNT, "/path:/path")
    if self.cpus < 0 or self.warn < 1:
      raise ValueError(
        f"cpus={self.cpus} and warn={self.warn}, expected 0 or more and 1 or "
        "more."
      )
    if self.mounts and not self.image:
      raise ValueError("mounts are of a container, but there is no image.")


def render(job: Job, options: Slurm | None = None) -> str:
  """The sbatch script."""
  options = options or Slurm()
  check_cluster_path("workdir", job.workdir)
  end = _END.format(
    lowered=_cases({b: a for a, b in _RAISED.items()}),
    final="|".join(map(str, (0, *FINAL))),
    restarts=job.max_restarts,
  )
  exports = [
    f"export {name}={shlex.quote(value)}"
    for name, value in job.device_env().items()
  ]
  # A step that fails ends for all when `wait` is over: those that save with
  # others get the time, those that wait for the dead do not wait for ever.
  # Its tasks, and not this shell, get SIGTERM at the time limit and from
  # `scancel --signal=TERM`; where this shell gets it too, it stays.
  lines = [
    "#!/bin/bash",
    *(f"#SBATCH --{line}" for line in _directives(job, options)),
    "",
    f"unset {' '.join(CONTRACT)}",
    *exports,
    f"task={shlex.quote(_TASK)}",
    "trap : TERM",
    "code=0",
    f"srun {shlex.join(_step(job, options))} \\",
    '  bash -c "$task" task \\',
    f"  {shlex.join(job.command(_python(options)))} || code=$?",
    end,
  ]
  return "\n".join(lines) + "\n"


def submit(job: Job, options: Slurm | None = None) -> int:
  """Gives the script to sbatch, which prints the job's number."""
  script = render(job, options)
  try:
    Path(job.workdir).mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(
      f"The workdir {job.workdir} cannot be made here ({error.strerror}); the "
      "job's log goes there. Take a path that this machine and all nodes share."
    ) from error
  env = {k: v for k, v in os.environ.items() if k not in CONTRACT}
  command = ["sbatch", f"--chdir={os.getcwd()}"]
  return subprocess.run(command, input=script, text=True, env=env).returncode


def _directives(job: Job, options: Slurm) -> list[str]:
  """Options of sbatch; each value was checked to be one word."""
  given = {
    "job-name": job.name,
    "nodes": job.nodes,
    "ntasks-per-node": job.processes,
    "gpus-per-node": "" if job.cpu else job.devices,
    "partition": options.partition,
    "account": options.account,
    "qos": options.qos,
    "constraint": options.constraint,
    "time": options.time,
    "cpus-per-task": options.cpus or "",
    "mem": options.memory,
    "output": f"{job.workdir.rstrip('/')}/slurm-%j.log",
    "open-mode": "append",
    "signal": f"TERM@{options.warn}",
  }
  lines = [f"{k}={v}" for k, v in given.items() if v != ""]
  return [*lines, "requeue"]


def _step(job: Job, options: Slurm) -> list[str]:
  """Options of srun."""
  # A site may end a step with its first failure, before the others have saved.
  given = ["--kill-on-bad-exit=0", "--wait=120"]
  if options.cpus:  # Since SLURM 22.05 srun does not take it from sbatch.
    given.append(f"--cpus-per-task={options.cpus}")
  if options.image:
    mounts = [f"{job.workdir}:{job.workdir}", *options.mounts]
    given += [
      f"--container-image={options.image}",
      f"--container-mounts={','.join(mounts)}",
    ]
  return given


def _python(options: Slurm) -> str:
  return "python" if options.image else sys.executable
