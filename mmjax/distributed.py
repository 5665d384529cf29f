"""How one process of several finds its place, and starts together with them.

  MMJAX_COORDINATOR=node1:8476 MMJAX_PROCESSES=4 MMJAX_PROCESS=0 mmjax train ...

These variables come first; without them a step of SLURM (`srun`), then a TPU
slice (a VM, or a pod of GKE) is looked for; else the process is alone.
"""

import dataclasses
import importlib.util
import itertools
import logging
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax._src import distributed as runtime
from jax.sharding import Mesh

from mmjax import rollcall
from mmjax.config import nearest

log = logging.getLogger(__name__)

_OURS = ("MMJAX_COORDINATOR", "MMJAX_PROCESSES", "MMJAX_PROCESS")
# Those of preflight, configs and notebooks.
_KNOWN = (*_OURS, "MMJAX_DEVICES", "MMJAX_DATA", "MMJAX_RUN", "MMJAX_COUNT")
_STEP = ("SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
# Seconds that a process waits for what others have to say.
_PATIENCE = 3600
_gathered, _waited = itertools.count(), itertools.count()
# Seconds in which other processes say why they end.
_LAST_WORDS = 2.0
_LOST = re.compile(
  "(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED): "
)


@dataclasses.dataclass(frozen=True)
class Place:
  """Which process of how many one is.

  Attributes:
    coordinator: host:port of process 0; None where JAX finds it (TPU).
    count: of processes.
    index: of this one.
    devices: local accelerators to use; None for all that can be seen.
  """

  coordinator: str | None = None
  count: int = 1
  index: int = 0
  devices: tuple[int, ...] | None = None


def start() -> None:
  """Joins the other processes of the job, if there are any.

  Before anything else asks JAX for devices; a second call does nothing.

  Raises:
    ValueError: for variables that are wrong, or set in part.
    TimeoutError: when not all processes of the job come.
  """
  warn_of_unknown(os.environ)
  place = find_place(os.environ)
  if place is None or jax.distributed.is_initialized():
    return
  _drop_proxies()
  # Steps agree on where to stop by themselves; JAX's own service would take
  # SIGTERM away from this process.
  jax.config.update("jax_enable_preemption_service", False)
  if place.coordinator is None:
    jax.distributed.initialize(initialization_timeout=int(rollcall.PATIENCE))
  else:
    _join(place)
  if not is_first():  # What all say is said once; what one finds, by itself.
    logging.getLogger("mmjax").setLevel(logging.WARNING)


def _join(place: Place) -> None:
  if place.count > 1:
    rollcall.meet(place.coordinator, place.count, place.index)
  jax.distributed.initialize(
    place.coordinator,
    place.count,
    place.index,
    place.devices,
    # All is known; else SLURM would leave one accelerator to each process.
    cluster_detection_method="deactivate",
  )


def is_first() -> bool:
  """Whether this process writes what a run writes once.

  One that is alone does not ask JAX, which would take the devices for it.
  """
  return not jax.distributed.is_initialized() or jax.process_index() == 0


def find_place(environment: Mapping[str, str]) -> Place | None:
  """The place that variables give; None for a process that is alone."""
  given = [name for name in _OURS if name in environment]
  if given:
    return _told(environment, given)
  if "SLURM_JOB_ID" in environment:
    return _slurm(environment)
  if _is_tpu(environment):
    return Place()
  return None


def warn_of_unknown(environment: Mapping[str, str]) -> None:
  """A misspelt variable would be ignored without a word."""
  for name in sorted(environment):
    if name.startswith("MMJAX_") and name not in _KNOWN:
      log.warning("%s means nothing here. %s", name, nearest(name, _KNOWN))


def _told(environment, given) -> Place:
  missing = [name for name in _OURS if name not in environment]
  if missing:
    raise ValueError(
      f"{', '.join(given)} is set, but not {', '.join(missing)}. Set all of "
      "them for a job of several processes, or none."
    )
  coordinator = environment["MMJAX_COORDINATOR"]
  if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}", coordinator):
    raise ValueError(
      f"MMJAX_COORDINATOR is {coordinator!r}; expected host:port."
    )
  count = _number(environment, "MMJAX_PROCESSES")
  index = _number(environment, "MMJAX_PROCESS")
  if not 0 <= index < count:
    raise ValueError(
      f"MMJAX_PROCESS is {index}; expected 0 to {count - 1}, as "
      f"MMJAX_PROCESSES is {count}."
    )
  return Place(coordinator, count, index)


def _number(environment, name: str) -> int:
  try:
    return int(environment[name])
  except ValueError:
    raise ValueError(
      f"{name} is {environment[name]!r}; expected a whole number."
    ) from None


def _slurm(environment) -> Place | None:
  if not all(name in environment for name in _STEP):
    nodes = environment.get("SLURM_JOB_NUM_NODES", "1")
    tasks = environment.get("SLURM_NTASKS", "1")
    if max(int(nodes), int(tasks)) > 1:
      raise ValueError(
        f"SLURM job {environment['SLURM_JOB_ID']} has {nodes} node(s) and "
        f"{tasks} task(s), but this process is in no step of it and would run "
        "alone. Use srun: `srun mmjax train ...`."
      )
    return None
  count = _number(environment, "SLURM_NTASKS")
  if count == 1:
    return None
  host = first_host(environment["SLURM_STEP_NODELIST"])
  # As JAX does: two jobs on one node rarely meet.
  port = _number(environment, "SLURM_JOB_ID") % 4096 + 61440
  return Place(
    f"{host}:{port}",
    count,
    _number(environment, "SLURM_PROCID"),
    _share(environment),
  )


