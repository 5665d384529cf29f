"""A run of BLIP-2 or InstructBLIP as a whole model of Hugging Face."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.cli.families import FAMILIES
from mmjax.cli.instructblip_family import HUGGING_FACE
from mmjax.cli.whole_run import (
  complete,
  config_of,
  language_model,
  take_companions,
  trained_by,
)
from mmjax.cli.writing import write_model
from mmjax.cli.x_instructblip_run import whole_connector
from mmjax.config import lookup
from mmjax.convert.families.instructblip import ENCODER, PROJECTIONS
from mmjax.convert.read import read_json
from mmjax.encoders.vit import ViT
from mmjax.systems import x_instructblip
from mmjax.systems.x_instructblip import XInstructBlip

log = logging.getLogger(__name__)

# Of a ViT: what a tower of Hugging Face may choose, and what it cannot.
_CHOSEN = (
  "width",
  "num_layers",
  "num_heads",
  "patch",
  "image_size",
  "activation",
  "qkv_bias",
  "key_bias",
  "norm_eps",
)
_FIXED = dict(
  keep_class_token=True, patch_bias=True, pre_norm=False, post_norm=False
)


def export(run: Path, target: Path, limit: int) -> None:
  """Writes the newest checkpoint of a run, with all that was frozen.

  Args:
    run: directory of a run that reads one kind of media, images or video.
    target: new directory, for `from_pretrained` of Blip2, InstructBlip or
      InstructBlipVideo.
    limit: bytes of a file.

  Raises:
    ValueError: for parts that these models have not, or whose weights the
      run's config does not name.
  """
  config = config_of(run)
  fields, encoder = fields_of(config)
  module = x_instructblip.build(config["model"])
  arrays = complete(config, module, trained_by(run))
  theirs = f"encoders_{ENCODER}/"
  arrays = {
    path.replace(f"encoders_{encoder}/", theirs, 1): value
    for path, value in arrays.items()
  }
  family = FAMILIES["instructblip"]
  write_model(target, family, fields, arrays, layout=HUGGING_FACE, limit=limit)
  take_companions(config, target)


def fields_of(config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
  """A run's model as `mmjax convert` describes one, and its encoder's name."""
  model = config["model"]
  module = x_instructblip.build(model)
  kind = _kind(module)
  entry = dict(model["media"][kind])
  lookup(dict.fromkeys(["qformer"]), entry["connector"]["name"], "connector")
  lookup(PROJECTIONS, model["lm"]["name"], "language model of these classes")
  connector = whole_connector(entry["connector"]) | dict(
    features_norm_eps=module.connectors[kind].features_norm_eps
  )
  fields = dict(
    layout=HUGGING_FACE,
    lm=language_model(model["lm"]),
    encoders={ENCODER: _tower(module, kind)},
    media={kind: dict(encoder=ENCODER, connector=connector)},
    media_token=_media_token(config),
  )
  return fields, module.reads[kind]


def _kind(module: XInstructBlip) -> str:
  """The one that the run reads."""
  if module.kinds in (("image",), ("video",)) and module.reads:
    return module.kinds[0]
  raise ValueError(
    "Hugging Face's models read images or video, one of them, through an "
    f"encoder; the run reads {' and '.join(module.kinds)}. Leave out --layout "
    "hf to write its connectors as LAVIS has them."
  )


def _tower(module: XInstructBlip, kind: str) -> dict[str, Any]:
  encoder = module.encoders[module.reads[kind]]
  if not isinstance(encoder, ViT):
    raise ValueError(
      f"The run's encoder is {type(encoder).__name__}; Hugging Face's models "
      "have EVA's ViT. Leave out --layout hf to write the connectors alone."
    )
  own = {name: getattr(encoder, name) for name in _FIXED}
  if own != _FIXED:
    raise ValueError(
      f"The run's ViT has {own}; Hugging Face's models have {_FIXED}."
    )
  chosen = {name: getattr(encoder, name) for name in _CHOSEN}
  hidden = encoder.hidden or 4 * encoder.width
  return dict(name="vit", hidden=hidden, **own, **chosen)


def _media_token(config: Mapping[str, Any]) -> int | None:
  """The id at the places of media, as the folder knew it that the run is of."""
  named = [source.get("path") for source in config.get("init", {}).values()]
  for folder in filter(None, named):
    path = Path(folder) / "config.json"
    own = read_json(path).get("model", {}) if path.is_file() else {}
    if own.get("media_token") is not None:
      return own["media_token"]
  log.warning(
    "No folder in config.init tells which token stands at the places of media: "
    "config.json names none, and transformers 5 wants one, as in "
    "image_token_index."
  )
  return None
