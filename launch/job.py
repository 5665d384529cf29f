"""One job, whatever it runs on: what is trained, where, on how many devices.

A job is checked when it is made. Its strings end up in shell scripts, YAML and
command lines of other programs; each writer quotes for its own language, and
here everything is refused that no honest value holds (control characters) or
that the other side would read as more than a name.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Exit codes of `mmjax train` that ask for another start: told to stop and
# saved, ended by the watchdog.
RESTART = (75, 76)
# And those after which it would be of no use: mmjax has said why it cannot go
# on, or does not understand its arguments; there is no such program (126, 127);
# somebody at the keyboard ended it. After any other code there is another
# start as well: a process whose peer has gone is aborted by JAX with 134, one
# without memory is killed with 137.
FINAL = (1, 2, 126, 127, 130)
# Tells a process which of how many it is; all three or none.
COORDINATOR, PROCESSES, PROCESS = CONTRACT = (
  "MMJAX_COORDINATOR",
  "MMJAX_PROCESSES",
  "MMJAX_PROCESS",
)
# What JAX has to find on the machine of a process.
DEVICES = "MMJAX_DEVICES"
# Of the coordinator, where nothing else has to choose one.
PORT = 8476

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A label of Kubernetes that leaves room for the suffixes of its pods.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_CHANGE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=.*", re.ASCII)
_CLUSTER_PATH = re.compile(r"(/[A-Za-z0-9._@+=-]+)+/?")


def option(default: Any, help: str) -> Any:
  """A field that is an option of the command line too."""
  kind = {"default_factory": dict} if default == {} else {"default": default}
  return dataclasses.field(metadata={"help": help}, **kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """What every target is told."""

  config: str = option(dataclasses.MISSING, "a .py or .json, as of mmjax train")
  workdir: str = option(
    dataclasses.MISSING, "of the run; on a cluster a path that all nodes share"
  )
  name: str = option("mmjax", "of the job; default: that of the config's file")
  changes: tuple[str, ...] = ()
  nodes: int = option(1, "machines")
  devices: int = option(1, "of a node: GPUs, chips, or fake CPU devices")
  processes: int = option(1, "of a node, which share its devices evenly")
  cpu: bool = option(False, "fake CPU devices instead of accelerators")
  env: Mapping[str, str] = option({}, "NAME=VALUE for the processes")
  max_restarts: int = option(
    10, "after any exit code but 1 and 2 (it cannot go on)"
  )
  python: str = option("", "the Python that has mmjax; default: see the README")

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, str):
        check_text(field.name, value)
    check_match("name", self.name, _NAME, "a-z, 0-9 and -, 40 at most")
    for name, least in (
      ("nodes", 1),
      ("devices", 1),
      ("processes", 1),
      ("max_restarts", 0),
    ):
      if getattr(self, name) < least:
        raise ValueError(
          f"{name} is {getattr(self, name)}, expected {least} or more."
        )
    if self.devices % self.processes:
      raise ValueError(
        f"{self.devices} devices of a node cannot be shared by "
        f"{self.processes} processes; take a divisor."
      )
    if not self.config or not self.workdir:
      raise ValueError("A job needs a config and a workdir.")
    for change in self.changes:
      check_text("config", change)
      if not _CHANGE.fullmatch(change):
        raise ValueError(f"{change!r} is no key.of.a.key=value.")
    _check_env(self.env)

  @property
  def each(self) -> int:
    """Devices of a process."""
    return self.devices // self.processes

  @property
  def total(self) -> int:
    """Processes of the job."""
    return self.nodes * self.processes

  def command(self, python: str) -> list[str]:
    """What every process runs, the same on all.

    Args:
      python: where the target expects it; `self.python` goes before.
    """
    return [
      *(self.python or python, "-m", "mmjax.cli.main", "train"),
      *("--config", self.config, "--workdir", self.workdir),
      *(f"--config.{change}" for change in self.changes),
    ]

  def device_env(self) -> dict[str, str]:
    """Variables of every process: how many devices it has to find, or fakes."""
    asked = {DEVICES: str(self.each)}
    fake = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(self.each)}
    return asked | (fake if self.cpu else {}) | dict(self.env)


def verdict(codes: Sequence[int]) -> int:
  """One exit code for all processes, given in the order of their ends.

  Processes whose peer has gone end too, most with 76, some by a signal: a
  final code decides before one that asks for a restart, and that before the
  first of any others. Signal n, as -n, becomes 128 + n.
  """
  codes = [code if code >= 0 else 128 - code for code in codes]
  for kind in (FINAL, RESTART):
    for code in codes:
      if code in kind:
        return code
  return next((code for code in codes if code), 0)


def again(code: int) -> bool:
  """Whether the same command is given again after a code of `verdict`."""
  return code != 0 and code not in FINAL


def check_text(what: str, value: str) -> None:
  """Refuses what could end a line of a script."""
  found = _CONTROL.search(value)
  if found:
    raise ValueError(
      f"{what} is {value!r:.80}: the character {found[0]!r} is not allowed."
    )


def check_match(
  what: str, value: str, pattern: re.Pattern, expected: str
) -> None:
  """Refuses a name that the other side would read as something else."""
  if not pattern.fullmatch(value):
    raise ValueError(f"{what} is {value!r:.80}, expected {expected}.")


def check_cluster_path(what: str, path: str) -> None:
  """Refuses what is another place on another machine."""
  check_match(
    what,
    path,
    _CLUSTER_PATH,
    "an absolute path of letters, digits and . _ @ + = -, which is the same "
    "on all nodes",
  )
  if ".." in path.split("/"):
    raise ValueError(f"{what} is {path!r}, expected a path without '..'.")


def _check_env(env: Mapping[str, str]) -> None:
  for name, value in env.items():
    check_match("A variable's name", name, _ENV_NAME, "letters, digits and _")
    check_text(name, value)
    if name in CONTRACT:
      raise ValueError(f"{name} is set by the launcher, and cannot be given.")
