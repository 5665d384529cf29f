"""The files beside a LLaVA's weights that Hugging Face's processor needs.

A folder that came from there has them. For one that came from LLaVA's own code
they are written: how pictures are brought to size, how many tokens stand for
one, and the tokenizer with the token of an image.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.cli.llava_layouts import IMAGE, PAD
from mmjax.convert.read import read_json
from mmjax.encoders.vit import ViT
from mmjax.text import folders

_LOG = logging.getLogger(__name__)
PICTURES, PROCESSOR = "preprocessor_config.json", "processor_config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_BICUBIC = 3


def write_processor(folder: Path, pad: bool) -> None:
  """Writes what is not there yet of a folder of Hugging Face's LLaVA.

  Args:
    folder: with a config.json; of another model, nothing is done.
    pad: pictures are padded to a square, and not cropped to one.
  """
  config = read_json(folder / "config.json")
  if "LlavaForConditionalGeneration" not in config.get("architectures", ()):
    return
  vision = config["vision_config"]
  if not (folder / PICTURES).is_file():
    _write(folder / PICTURES, _pictures(vision["image_size"], pad))
  if not (folder / PROCESSOR).is_file():
    _write(folder / PROCESSOR, _processor(config))
  if any((folder / name).is_file() for name in _TOKENIZERS):
    _add_token(folder, config["image_token_index"])
  else:
    _LOG.warning(
      "There was no tokenizer beside the weights, so there is none in %s.",
      folder.name.strip(".").removesuffix(".part"),
    )


def _pictures(side: int, pad: bool) -> dict[str, Any]:
  """As `llava/mm_utils.py` brings pictures to size."""
  made = dict(
    do_convert_rgb=True,
    do_resize=True,
    size=dict(shortest_edge=side),
    resample=_BICUBIC,
    do_center_crop=True,
    crop_size=dict(height=side, width=side),
    do_rescale=True,
    rescale_factor=1 / 255,
    do_normalize=True,
    image_mean=list(ViT.mean),
    image_std=list(ViT.std),
    processor_class="LlavaProcessor",
  )
  if pad:
    return made | dict(image_processor_type="LlavaImageProcessor", do_pad=True)
  return made | dict(image_processor_type="CLIPImageProcessor")


def _processor(config: Mapping[str, Any]) -> dict[str, Any]:
  return dict(
    processor_class="LlavaProcessor",
    image_token=IMAGE,
    patch_size=config["vision_config"]["patch_size"],
    vision_feature_select_strategy=config["vision_feature_select_strategy"],
    # The class token, which the strategy "default" takes off again.
    num_additional_image_tokens=1,
  )


def _add_token(folder: Path, image: int) -> None:
  """Gives the tokenizer the token of an image, at the id that is free."""
  backend = folders.read(folder)
  known = backend.token_to_id(IMAGE)
  if known is None:
    backend.add_special_tokens([IMAGE, PAD])
    known = backend.token_to_id(IMAGE)
    backend.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    settings |= dict(
      # Takes tokenizer.json as it is.
      tokenizer_class="PreTrainedTokenizerFast",
      pad_token=PAD,
      image_token=IMAGE,
    )
    settings.pop("added_tokens_decoder", None)
    _write(path, settings)
  if known != image:
    raise ValueError(
      f"The tokenizer's {IMAGE} has the id {known}, the model's {image}: their "
      "vocabularies are not of one size. Is it the checkpoint's own tokenizer?"
    )


def _write(path: Path, content: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2) + "\n")
