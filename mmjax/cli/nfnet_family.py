"""timm's `dm_nfnet_*` for `mmjax convert`; every size is read off tensors."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from mmjax.cli.shapes import like
from mmjax.convert.families.nfnet import nfnet
from mmjax.convert.rules import Rule
from mmjax.encoders.nfnet import DEPTHS, WIDTHS, NFNet

Fields = dict[str, Any]
_ARCHITECTURE = "dm_nfnet_"
# Arguments of timm's that sizes of tensors tell, or that training alone reads.
_TOLD = {
  "channels",
  "depths",
  "drop_path_rate",
  "drop_rate",
  "group_size",
  "num_classes",
  "num_features",
  "stem_chs",
}


def fields(config: Mapping[str, Any], weights) -> Fields:
  """Settings of an NFNet.

  Args:
    config: timm's config.json, if any: which architecture, changed how.
    weights: tensors by name.
  """
  named = config.get("architecture", _ARCHITECTURE)
  if not str(named).startswith(_ARCHITECTURE):
    raise ValueError(
      f"config.json is of {named!r}; only timm's {_ARCHITECTURE}* is known."
    )
  changed = config.get("model_args") or {}
  other = {k: v for k, v in changed.items() if k not in _TOLD}
  if (pool := config.get("global_pool") or "avg") != "avg":
    other["global_pool"] = pool
  if other:
    raise ValueError(f"config.json has {other}; convert reads no such options.")
  depths = _depths(weights)

  def size(name: str, optional: bool = False) -> int:
    if name not in weights and not optional:
      raise ValueError(f"This is no NFNet: it has no {name}.")
    return weights.shape(name)[0] if name in weights else 0

  spatial = "stages.0.0.conv2.weight"
  return dict(
    depths=depths,
    widths=[size(f"stages.{i}.0.conv3.bias") for i in range(len(depths))],
    stem=size("stem.conv4.bias"),
    group=weights.shape(spatial)[1] if size(spatial) else 0,
    features=size("final_conv.bias", optional=True),
    classes=size("head.fc.bias", optional=True),
  )


def _depths(weights: Mapping) -> list[int]:
  """How many blocks each stage has."""
  pattern = re.compile(r"stages\.(\d+)\.(\d+)\.skipinit_gain")
  found = [(int(m[1]), m[2]) for k in weights if (m := pattern.fullmatch(k))]
  stages = [stage for stage, _ in found]
  if not found or set(stages) != set(range(len(set(stages)))):
    raise ValueError(
      "This is no NFNet of timm's dm_nfnet_*: expected names such as "
      f"stages.0.0.skipinit_gain for every stage, got such as "
      f"{list(weights)[:3]}."
    )
  return [stages.count(stage) for stage in sorted(set(stages))]


def module(fields: Fields) -> NFNet:
  return NFNet(**_tuples(fields))


def _tuples(fields: Fields) -> Fields:
  return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def inputs(fields: Fields) -> tuple:
  del fields
  return (like((1, 32, 32, 3), jnp.uint8),)


def rules(fields: Fields) -> Sequence[Rule]:
  return nfnet(fields["depths"])


def config(fields: Fields) -> dict[str, Any]:
  """timm's config.json for a published size; other sizes have no name."""
  published = dict(widths=WIDTHS, stem=128, group=128, features=3072)
  given = _tuples(fields)
  names = [n for n, depths in DEPTHS.items() if depths == given["depths"]]
  if not names or any(given[k] != value for k, value in published.items()):
    return {}
  return dict(
    architecture=_ARCHITECTURE + names[0].lower(),
    num_classes=fields["classes"],
    num_features=fields["features"],
  )
