"""X-InstructBLIP's encoders for `mmjax convert`, each from a file of its own.

eva     EVA's tower alone, as LAVIS downloads it (`eva_vit_g.pth`)
beats   a checkpoint of BEATs: settings (`cfg`) and weights (`model`)
ulip2   ULIP-2's PointBERT, from a checkpoint of ULIP's training or from
        LAVIS' file; DDP's `module.` is left off
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.cli import lavis_settings
from mmjax.cli.shapes import depth, heads, like, require
from mmjax.convert.configs import size
from mmjax.convert.families import beats, eva, pointbert
from mmjax.convert.rules import Rule
from mmjax.encoders.beats import BEATs
from mmjax.encoders.pointbert import ULIP2, PointBERT
from mmjax.encoders.vit import ViT

Fields = dict[str, Any]
# What EVA's own file may hold behind the last block.
_EVA_HEAD = re.compile(r"(fc_)?norm\.(weight|bias)|head\.(weight|bias)")
_HEADS = '{"num_attention_heads": N, "num_group": N, "group_size": N}'


def eva_fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings of a `ViT`."""
  return lavis_settings.eva(config, weights, root="")


def eva_module(fields: Fields) -> ViT:
  return ViT(**fields)


def eva_inputs(fields: Fields) -> tuple:
  side = fields["image_size"]
  return (like((1, side, side, 3)),)


def eva_rules(fields: Fields) -> Sequence[Rule]:
  del fields
  return eva.lavis(root="")


def eva_ignore(key: str, fields: Fields) -> bool:
  """Buffers, and a norm and a head behind the last block."""
  del fields
  return any(p.fullmatch(key) for p in (eva.BUFFERS, _EVA_HEAD))


def eva_config(fields: Fields) -> dict[str, Any]:
  """What no tensor tells, for a file that is read again."""
  return dict(vision_config=dict(num_attention_heads=fields["num_heads"]))


def beats_fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings of a `BEATs`, all of them out of the checkpoint's `cfg`."""
  del weights
  return beats.settings(config)


def beats_module(fields: Fields) -> BEATs:
  return BEATs(**fields)


def beats_inputs(fields: Fields) -> tuple:
  return (like((1, fields["patch"], 128)),)


def beats_rules(fields: Fields) -> Sequence[Rule]:
  return beats.beats(fields["num_layers"])


def beats_ignore(key: str, fields: Fields) -> bool:
  """Heads of pretraining and of classifiers."""
  del fields
  return beats.HEADS.fullmatch(key) is not None


def beats_config(fields: Fields) -> dict[str, Any]:
  """A `cfg`."""
  return beats.cfg(fields)


def ulip2_fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings of a `PointBERT`.

  Args:
    config: `num_attention_heads` (else of 64 features), `num_group` and
      `group_size` (else the published ones), as in ULIP's own yaml.
    weights: tensors by name.
  """
  root, projection = "point_encoder.", "pc_projection"
  published = ULIP2["8k-xyz"]
  token, points = require(
    weights,
    {f"{root}cls_token": 3, f"{root}encoder.second_conv.3.weight": 3},
  )
  width = token[-1]
  given = dict(
    num_group=published["groups"], group_size=published["group_size"]
  )
  given |= config
  pooled = 0
  if projection in weights:
    ((_, pooled),) = require(weights, {projection: 2})
  return dict(
    width=width,
    num_layers=depth(weights, f"{root}blocks.blocks."),
    num_heads=heads(config, width, 64, _HEADS),
    groups=size(given, "num_group"),
    group_size=size(given, "group_size"),
    group_width=points[0],
    projection=pooled,
  )


def ulip2_module(fields: Fields) -> PointBERT:
  return PointBERT(**fields)


def ulip2_inputs(fields: Fields) -> tuple:
  points = max(fields["groups"], fields["group_size"])
  return (like((1, points, 3)),)


def ulip2_rules(fields: Fields) -> Sequence[Rule]:
  del fields
  return pointbert.ulip2()


def ulip2_ignore(key: str, fields: Fields) -> bool:
  """Counters, and the towers that ULIP trained against."""
  del fields
  return any(
    p.fullmatch(key) for p in (pointbert.BUFFERS, pointbert.OTHER_TOWERS)
  )


def ulip2_config(fields: Fields) -> dict[str, Any]:
  """What no tensor tells, for a file that is read again."""
  return dict(
    num_attention_heads=fields["num_heads"],
    num_group=fields["groups"],
    group_size=fields["group_size"],
  )
