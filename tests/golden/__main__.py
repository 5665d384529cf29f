"""`python -m tests.golden FILE ...`: one line an output, non-zero when out."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")


def files(paths: list[str]) -> Iterator[str]:
  """The paths; a folder stands for the files of the format below it."""
  for path in paths:
    if os.path.isdir(path):
      found = sorted(map(str, Path(path).rglob("*.safetensors")))
      yield from found or [path]
    else:
      yield path


def main(paths: list[str]) -> int:
  from tests.golden.compare import compare

  if not paths:
    print("usage: python -m tests.golden FILE ...", file=sys.stderr)
    return 2
  failed = False
  for path in files(paths):
    print(path, flush=True)
    try:
      for line in compare(path):
        print(line, flush=True)
        failed |= not line.passed
    except Exception as error:  # Every file is tried; the exit code tells.
      print(f"  OUT {type(error).__name__}: {error}", flush=True)
      failed = True
  return int(failed)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
