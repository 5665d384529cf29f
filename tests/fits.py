"""A process that only looks whether it fits: `python -m tests.fits DIR HOW`.

HOW is JSON: `facts` that it has in the place of its own, `asked` devices, and
`nobody`, who may write nothing.
"""

import json
import os
import sys
from pathlib import Path

from mmjax import distributed, preflight
from mmjax.cli import main

NOBODY = 65534


def look(workdir: Path, how: dict) -> None:
  own = preflight.facts
  preflight.facts = lambda: own() | how.get("facts", {})
  if "asked" in how:
    os.environ["MMJAX_DEVICES"] = str(how["asked"])
  distributed.start()
  if how.get("nobody"):
    os.setuid(NOBODY)
  preflight.check({"seed": 0})
  preflight.check_workdir(workdir)


if __name__ == "__main__":
  workdir, how = Path(sys.argv[1]), json.loads(sys.argv[2])
  main.VERBS["train"] = lambda args: look(workdir, how)
  sys.exit(main.main(["train"]))
