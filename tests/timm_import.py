"""timm without torchvision, of which no CPU build fits every torch.

timm imports torchvision for its data transforms only; its models do without.
"""

import importlib
import sys
import types
from unittest import mock


def _stand_in(name: str) -> types.ModuleType:
  module = types.ModuleType(name)
  module.__path__ = []
  module.__getattr__ = lambda attribute: mock.MagicMock(name=attribute)
  return module


def import_timm():
  """The timm module; torchvision is replaced only while it is imported."""
  if "timm" in sys.modules:
    return sys.modules["timm"]
  names = ["torchvision", "torchvision.transforms"]
  names += ["torchvision.transforms.functional", "torchvision.ops"]
  names += ["torchvision.ops.misc", "torchvision.datasets"]
  absent = {name: _stand_in(name) for name in names if name not in sys.modules}
  sys.modules.update(absent)
  try:
    return importlib.import_module("timm")
  finally:
    for name in absent:
      del sys.modules[name]
