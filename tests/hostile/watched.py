"""What a piece of code does to the machine, as Python's audit hooks see it."""

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

# Events that reading a file never needs.
FORBIDDEN = (
  "subprocess.Popen",
  "os.system",
  "os.exec",
  "os.posix_spawn",
  "os.fork",
  "os.startfile",
  "pickle.find_class",
  "socket.connect",
  "socket.getaddrinfo",
  "urllib.Request",
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_watchers: list["Seen"] = []


class Seen:
  """What was done.

  Attributes:
    forbidden: events, with what they were about.
    written: files that were opened for writing, made, moved or removed.
    grown: bytes by which the process' largest size rose.
  """

  def __init__(self):
    self.forbidden: list[str] = []
    self.written: set[Path] = set()
    self.grown = 0

  def note(self, event: str, details: tuple) -> None:
    if event in FORBIDDEN:
      self.forbidden.append(f"{event} {details!r:.200}")
    elif event == "open" and isinstance(details[0], str | bytes):
      if details[2] & _WRITES:
        self.written.add(Path(os.fsdecode(details[0])))
    elif event in ("os.rename", "os.remove", "os.link", "os.symlink"):
      self.written.add(Path(os.fsdecode(details[0])))


def _hook(event: str, details: tuple) -> None:
  for seen in _watchers:
    seen.note(event, details)


_installed: list[bool] = []


@contextlib.contextmanager
def watched() -> Iterator[Seen]:
  """Notes what is done inside, on all threads."""
  if not _installed:
    sys.addaudithook(_hook)
    _installed.append(True)
  seen = Seen()
  before = _largest()
  _watchers.append(seen)
  try:
    yield seen
  finally:
    _watchers.remove(seen)
    seen.grown = _largest() - before


def _largest() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
