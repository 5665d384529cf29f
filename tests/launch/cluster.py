"""A SLURM cluster on this machine: a controller and two nodes, all real.

The nodes are two slurmd, each with a name and a port of its own. The first has
this machine's name, as the processes of a job ask for it to find each other.
"""

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
INSTALL = "MMJAX_INSTALL_SLURM"
_PACKAGES = ("slurm-wlm", "munge")
_CONF = """
ClusterName=mmjax
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName={second} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def find_programs() -> None:
  """Skips the test where SLURM is not there, and may not be installed."""
  path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
  missing = [p for p in PROGRAMS if not shutil.which(p, path=path)]
  if missing and os.environ.get(INSTALL) == "1":
    _install()
    missing = [p for p in PROGRAMS if not shutil.which(p, path=path)]
  if missing:
    pytest.skip(
      f"no {', '.join(missing)}: apt-get install {' '.join(_PACKAGES)}, or set "
      f"{INSTALL}=1 to have this test do it (as root, on Debian or Ubuntu)"
    )


def _install() -> None:
  if os.getuid() or not shutil.which("apt-get"):
    pytest.skip(f"{INSTALL}=1, but this is not root, or there is no apt-get")
  env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
  for command in (
    ["apt-get", "update", "-qq"],
    ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *_PACKAGES],
  ):
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
      pytest.skip(f"{' '.join(command)} failed: {done.stderr[-300:]}")


class Cluster:
  """A running cluster; `with Cluster(directory): ...`."""

  def __init__(self, root: Path):
    self.root, self.conf = root, root / "slurm.conf"
    self._daemons: list[subprocess.Popen] = []

  def __enter__(self) -> "Cluster":
    root, host = self.root, socket.gethostname().split(".")[0]
    (root / "state").mkdir()
    key = root / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    # Sorted after the first, whose name can be resolved.
    second = f"{host}-second"
    text = _CONF.format(
      root=root,
      host=host,
      second=second,
      ports=_free_ports(3),
      user=pwd.getpwuid(os.getuid()).pw_name,
    )
    self.conf.write_text(text.lstrip())
    os.environ["SLURM_CONF"] = str(self.conf)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    self._start(
      *("munged", "--foreground", "--force", f"--key-file={key}"),
      *(f"--socket={root}/munge.sock", f"--pid-file={root}/munged.pid"),
      *(f"--log-file={root}/munged.log", f"--seed-file={root}/munged.seed"),
    )
    _until((root / "munge.sock").exists)
    self._start("slurmctld", "-D")
    for name in (host, second):
      self._start("slurmd", "-D", "-N", name)
    _until(lambda: self.ask("sinfo", "-h", "-o", "%D %T") == "2 idle")
    return self

  def __exit__(self, *_) -> None:
    self.ask("scancel", "--user", pwd.getpwuid(os.getuid()).pw_name)
    _until(lambda: not self.ask("squeue", "-h"))
    for daemon in reversed(self._daemons):
      daemon.terminate()
      try:
        daemon.wait(timeout=20)
      except subprocess.TimeoutExpired:
        daemon.kill()
    del os.environ["SLURM_CONF"]

  def _start(self, *command: str) -> None:
    with (self.root / "daemons.log").open("ab") as log:
      self._daemons.append(
        subprocess.Popen(command, stdout=log, stderr=log, cwd=self.root)
      )

  def ask(self, *command: str) -> str:
    """What one of SLURM's programs prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip()

  def state(self, job: str) -> dict[str, str]:
    """Fields of `scontrol show job`."""
    text = self.ask("scontrol", "show", "job", "-o", job)
    return dict(part.split("=", 1) for part in text.split() if "=" in part)

  def wait(self, job: str, log: Path, seconds: float) -> dict[str, str]:
    """Until a job has ended; its fields."""
    ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
    end = time.monotonic() + seconds
    while (state := self.state(job)).get("JobState") not in ended:
      if time.monotonic() > end:
        pytest.fail(f"{state.get('JobState')} after {seconds} s: {_tail(log)}")
      time.sleep(0.2)
    return state


def _tail(path: Path) -> str:
  return path.read_text()[-3000:] if path.exists() else f"no {path}"


def _until(found, seconds: float = 30.0) -> None:
  end = time.monotonic() + seconds
  while not found():
    if time.monotonic() > end:
      raise TimeoutError(f"SLURM did not come up in {seconds} s.")
    time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
  sockets = [socket.socket() for _ in range(count)]
  for each in sockets:
    each.bind(("127.0.0.1", 0))
  ports = [each.getsockname()[1] for each in sockets]
  for each in sockets:
    each.close()
  return ports
