"""In the place of Python and `mmjax train`: notes what it got, ends as told.

`STAND_IN` is JSON: for every process the exit codes of its attempts, of which
"wait" saves on SIGTERM and ends with 75, "hang" ignores it and SIGINT, and
"abort" and "kill" end by SIGABRT and SIGKILL. Notes go to
`<workdir>/<process>-<attempt>.json`.
"""

import json
import os
import signal
import stat
import sys
import time
from pathlib import Path

import pytest


def install(directory: Path) -> str:
  """An executable that runs this file, to be a job's `python`."""
  path = directory / "stand_in"
  path.write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
  path.chmod(path.stat().st_mode | stat.S_IXUSR)
  return str(path)


def notes(workdir: Path, process: int, attempt: int = 0) -> dict:
  """What a process got."""
  return json.loads((workdir / f"{process}-{attempt}.json").read_text())


def attempts(workdir: Path, process: int = 0) -> int:
  return len(list(workdir.glob(f"{process}-*.json")))


def wait_for(found, seconds: float = 60.0) -> None:
  """Until `found()` is true."""
  end = time.monotonic() + seconds
  while not found():
    if time.monotonic() > end:
      pytest.fail(f"Nothing happened in {seconds} s.")
    time.sleep(0.05)


def main() -> None:
  arguments = sys.argv[1:]
  workdir = Path(arguments[arguments.index("--workdir") + 1])
  workdir.mkdir(parents=True, exist_ok=True)
  process = os.environ.get("MMJAX_PROCESS", os.environ.get("SLURM_PROCID", "0"))
  attempt = len(list(workdir.glob(f"{process}-*.json")))
  plan = json.loads(os.environ.get("STAND_IN", "{}")).get(process, [0])
  code = plan[attempt]
  if code in ("wait", "hang"):
    ends = (lambda *_: os._exit(75)) if code == "wait" else signal.SIG_IGN
    signal.signal(signal.SIGTERM, ends)
  if code == "hang":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
  (workdir / f"{process}-{attempt}.part").write_text(
    json.dumps({"arguments": arguments, "env": dict(os.environ)})
  )
  (workdir / f"{process}-{attempt}.part").rename(
    workdir / f"{process}-{attempt}.json"
  )
  print(f"process {process} attempt {attempt}", flush=True)
  while code in ("wait", "hang"):
    time.sleep(0.1)
  if code == "abort":
    os.abort()
  if code == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
  sys.exit(code)


if __name__ == "__main__":
  main()
