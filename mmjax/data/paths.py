"""Names in tables to files of a folder, and of no other place."""

from pathlib import Path

from mmjax.data import tar
from mmjax.data.document import BadSample, File


def below(folder: str | Path, name: str) -> File:
  """A file of a folder.

  Raises:
    BadSample: for a name that leaves the folder.
  """
  name = str(name)
  if not tar.safe_name(name):
    raise BadSample(f"{name!r} does not stay below {folder}.")
  try:
    path = (Path(folder) / name).resolve()
    path.is_file()
  except (OSError, ValueError) as error:
    raise BadSample(f"{name!r} can be no file: {error}") from None
  if not path.is_relative_to(Path(folder).resolve()):
    raise BadSample(f"{name!r} leads out of {folder}.")
  return File(str(path))


def check_folder(folder: str | None) -> None:
  """A ValueError for a folder of images that is not there."""
  if folder is not None and not Path(folder).is_dir():
    raise ValueError(f"There is no folder of images {folder}.")
