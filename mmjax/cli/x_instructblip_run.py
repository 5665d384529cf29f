"""The connectors of a run as LAVIS' file of X-InstructBLIP."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.cli.families import FAMILIES
from mmjax.cli.writing import write_model
from mmjax.config import lookup
from mmjax.connectors.qformer import QFormer
from mmjax.convert.families.x_instructblip import MODALITIES
from mmjax.convert.read import read_json
from mmjax.data import build as data

log = logging.getLogger(__name__)

FAMILY = "x_instructblip"
_CONNECTORS = "connectors_"
_KNOWN = dict.fromkeys(("pooled_projection", "qformer"))


def export(run: Path, target: Path, limit: int) -> None:
  """Writes the connectors of a run's newest checkpoint, of all its kinds.

  Encoders and the language model are in files of their own there: what else
  trained is named in the log, and stays behind.

  Args:
    run: directory of the run.
    target: new directory.
    limit: bytes of a file.

  Raises:
    ValueError: for kinds or connectors that LAVIS has not, or a connector of
      which a part was frozen.
  """
  config = data.plain(read_json(run / "config.json"))
  fields = fields_of(config["model"])
  trained = tree.flatten(load_trainable(run / "checkpoints"))
  family = FAMILIES[FAMILY]
  wanted = family.shapes(fields)
  if missing := [path for path in wanted if path not in trained]:
    raise ValueError(
      f"{run} has not trained {', '.join(missing[:3])} and so on "
      f"({len(missing)} of {len(wanted)} arrays of its connectors): a "
      "checkpoint holds what trained, LAVIS' file whole connectors."
    )
  others = {path.split("/")[0] for path in trained if path not in wanted}
  if others:
    log.warning(
      "%s trained, too; LAVIS' file holds connectors alone.", sorted(others)
    )
  arrays = {path: trained[path] for path in wanted}
  write_model(target, family, fields, arrays, limit=limit)


def fields_of(model: Mapping[str, Any]) -> dict[str, Any]:
  """A run's connectors as `mmjax convert` describes them."""
  media = {}
  for kind, entry in model["media"].items():
    lookup(dict.fromkeys(MODALITIES.values()), kind, "kind of media of LAVIS")
    connector = dict(entry["connector"])
    lookup(_KNOWN, connector["name"], "connector of LAVIS")
    if connector["name"] == "qformer":
      connector["qformer"] = _whole(connector["qformer"])
    media[kind] = dict(connector=connector)
  return dict(media=media)


def _whole(given: Mapping[str, Any]) -> dict[str, Any]:
  """A Q-Former's settings, with those that a config leaves out."""
  own = {
    field.name: field.default
    for field in dataclasses.fields(QFormer)
    if field.default is not dataclasses.MISSING
    and field.name not in ("parent", "name", "dtype")
  }
  return own | dict(given)
