"""Bytes of a file at any place, from any thread or process."""

import os
import threading
from pathlib import Path

from mmjax.data.document import BadSample


class Reader:
  """A file that is opened when it is first read.

  Copies that go to another process open it anew there.

  Attributes:
    path: of the file.
    size: in bytes, when it was first looked at.
  """

  def __init__(self, path: str | Path):
    """Looks at the file.

    Raises:
      ValueError: when there is no such file.
    """
    self.path = str(path)
    if not Path(path).is_file():
      raise ValueError(f"There is no file {self.path}.")
    self.size = Path(path).stat().st_size
    self._fd: int | None = None
    self._lock = threading.Lock()

  def read(self, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on.

    Raises:
      BadSample: when the file ends before.
    """
    with self._lock:
      if self._fd is None:
        self._fd = os.open(self.path, os.O_RDONLY)
    parts, missing = [], size
    while missing > 0:
      part = os.pread(self._fd, missing, offset + size - missing)
      if not part:
        raise BadSample(
          f"{self.path} ends {missing} bytes before {offset + size}."
        )
      parts.append(part)
      missing -= len(part)
    return b"".join(parts)

  def close(self) -> None:
    with self._lock:
      if self._fd is not None:
        os.close(self._fd)
        self._fd = None

  def __enter__(self) -> "Reader":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def __del__(self):
    if getattr(self, "_fd", None) is not None:
      os.close(self._fd)

  def __getstate__(self) -> dict:
    return {"path": self.path, "size": self.size}

  def __setstate__(self, state: dict) -> None:
    self.__dict__.update(state, _fd=None, _lock=threading.Lock())
