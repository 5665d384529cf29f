"""What configs share."""

from ml_collections import ConfigDict


def config(**fields) -> ConfigDict:
  """A ConfigDict; keys may be overridden on the command line."""
  return ConfigDict(fields)
