"""A LLaVA run as a model of Hugging Face, of LLaVA's own, or as an adapter."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mmjax.cli.families import FAMILIES
from mmjax.cli.llava_family import HUGGING_FACE
from mmjax.cli.llava_processor import write_processor
from mmjax.cli.whole_run import (
  complete,
  config_of,
  language_model,
  lora_of,
  take_companions,
  trained_by,
)
from mmjax.cli.writing import write_model
from mmjax.convert.families.llava import hugging_face
from mmjax.convert.families.lms import tied
from mmjax.encoders.vit import ViT
from mmjax.layers.linear import Lora
from mmjax.systems import llava
from mmjax.training.sources import make_tokenizer

log = logging.getLogger(__name__)

_PROJECTIONS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"


def export(run: Path, target: Path, limit: int, layout: str) -> None:
  """Writes the newest checkpoint of a run, with all that was frozen.

  Args:
    run: directory of the run.
    target: new directory.
    limit: bytes of a file.
    layout: "hf" or "original".

  Raises:
    ValueError: for parts that neither layout knows, or whose weights the run's
      config does not name.
  """
  config = config_of(run)
  fields = fields_of(config)
  arrays = complete(config, llava.build(config["model"]), trained_by(run))
  write_model(
    target,
    FAMILIES["llava"],
    fields,
    arrays,
    layout=layout,
    limit=limit,
  )
  take_companions(config, target)
  write_processor(target, pad=fields["aspect"] == "pad")


def fields_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """A run's model as `mmjax convert` describes one; see llava_family."""
  model = config["model"]
  module = llava.build(model)
  encoder = module.encoder
  if not isinstance(encoder, ViT):
    raise ValueError(
      f"The run's encoder is {type(encoder).__name__}; LLaVA's layouts have "
      "CLIP's ViT only. The language model alone can be exported by its family."
    )
  first = next(iter(config["data"]["datasets"].values()))
  image = first["prompt"].get("image")
  tokenizer = make_tokenizer(config["tokenizer"]) if image else None
  names = ("width", "num_layers", "num_heads", "patch", "image_size")
  more = ("activation", "norm_eps", "output_layer", "keep_class_token")
  connector = module.connector
  return dict(
    layout=HUGGING_FACE,
    features=encoder.width,
    encoder=dict(
      {name: getattr(encoder, name) for name in (*names, *more)},
      hidden=encoder.hidden or 4 * encoder.width,
    ),
    connector=dict(
      width=connector.width,
      depth=connector.depth,
      activation=connector.activation,
      use_bias=connector.use_bias,
    ),
    lm=language_model(model["lm"]),
    image_token=tokenizer.id(image) if tokenizer else None,
    aspect="pad" if _expands(first) else "square",
  )


def _expands(dataset: Mapping[str, Any]) -> bool:
  return any(t["name"] == "expand" for t in dataset.get("transforms", ()))


def write_adapter(
  config: Mapping[str, Any], trained: Mapping[str, Any], target: Path
) -> None:
  """What a LoRA run trained, as PEFT reads it on top of Hugging Face's model.

  Names are those of transformers 4.52 and later. The projector was trained as
  a whole, and stands in `modules_to_save`.

  Raises:
    ValueError: for a run without LoRA, or that trained more of the language
      model than it.
  """
  lm = config["model"]["lm"]
  if not lm.get("lora"):
    raise ValueError(
      "The run has no LoRA (config.model.lm.lora): it has no adapter. Leave "
      "out --adapter to export the whole model."
    )
  if config["model"]["connector"].get("depth", 2) != 2:
    raise ValueError(
      "Hugging Face's projector has two linear layers, the run's "
      f"{config['model']['connector']['depth']}. Export the whole model."
    )
  rules = hugging_face(lm["name"], tied(lm["name"], lm))
  names = {path: rule.name for rule in rules for path in rule.paths}
  state: dict[str, np.ndarray] = {}
  for path, value in trained.items():
    state |= _adapted(path, np.asarray(value), names)
  target.mkdir(parents=True)
  save_file(state, target / "adapter_model.safetensors", {"format": "pt"})
  content = json.dumps(_adapter_config(lora_of(lm)), indent=2)
  (target / "adapter_config.json").write_text(content + "\n")


def _adapted(
  path: str, value: np.ndarray, names: Mapping[str, str]
) -> dict[str, np.ndarray]:
  """A trained array under PEFT's names."""
  head, _, name = path.rpartition("/")
  if path.startswith("connector/"):
    matrix = value.T if name == "kernel" else value
    return {f"base_model.model.model.{names[path]}": _contiguous(matrix)}
  if name not in ("lora_a", "lora_b"):
    raise ValueError(
      f"The run trained {path}, which no adapter holds. Leave out --adapter to "
      "export the whole model."
    )
  theirs = names[f"{head}/kernel"].removesuffix(".weight")
  theirs = re.sub(r"^language_model\.model\.", "model.language_model.", theirs)
  found = {}
  for i, row in enumerate(value):
    layer = theirs.replace("{layer}", str(i))
    last = name == "lora_a"
    flat = row.reshape(-1, row.shape[-1]) if last else row.reshape(len(row), -1)
    key = f"base_model.model.{layer}.lora_{'A' if last else 'B'}.weight"
    found[key] = _contiguous(flat.T)
  return found


def _contiguous(value: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(value)


def _adapter_config(lora: Lora) -> dict[str, Any]:
  return dict(
    peft_type="LORA",
    task_type="CAUSAL_LM",
    base_model_name_or_path=None,
    r=lora.rank,
    lora_alpha=lora.alpha,
    lora_dropout=lora.dropout,
    bias="none",
    fan_in_fan_out=False,
    inference_mode=True,
    # Of the language model: the vision tower's layers have the same names.
    target_modules=rf".*language_model.*\.({_PROJECTIONS})",
    modules_to_save=["multi_modal_projector"],
  )
