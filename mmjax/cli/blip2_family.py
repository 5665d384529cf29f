"""LAVIS' file of BLIP-2's first stage (`blip2_pretrained.pth`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.cli import lavis_settings
from mmjax.cli.shapes import TOKENS, like, require, shapes_of
from mmjax.convert.families import blip2, eva, qformer
from mmjax.convert.rules import Rule, prefixed
from mmjax.systems import blip2 as system

Fields = dict[str, Any]


def fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings as systems/blip2.py builds them, and names that came twice."""
  read = lavis_settings.qformer(config, weights)
  if not read["vocab_size"]:
    raise ValueError(
      "The Q-Former has no words, and the first stage needs them. A later "
      "stage's file is of --family instructblip."
    )
  ((joint, _),) = require(weights, {"vision_proj.weight": 2})
  tower = any(key.startswith("visual_encoder.") for key in weights)
  encoder = lavis_settings.eva(config, weights) if tower else None
  return dict(
    qformer=read,
    encoder=encoder and dict(name="vit") | encoder,
    joint_width=joint,
    repeated=sorted(name for name in blip2.COPIES if name in weights),
  )


def _module(fields: Fields) -> system.Blip2Stage1:
  known = ("qformer", "encoder", "joint_width", "features_norm_eps")
  return system.build({name: fields[name] for name in known if name in fields})


def shapes(fields: Fields) -> dict[str, tuple[int, ...]]:
  """Of all paths that the source fills."""
  module, one = _module(fields), like((1, 1, 1), bool)
  width = module.qformer.features_width
  media = dict(mask=one, features=like((1, 1, 1, 1, width)))
  if module.encoder is not None:
    side = module.encoder.image_size
    media = dict(mask=one, values=like((1, 1, 1, side, side, 3)))
  tokens, _, segments = TOKENS
  batch = dict(tokens=tokens, segments=segments, media=dict(image=media))
  return shapes_of(module, batch)


def rules(fields: Fields) -> Sequence[Rule]:
  """Of the Q-Former with its heads, and of the tower."""
  read = fields["qformer"]
  return [
    *blip2.stage1(read["num_layers"], read["cross_every"], fields["repeated"]),
    *prefixed(eva.lavis(), path="encoder/"),
  ]


def ignore(key: str, fields: Fields) -> bool:
  """Buffers."""
  del fields
  return any(p.fullmatch(key) for p in (eva.BUFFERS, qformer.BUFFERS))


def config(fields: Fields) -> dict[str, Any]:
  """What no tensor tells, for a file that is read again."""
  return lavis_settings.heads_of(fields["encoder"], fields["qformer"])
