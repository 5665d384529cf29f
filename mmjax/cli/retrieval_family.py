"""Hugging Face's `Blip2ForImageTextRetrieval` for `mmjax convert`.

BLIP-2's first stage as systems/blip2.py has it, tower and all, but for what
only its training needs: the head that writes captions, and the temperature. A
training begins with them drawn:

  config.init = dict(
    all=dict(
      name="converted", path=FOLDER, drawn="caption_head/.*|temperature"))
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.cli import blip2_family, instructblip_settings
from mmjax.convert.configs import size
from mmjax.convert.families import blip2
from mmjax.convert.rules import Rule

Fields = dict[str, Any]
ARCHITECTURE = "Blip2ForImageTextRetrieval"
_TRAINING = ("caption_head/", "temperature")
_SIZE = "image_text_hidden_size"
_JOINT = {_SIZE: 256}  # transformers' default.


def fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings off a config.json and the tensors' names and shapes."""
  encoder = instructblip_settings.encoder(config, weights)
  return dict(
    qformer=instructblip_settings.qformer(
      config, weights, encoder["width"], reads_text=True
    ),
    encoder=encoder,
    joint_width=size(_JOINT | config, _SIZE),
    features_norm_eps=encoder["norm_eps"],
  )


def shapes(fields: Fields) -> dict[str, tuple[int, ...]]:
  """Of all paths that the source fills."""
  made = blip2_family.shapes(fields)
  return {k: x for k, x in made.items() if not k.startswith(_TRAINING)}


def rules(fields: Fields) -> Sequence[Rule]:
  """Of the tower, the Q-Former and the heads that compare."""
  read, encoder = fields["qformer"], fields["encoder"]
  depth = (read["num_layers"], read["cross_every"])
  return blip2.retrieval(*depth, key_bias=encoder["key_bias"])


def config(fields: Fields) -> dict[str, Any]:
  """A config.json for `from_pretrained`."""
  made = instructblip_settings.parts_of_config(
    fields["encoder"], fields["qformer"], "blip_2"
  )
  made["qformer_config"]["use_qformer_text_input"] = True
  return made | {
    "model_type": "blip-2",
    "architectures": [ARCHITECTURE],
    _SIZE: fields["joint_width"],
  }
