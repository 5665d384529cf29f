"""BLIP-2 and InstructBLIP for `mmjax convert`, Hugging Face's and LAVIS'.

Settings are those of systems/x_instructblip.py's parts (`lm`, `encoders` and
`media`), with the `layout` of the source and the id of the places of media.
Hugging Face's folders are whole. LAVIS' files hold what was trained, and some
the tower; the language model is a folder of its own there.

Hugging Face's models have one eps for the tower's norms and for the norm behind
it, published as 1e-6; LAVIS has 1e-5 for the last. Ours is a field of the
connector, and what a layout cannot say is warned of.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.cli import instructblip_settings, lavis_settings
from mmjax.cli.shapes import TOKENS, like, shapes_of
from mmjax.config import build
from mmjax.connectors import CONNECTORS
from mmjax.convert.families import eva, instructblip, lms, qformer
from mmjax.convert.families.instructblip import ENCODER, PROJECTIONS
from mmjax.convert.rules import Rule
from mmjax.encoders import ENCODERS
from mmjax.lms import LMS

Fields = dict[str, Any]
_LOG = logging.getLogger(__name__)
HUGGING_FACE, ORIGINAL = "hf", "original"
_KEY_BIAS = f"encoders_{ENCODER}/layers/attention/key/bias"
_LAVIS_EPS = 1e-5


def fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings off a config.json and the tensors' names and shapes."""
  if any(key.startswith("Qformer.") for key in weights):
    return _original(config, weights)
  settings = instructblip_settings.fields(config, weights)
  return dict(layout=HUGGING_FACE) | settings


def _original(config: Mapping[str, Any], weights: Mapping) -> Fields:
  heads = {key.split(".")[0] for key in weights}
  if "t5_proj" in heads:
    raise ValueError(
      "The language model is T5 (the file has t5_proj); known: "
      f"{', '.join(PROJECTIONS)}."
    )
  projection = next((p for p in PROJECTIONS.values() if p in heads), None)
  if projection is None:
    raise ValueError(
      f"There is no {' or '.join(PROJECTIONS.values())}. The file of BLIP-2's "
      "first stage is of --family blip2."
    )
  encoders = {}
  if "visual_encoder" in heads:
    encoders[ENCODER] = dict(name="vit") | lavis_settings.eva(config, weights)
  width = weights.shape(f"{projection}.bias")[0]
  connector = dict(
    name="qformer",
    width=width,
    features_norm_eps=_LAVIS_EPS,
    qformer=lavis_settings.qformer(config, weights),
  )
  return dict(
    layout=ORIGINAL,
    lm=None,
    encoders=encoders,
    media={
      "image": dict(connector=connector, encoder=ENCODER if encoders else None)
    },
    projection=projection,
  )


def shapes(fields: Fields) -> dict[str, tuple[int, ...]]:
  """Of all paths that the source fills; see systems/x_instructblip.py."""
  found: dict[str, tuple[int, ...]] = {}
  for name, entry in fields["encoders"].items():
    side = entry["image_size"]
    made = shapes_of(build(ENCODERS, entry), like((1, side, side, 3)))
    found |= {f"encoders_{name}/{path}": shape for path, shape in made.items()}
  found |= of_connectors(fields["media"])
  if fields["lm"]:
    made = shapes_of(build(LMS, fields["lm"]), *TOKENS)
    found |= {f"lm/{path}": shape for path, shape in made.items()}
  return found


def of_connectors(media: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Shapes of the connectors of all kinds of media."""
  found = {}
  for kind, entry in media.items():
    connector = build(CONNECTORS, entry["connector"])
    features = like((1, 1, 1, 1, connector.features_width))
    made = shapes_of(connector, features)
    found |= {
      f"connectors_{kind}/{path}": shape for path, shape in made.items()
    }
  return found


def _parts(fields: Fields) -> tuple[str, Fields, Fields | None]:
  """The kind of media, its connector and its encoder."""
  ((kind, entry),) = fields["media"].items()
  return kind, entry["connector"], fields["encoders"].get(ENCODER)


def rules(fields: Fields) -> Sequence[Rule]:
  """Of the layout; those of parts that are not there are left out."""
  kind, connector, encoder = _parts(fields)
  reader = connector["qformer"]
  depth = (reader["num_layers"], reader["cross_every"])
  if fields["layout"] == ORIGINAL:
    return instructblip.lavis(kind, *depth, fields["projection"])
  name = fields["lm"]["name"]
  return instructblip.hugging_face(
    kind,
    name,
    lms.tied(name, fields["lm"]),
    *depth,
    instructed=bool(reader["vocab_size"]),
    key_bias=encoder["key_bias"],
  )


def ignore(key: str, fields: Fields) -> bool:
  """Buffers."""
  del fields
  return any(p.fullmatch(key) for p in (eva.BUFFERS, qformer.BUFFERS)) or (
    lms.is_buffer(key)
  )


def copies(fields: Fields) -> dict[str, str]:
  """A tied head repeats the table of embeddings, under any of its names."""
  lm = fields["lm"]
  return (
    lms.nested_copies(lm["name"]) if lm and lms.tied(lm["name"], lm) else {}
  )


def to_layout(
  fields: Mapping[str, Any], arrays: Mapping[str, Any], layout: str
) -> tuple[Fields, dict[str, Any]]:
  """Settings and arrays as a layout has them.

  Raises:
    ValueError: for what the layout cannot hold.
  """
  fields, arrays = dict(fields), dict(arrays)
  _, connector, encoder = _parts(fields)
  eps = connector["features_norm_eps"]
  if layout == HUGGING_FACE:
    if fields["layout"] == ORIGINAL:
      raise ValueError(
        "Hugging Face's models are whole; LAVIS' files have no language model. "
        "Write --layout original."
      )
    _warn_of_eps(eps, encoder["norm_eps"], "Hugging Face's model")
    return fields, arrays
  _warn_of_eps(eps, _LAVIS_EPS, "LAVIS")
  if fields["layout"] == HUGGING_FACE:
    _LOG.warning("LAVIS has the language model in a folder of its own.")
    arrays = {k: x for k, x in arrays.items() if not k.startswith("lm/")}
    name = PROJECTIONS.get(fields["lm"]["name"], "llm_proj")
    fields |= dict(layout=ORIGINAL, lm=None, projection=name)
  if (bias := arrays.pop(_KEY_BIAS, None)) is not None and np.any(bias):
    raise ValueError(
      "The tower's keys have a bias with numbers up to "
      f"{np.abs(np.asarray(bias, np.float64)).max():g}; LAVIS' have none. "
      "Write --layout hf."
    )
  return fields, arrays


def _warn_of_eps(ours: float, theirs: float, who: str) -> None:
  if ours != theirs:
    _LOG.warning(
      "The norm behind the tower has the eps %g; %s takes %g.",
      ours,
      who,
      theirs,
    )


def config(fields: Fields) -> dict[str, Any]:
  """A config.json of the layout; of LAVIS', what no tensor tells."""
  if fields["layout"] == HUGGING_FACE:
    return instructblip_settings.config(fields)
  _, connector, encoder = _parts(fields)
  return lavis_settings.heads_of(encoder, connector["qformer"])
