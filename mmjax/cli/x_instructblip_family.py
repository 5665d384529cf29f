"""LAVIS' files of X-InstructBLIP's connectors, for `mmjax convert`.

A released file holds the connector of one modality, a Q-Former or the linear
projection; one of several is read likewise. Encoders and the language model
come from files of their own. LAVIS reads such files by parts of names and lets
what is missing stay random; here every name must fit.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.cli import instructblip_family, lavis_settings
from mmjax.cli.shapes import require
from mmjax.convert.families import qformer
from mmjax.convert.families import x_instructblip as names
from mmjax.convert.rules import Rule, prefixed

Fields = dict[str, Any]
_LAVIS_EPS = 1e-5
_FROZEN = re.compile(rf"(({'|'.join(names.MODALITIES)})_encoder|llm_model)\..*")


def fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings off the tensors' names and shapes, by kind of medium."""
  matrix = re.compile(rf"({'|'.join(names.MODALITIES)})_llm_proj\.weight")
  found = [m[1] for key in weights if (m := matrix.fullmatch(key))]
  if not found:
    raise ValueError(
      "There is no connector: expected names such as audio_llm_proj.weight (of "
      f"{', '.join(names.MODALITIES)}), got such as {list(weights)[:3]}."
    )
  media = {
    names.MODALITIES[m]: dict(connector=_connector(config, weights, m))
    for m in found
  }
  return dict(media=media)


def _connector(
  config: Mapping[str, Any], weights: Mapping, modality: str
) -> Fields:
  ((width, inner),) = require(weights, {f"{modality}_llm_proj.weight": 2})
  common = dict(width=width, features_norm_eps=_LAVIS_EPS)
  pooled = f"{modality}_projection.weight"
  if pooled in weights:
    ((rows, features),) = require(weights, {pooled: 2})
    sizes = dict(
      inner=inner, num_queries=rows // inner, features_width=features
    )
    return common | dict(name="pooled_projection") | sizes
  read = lavis_settings.qformer(config, weights, f"{modality}_")
  return common | dict(name="qformer", qformer=read)


def shapes(fields: Fields) -> dict[str, tuple[int, ...]]:
  """Of all paths that the source fills; see systems/x_instructblip.py."""
  return instructblip_family.of_connectors(fields["media"])


def rules(fields: Fields) -> Sequence[Rule]:
  """Of each connector, for names of its modality."""
  theirs = {kind: name for name, kind in names.MODALITIES.items()}
  found: list[Rule] = []
  for kind, entry in fields["media"].items():
    connector, modality = entry["connector"], theirs[kind]
    if connector["name"] == "pooled_projection":
      own = names.pooled_projection(modality)
    else:
      read = connector["qformer"]
      depth = (read["num_layers"], read["cross_every"])
      own = names.connector(modality, *depth)
    found += prefixed(own, path=f"connectors_{kind}/")
  return found


def ignore(key: str, fields: Fields) -> bool:
  """Buffers, and what is frozen: some of LAVIS' runners save that as well."""
  del fields
  known = (qformer.BUFFERS, _FROZEN)
  return any(pattern.fullmatch(key) for pattern in known)


def config(fields: Fields) -> dict[str, Any]:
  """What no tensor tells, for a file that is read again."""
  told = [
    lavis_settings.heads_of(None, entry["connector"]["qformer"])
    for entry in fields["media"].values()
    if entry["connector"]["name"] == "qformer"
  ]
  return told[0] if told else {}
