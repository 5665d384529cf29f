"""What has to be so before the processes of a job begin to work.

Each of these ends a job late, and with a message that does not say why: a
machine with another version or a chip less, a config that was edited between
two starts, a directory that only one machine sees.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from mmjax import distributed
from mmjax.config import differences

PACKAGES = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "numpy",
  "mmjax",
)
# A network file system may show a new file to others only after a while.
_SEEN_WITHIN = 60.0
_ROOM = 2**16


def check(config: Mapping[str, Any]) -> None:
  """All have as many devices as asked, the same packages and config.

  Raises:
    ValueError: on every process, with those that differ.
  """
  _refuse(distributed.gather(lacks_devices(os.environ), room=512))
  if jax.process_count() == 1:
    return
  text = json.dumps(config, default=list, sort_keys=True)
  mine = facts() | {"config": hashlib.sha256(text.encode()).hexdigest()}
  told = [json.loads(fact) for fact in distributed.gather(json.dumps(mine))]
  problems = odd_ones(told)
  if len({fact["config"] for fact in told}) > 1:
    problems += changed_keys(distributed.gather(text, room=_ROOM), told)
  if problems:
    raise ValueError(
      f"The processes of this job do not fit together: {'; '.join(problems)}."
    )
  # Now that all are here at once: those of CPUs wait half a minute to connect,
  # and what comes next takes some of them longer than others.
  multihost_utils.sync_global_devices("mmjax: all fit together")


def lacks_devices(environment: Mapping[str, str]) -> str:
  """What is wrong with the devices of this process, if anything.

  Args:
    environment: MMJAX_DEVICES, which launchers set, says how many were asked.
  """
  asked, found = environment.get("MMJAX_DEVICES"), jax.local_devices()
  if asked in (None, str(len(found))):
    return ""
  return (
    f"process {jax.process_index()} on {socket.gethostname()} has "
    f"{len(found)} device(s) ({found[0].device_kind}), but {asked} were asked "
    "for (MMJAX_DEVICES). Look at the machine's driver, at --devices and at "
    "what its jobs may see"
  )


def facts() -> dict[str, Any]:
  """What has to be the same in all processes, and the machine's name."""
  versions = {}
  for name in PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = "not installed"
  return versions | {
    "host": socket.gethostname(),
    "python": ".".join(platform.python_version_tuple()[:2]),
    "kind of device": jax.local_devices()[0].device_kind,
    "number of devices": jax.local_device_count(),
  }


def odd_ones(told: Sequence[Mapping[str, Any]]) -> list[str]:
  """What differs from process 0, a sentence each.

  Args:
    told: the `facts` of each process.
  """
  first = told[0]
  return [
    f"process {i} on {fact['host']} has {name} {fact.get(name)}, process 0 on "
    f"{first['host']} has {first[name]}"
    for i, fact in enumerate(told)
    for name in first
    if name not in ("host", "config") and fact.get(name) != first[name]
  ]


def changed_keys(
  texts: Sequence[str], told: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Keys in which configs differ from that of process 0, a sentence each.

  Args:
    texts: the config of each process as JSON, as far as there is room.
    told: the `facts` of each, with the hash of its `config`.
  """
  problems = []
  for i, (text, fact) in enumerate(zip(texts, told)):
    if fact["config"] == told[0]["config"]:
      continue
    try:
      keys = differences(json.loads(texts[0]), json.loads(text))
      which = ", ".join(sorted(keys)[:5])
    except ValueError:
      which = "config"
    problems.append(f"process {i} on {fact['host']} has another {which}")
  return problems


def check_workdir(workdir: Path) -> None:
  """Every process can write in the directory, and it is the same one.

  Raises:
    ValueError: on every process, with those that cannot.
  """
  if jax.process_count() == 1:
    there = next(
      p for p in (workdir, *workdir.absolute().parents) if p.exists()
    )
    if not os.access(there, os.W_OK):
      raise ValueError(f"{workdir} cannot be made: {there} is not writable.")
    return
  index = jax.process_index()
  problem = _try_to_write(workdir, index)
  _refuse(distributed.gather(problem, room=512))
  # The first's token, for all; a file of an earlier start must not do.
  token = distributed.gather(f"{os.getpid()}-{time.time_ns()}")[0]
  mark = workdir / f".seen-{token}"
  if not index:
    mark.touch()
  distributed.wait("the mark is there")
  problem = (
    ""
    if _appears(mark)
    else (
      f"process {index} on {socket.gethostname()} does not see in {workdir} "
      "what process 0 wrote there; name a directory on a shared file system"
    )
  )
  problems = distributed.gather(problem, room=512)
  if not index:
    mark.unlink()
  _refuse(problems)


def _try_to_write(workdir: Path, index: int) -> str:
  path = workdir / f".write-{index}-{os.getpid()}"
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    path.unlink()
  except OSError as error:
    host = socket.gethostname()
    return f"process {index} on {host} cannot write in {workdir}: {error}"
  return ""


def _appears(path: Path) -> bool:
  end = time.monotonic() + _SEEN_WITHIN
  while time.monotonic() < end:
    if path.exists():
      return True
    time.sleep(0.5)
  return False


def _refuse(problems: Sequence[str]) -> None:
  if any(problems):
    raise ValueError(f"{'; '.join(filter(None, problems))}.")