def first_host(nodes: str) -> str:
  """The first name of SLURM's list: `a7` of `a[7-9,12],b1`."""
  found = re.match(r"([^\[,]+)(?:\[([^\],-]+)[^\]]*\](.*))?", nodes)
  if found is None:
    raise ValueError(f"SLURM_STEP_NODELIST is {nodes!r}; expected node names.")
  prefix, number, rest = found.groups()
  suffix = (rest or "").partition(",")[0]
  return prefix + (number or "") + suffix


def _share(environment) -> tuple[int, ...] | None:
  """The accelerators of this task; all of the node's for its only task."""
  per_node = environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
  # "2(x3)" is two tasks on each of three nodes.
  tasks = max(int(re.match(r"\d+", t)[0]) for t in per_node.split(","))
  if tasks == 1:
    return None
  visible = environment.get("CUDA_VISIBLE_DEVICES", "")
  seen = len(visible.split(",")) if visible else 0
  total = seen or int(environment.get("SLURM_GPUS_ON_NODE", tasks))
  if total < tasks:
    return None  # SLURM has bound each task to its own.
  each, mine = total // tasks, _number(environment, "SLURM_LOCALID")
  return tuple(range(mine * each, (mine + 1) * each))


def _is_tpu(environment) -> bool:
  if environment.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
    return False
  if importlib.util.find_spec("libtpu") is None:
    return False
  hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
  chips = (Path("/dev/accel0"), Path("/dev/vfio/0"))
  return len(hosts) > 1 or any(chip.exists() for chip in chips)


def _drop_proxies() -> None:
  """The processes talk to each other; through a proxy they would hang."""
  names = [n for n in os.environ if n.lower().endswith("_proxy")]
  for name in names:
    del os.environ[name]
  if names:
    log.warning("Left out for the processes' own talk: %s", ", ".join(names))


def readers(mesh: Mesh, axes: Sequence[str]) -> tuple[int, int]:
  """Which part of a batch this process reads, of how many parts.

  Processes that hold the same rows, as on an axis `tensor` over several
  machines, read the same part.

  Args:
    mesh: of the run.
    axes: over which the rows of a batch are cut.

  Raises:
    ValueError: when processes hold rows in common, but not all.
  """
  dims = [mesh.axis_names.index(axis) for axis in axes]
  held: dict[int, set[tuple[int, ...]]] = {}
  for place, device in np.ndenumerate(mesh.devices):
    rows = tuple(place[d] for d in dims)
    held.setdefault(device.process_index, set()).add(rows)
  parts = sorted({tuple(sorted(rows)) for rows in held.values()})
  count = sum(map(len, parts))
  if count != len(set().union(*held.values())) or len(set(map(len, parts))) > 1:
    raise ValueError(
      f"The mesh {dict(mesh.shape)} lets some processes share a part of their "
      f"rows ({'×'.join(axes)}). Let these axes, or the others, fill whole "
      "processes."
    )
  return parts.index(tuple(sorted(held[jax.process_index()]))), len(parts)


def wait(what: str) -> None:
  """Until all processes are here; by the coordinator, as `gather`."""
  if jax.process_count() > 1:
    name = f"mmjax {what} {next(_waited)}"
    runtime.global_state.client.wait_at_barrier(name, _PATIENCE * 1000)


def gather(text: str, room: int = 4096) -> list[str]:
  """A short text of every process, in the order of the processes.

  By the coordinator: processes may have other numbers of devices, and a
  program over all of them would not begin.
  """
  count = jax.process_count()
  if count == 1:
    return [text]
  client, root = runtime.global_state.client, f"mmjax/told/{next(_gathered)}"
  data = b"=" + text.encode()[:room]
  client.key_value_set_bytes(f"{root}/{jax.process_index()}", data)
  wait("has told")
  found = client.key_value_dir_get_bytes(f"{root}/")
  told = {int(key.rpartition("/")[2]): value[1:] for key, value in found}
  return [told[i].decode(errors="replace") for i in range(count)]


def is_lost(error: BaseException) -> bool:
  """Whether an error means that another process of the job has gone."""
  if not jax.distributed.is_initialized() or jax.process_count() == 1:
    return False
  # The kind of error varies, its text begins with the kind of trouble; that
  # of a process' own is RESOURCE_EXHAUSTED, INVALID_ARGUMENT and others.
  return _LOST.match(str(error)) is not None


def leave(code: int) -> None:
  """Ends a process that failed; the others must not wait for it.

  The usual way out waits for all processes, which may wait for this one.
  """
  if jax.distributed.is_initialized() and jax.process_count() > 1:
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():  # Without the coordinator JAX aborts the others.
      time.sleep(_LAST_WORDS)
    end(code)


def end(code: int) -> None:
  """Ends this process and its workers now, without cleaning up."""
  for child in multiprocessing.active_children():
    child.kill()
  os._exit(code)
