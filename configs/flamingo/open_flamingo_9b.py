"""OpenFlamingo-9B: MPT-7B with a block before every fourth layer."""

from configs.flamingo import open_flamingo


def get_config():
  config = open_flamingo.get_config("9B")
  config.topology = "v5p:4x4x8"
  return config
