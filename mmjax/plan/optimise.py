"""Has libtpu compile one program, and write down what it decides.

  python -m mmjax.plan.optimise FOLDER PARENT

A process of its own, which compiling.py starts and ends; it ends by itself when
PARENT, the number of the process that asked, is gone. FOLDER has
`request.json`; XLA's dump goes there, `log.txt` with what the library tells of
the program, and `error.txt` if there is one.
"""

import json
import logging
import os
import sys
import threading
import time
import traceback
from pathlib import Path

import jax

from mmjax.plan.compiling import DUMP
from mmjax.plan.planning import programs
from mmjax.plan.program import make_job
from mmjax.plan.topology import parse
from mmjax.sharding import make_mesh


def main(folder: Path) -> None:
  # What the cache has is not compiled, and leaves no dump.
  jax.config.update("jax_enable_compilation_cache", False)
  request = json.loads((folder / "request.json").read_text())
  machine = parse(request["topology"])
  mesh = make_mesh(request["config"]["mesh"], machine.devices())
  made = programs(make_job(request["config"], mesh), request["generates"])
  (program,) = [p for p in made if p.name == request["program"]]
  options = DUMP | {"xla_dump_to": str(folder)}
  with jax.set_mesh(mesh):
    program.lower().compile(compiler_options=options)


def end_without(parent: int) -> None:
  """Ends this process, which is busy for minutes, when its parent has ended."""
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)


if __name__ == "__main__":
  here = Path(sys.argv[1])
  logging.basicConfig(
    filename=here / "log.txt", format="%(levelno)d %(name)s %(message)s"
  )
  logging.getLogger("mmjax").setLevel(logging.INFO)
  parent = (int(sys.argv[2]),)
  threading.Thread(target=end_without, args=parent, daemon=True).start()
  try:
    main(here)
  except Exception as error:
    (here / "error.txt").write_text(str(error))
    traceback.print_exc()
    sys.exit(1)
