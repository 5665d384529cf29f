"""timm and open_clip without torchvision, whose CPU build fits not every torch.

Both import torchvision for data transforms only; their models do without.
"""

import importlib
import importlib.util
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
  return _import("timm")


def import_open_clip():
  """The open_clip module, likewise."""
  # transformers, which open_clip imports, must not meet the stand-ins.
  importlib.import_module("transformers")
  import_timm()
  return _import("open_clip")


def _import(name: str):
  if name in sys.modules:
    return sys.modules[name]
  names = ["torchvision", "torchvision.transforms"]
  names += ["torchvision.transforms.functional", "torchvision.ops"]
  names += ["torchvision.ops.misc", "torchvision.datasets"]
  absent = {n: _stand_in(n) for n in names if n not in sys.modules}
  sys.modules.update(absent)
  try:
    return importlib.import_module(name)
  finally:
    for stand_in in absent:
      del sys.modules[stand_in]


def import_open_flamingo():
  """open_flamingo's model files; its factory, which wants more, is left out."""
  if "open_flamingo" not in sys.modules:
    package = types.ModuleType("open_flamingo")
    spec = importlib.util.find_spec("open_flamingo")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["open_flamingo"] = package
  return importlib.import_module("open_flamingo.src.flamingo")
