"""EfficientNet-Lite0, and what it sees in the drawn set, once a machine."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax import tree
from mmjax.convert.families import efficientnet as efficientnet_family
from mmjax.data import drawn
from mmjax.data.image import Square
from mmjax.encoders.efficientnet import efficientnet_lite
from mmjax.encoders.features import Reduction, encode_all, principal

log = logging.getLogger(__name__)


def efficientnet_lite0(shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """ImageNet weights of EfficientNet-Lite0."""
  params = efficientnet_family.load_pretrained(tree.unflatten(shapes))
  return tree.flatten(params)


def drawn_features(
  shapes: Mapping[str, Any], size: int = 96
) -> dict[str, np.ndarray]:
  """EfficientNet-Lite0's features of the drawn set, reduced.

  Args:
    shapes: of a FeatureTable; its width says how many principal components
      of the training pictures' features are kept.
    size: side to which the pictures are brought; the grid is size / 32.
  """
  expected = tuple(shapes["table"].shape)
  table = drawn_reduction(size, expected[-1])(drawn_grid(size))
  if table.shape != expected:
    raise ValueError(
      f"The features are {table.shape}, config.model.encoder wants {expected}."
    )
  return {"table": table}


def reduced_efficientnet_lite0(
  shapes: Mapping[str, Any], size: int = 96
) -> dict[str, np.ndarray]:
  """EfficientNet-Lite0, and the reduction that `drawn_features` puts behind it.

  Args:
    shapes: of a Reduced encoder.
    size: as for `drawn_features`.
  """
  head = "encoder/"
  inner = {
    k.removeprefix(head): x for k, x in shapes.items() if k.startswith(head)
  }
  width = shapes["components"].shape[-1]
  reduction = drawn_reduction(size, width)
  return {head + k: x for k, x in efficientnet_lite0(inner).items()} | {
    "mean": reduction.mean,
    "components": reduction.components,
  }


def drawn_reduction(size: int, width: int) -> Reduction:
  """Principal components of the features of the training pictures."""
  rows = [
    drawn.key(c, style)
    for c in drawn.concepts("train")
    for style in drawn.STYLES
  ]
  return principal(drawn_grid(size)[rows], width)


def drawn_grid(size: int) -> np.ndarray:
  """EfficientNet-Lite0's grid of every drawn picture, float16 [K P 1280]."""
  images = drawn.table()

  def make():
    encoder = efficientnet_lite()
    like = jax.eval_shape(encoder.init, jax.random.key(0), images[:1])
    params = efficientnet_family.load_pretrained(nn.unbox(like)["params"])
    resize = Square(size)
    bigger = np.stack([resize(x, None) for x in images])
    log.info("Encoding %d pictures once", len(bigger))
    return encode_all(lambda x: encoder.apply({"params": params}, x), bigger)

  digest = hashlib.sha256(images.tobytes())
  digest.update(f"{efficientnet_family.SHA256} {size}".encode())
  return cached(f"drawn-{digest.hexdigest()[:16]}", make)


def cached(name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
  """An array from the user's cache, or made and put there."""
  root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  path = Path(root) / "mmjax" / f"{name}.npy"
  if path.is_file():
    return np.load(path, mmap_mode="r", allow_pickle=False)
  value = make()
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_suffix(f".{os.getpid()}.npy")
  np.save(part, value, allow_pickle=False)
  part.rename(path)
  return value
