"""What configs share."""

from ml_collections import ConfigDict


def config(**fields) -> ConfigDict:
  """A ConfigDict; keys may be overridden on the command line."""
  return ConfigDict(fields)


def mesh(**sizes) -> dict:
  """`config.mesh` with all its axes, so that each can be changed by name.

  Those that are not given have size 1; -1 takes all devices that are left.
  """
  return dict(data=1, fsdp=1, sequence=1, tensor=1) | sizes
