"""The connectors of a run as LAVIS' file of X-InstructBLIP."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.cli.families import FAMILIES
from mmjax.cli.whole_run import config_of, only, trained_by
from mmjax.cli.writing import write_model
from mmjax.config import lookup
from mmjax.connectors.qformer import QFormer
from mmjax.convert.families.x_instructblip import MODALITIES

FAMILY = "x_instructblip"
_CONNECTORS = "connectors_"
_KNOWN = dict.fromkeys(("pooled_projection", "qformer"))


def export(run: Path, target: Path, limit: int) -> None:
  """Writes the connectors of a run's newest checkpoint, of all its kinds.

  Encoders and the language model are in files of their own there.

  Args:
    run: directory of the run.
    target: new directory.
    limit: bytes of a file.

  Raises:
    ValueError: for kinds or connectors that LAVIS has not, or a connector of
      which a part was frozen.
  """
  fields, trained = fields_of(config_of(run)["model"]), trained_by(run)
  family = FAMILIES[FAMILY]
  arrays = only(family.shapes(fields), trained, run)
  write_model(target, family, fields, arrays, limit=limit)


def fields_of(model: Mapping[str, Any]) -> dict[str, Any]:
  """A run's connectors as `mmjax convert` describes them."""
  media = {}
  for kind, entry in model["media"].items():
    lookup(dict.fromkeys(MODALITIES.values()), kind, "kind of media of LAVIS")
    lookup(_KNOWN, entry["connector"]["name"], "connector of LAVIS")
    media[kind] = dict(connector=whole_connector(entry["connector"]))
  return dict(media=media)


def whole_connector(given: Mapping[str, Any]) -> dict[str, Any]:
  """A connector's settings, with those that a config leaves out."""
  if given["name"] != "qformer":
    return dict(given)
  return dict(given) | dict(qformer=whole_qformer(given["qformer"]))


def whole_qformer(given: Mapping[str, Any]) -> dict[str, Any]:
  """The same of a Q-Former."""
  own = {
    field.name: field.default
    for field in dataclasses.fields(QFormer)
    if field.default is not dataclasses.MISSING
    and field.name not in ("parent", "name", "dtype")
  }
  return own | dict(given)
