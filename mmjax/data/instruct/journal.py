"""What was asked and answered, in a folder, so that nothing is asked twice.

  settings.json    what all answers of the folder have in common
  journal.jsonl    a line an answer, good or not; only ever grows
  instruct.json    what the good ones make, here LLaVA-Instruct
  lock             held while a process is at work

A line is on the disk before the next request of its thread is sent. One that
a killed process left unfinished is cut off, and its request sent anew.
"""

import collections
import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmjax.config import differences
from mmjax.data.instruct.reasons import FINAL, REASONS
from mmjax.endpoint import is_count

log = logging.getLogger(__name__)

# What is asked about (a picture's id), and the kind of answer.
Key = tuple[str, str]
DONE, REJECTED = "done", "rejected"
NAME = "journal.jsonl"


@dataclasses.dataclass
class Contents:
  """What a journal has.

  Attributes:
    done: where the line of a good answer begins.
    rejected: the reasons why answers were no use, in their order.
    prompt_tokens: read by the model, all in all.
    completion_tokens: written by it.
    size: of the lines that are whole, in bytes.
  """

  done: dict[Key, int] = dataclasses.field(default_factory=dict)
  rejected: dict[Key, list[str]] = dataclasses.field(
    default_factory=lambda: collections.defaultdict(list)
  )
  prompt_tokens: int = 0
  completion_tokens: int = 0
  size: int = 0

  def is_finished(self, key: Key, tries: int) -> bool:
    """Whether there is a good answer, or no use in asking for one."""
    reasons = self.rejected.get(key, ())
    ended = len(reasons) >= tries or not FINAL.isdisjoint(reasons)
    return key in self.done or ended

  def add(self, line: Mapping[str, Any], size: int) -> None:
    """Counts a line of `size` bytes.

    Raises:
      ValueError: for one that is of no journal, and nothing is changed.
    """
    _check_line(line)
    key = (line["id"], line["kind"])
    if line["status"] == DONE:
      self.done[key] = self.size
    else:
      self.rejected[key].append(line["reason"])
    self.prompt_tokens += line["prompt_tokens"]
    self.completion_tokens += line["completion_tokens"]
    self.size += size


def read(folder: str | Path, settings: Mapping[str, Any]) -> Contents:
  """What a folder has; nothing, where it is not there yet.

  Raises:
    ValueError: when it was made with other settings, or is damaged.
  """
  path = Path(folder) / NAME
  found = Contents()
  _check(Path(folder), settings)
  if not path.exists():
    return found
  with path.open("rb") as file:
    for number, content in enumerate(file, 1):
      try:
        line = json.loads(content)
        if not content.endswith(b"\n"):
          raise ValueError("no end of line")
        found.add(line, len(content))
      except (ValueError, RecursionError) as error:
        if file.read(1):
          raise ValueError(
            f"{path}, line {number} is damaged ({error}), and others follow "
            "it. Remove the line: its request is then sent again."
          ) from None
        log.warning("%s ends in an unfinished line, which is done anew.", path)
  return found


class Journal:
  """An open folder. Threads may append to it, and no other process."""

  def __init__(self, folder: str | Path, settings: Mapping[str, Any]):
    """Makes, or goes on with, a folder.

    Raises:
      ValueError: when another process has it, it was made with other settings,
        or is damaged.
    """
    self.folder, self._mutex = Path(folder), threading.Lock()
    self.folder.mkdir(parents=True, exist_ok=True)
    self._lock = _hold(self.folder / "lock")
    try:
      self.contents = read(folder, settings)
      if not (self.folder / "settings.json").exists():
        text = json.dumps(settings, indent=1)
        write_whole(self.folder / "settings.json", [text])
      flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
      self._file = os.open(self.folder / NAME, flags, 0o666)
      os.ftruncate(self._file, self.contents.size)
    except BaseException:
      os.close(self._lock)
      raise

  def append(self, line: Mapping[str, Any]) -> None:
    """Adds a line; it is on the disk when this returns.

    Raises:
      OSError: when it cannot be written; nothing of it stays then.
    """
    content = json.dumps(line).encode() + b"\n"
    with self._mutex:
      try:
        if os.write(self._file, content) < len(content):
          raise OSError(f"There is no room for {self.folder / NAME}.")
        os.fsync(self._file)
      except OSError:
        os.ftruncate(self._file, self.contents.size)
        raise
      self.contents.add(line, len(content))

  def lines(self, keys: Iterable[Key]) -> Iterator[dict[str, Any]]:
    """The good answers to `keys`, in their order, one at a time."""
    with (self.folder / NAME).open("rb") as file:
      for key in keys:
        if key in self.contents.done:
          file.seek(self.contents.done[key])
          yield json.loads(file.readline())

  def close(self) -> None:
    os.close(self._file)
    os.close(self._lock)

  def __enter__(self) -> "Journal":
    return self

  def __exit__(self, *error) -> None:
    self.close()


def write_whole(path: Path, parts: Iterable[str]) -> None:
  """Writes a file that is there as a whole, or not at all."""
  partial = path.with_name(f"{path.name}.partial")
  with partial.open("w", encoding="utf-8") as file:
    file.writelines(parts)
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path)


def array(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
  """A JSON array with a row a line, without holding it in memory."""
  mark = "["
  for row in rows:
    yield f"{mark}\n{json.dumps(row)}"
    mark = ","
  yield "[]\n" if mark == "[" else "\n]\n"


def _check_line(line: Any) -> None:
  """Whether a line has what every one of a journal has."""
  if not isinstance(line, dict):
    raise ValueError(f"{str(line)[:40]} is no object")
  expected = {
    "id": isinstance(line.get("id"), str),
    "kind": isinstance(line.get("kind"), str),
    "status": line.get("status") in (DONE, REJECTED),
    "reason": line.get("status") == DONE or line.get("reason") in (*REASONS,),
    "prompt_tokens": is_count(line.get("prompt_tokens")),
    "completion_tokens": is_count(line.get("completion_tokens")),
  }
  if wrong := [name for name, right in expected.items() if not right]:
    raise ValueError(f"{wrong[0]} is {str(line.get(wrong[0]))[:40]!r}")


def _hold(path: Path) -> int:
  """The lock, which the system lets go when the process ends, however."""
  handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    os.close(handle)
    raise ValueError(
      f"Another process is at work in {path.parent}. Wait for it, or name "
      "another folder."
    ) from None
  return handle


def _check(folder: Path, settings: Mapping[str, Any]) -> None:
  """Whether a folder was made with these settings, where it was made."""
  path = folder / "settings.json"
  if not path.exists():
    if (folder / NAME).exists():
      raise ValueError(
        f"{folder} has a {NAME}, but no settings.json: it is "
        "not of this command. Name another folder."
      )
    return
  old: Any = None
  with contextlib.suppress(ValueError):
    old = json.loads(path.read_text(encoding="utf-8"))
  if not isinstance(old, dict):
    raise ValueError(f"{path} is damaged; name another folder.")
  if found := sorted(differences(old, dict(settings), "")):
    names = [name.removeprefix(".") for name in found]
    told = [f"{x} was {old.get(x)!r}, is {settings.get(x)!r}" for x in names]
    raise ValueError(
      f"{folder} was made with other settings: {'; '.join(told)}. Name another "
      "folder, or use the same."
    )
