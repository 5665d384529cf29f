"""A LLaVA run as a model of Hugging Face, of LLaVA's own, or as an adapter."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from safetensors.numpy import save_file

from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.cli.families import FAMILIES
from mmjax.cli.llava_family import HUGGING_FACE
from mmjax.cli.llava_processor import write_processor
from mmjax.cli.writing import take_along, write_model
from mmjax.config import call
from mmjax.convert.families.llava import hugging_face
from mmjax.convert.families.lms import tied
from mmjax.data import build as data
from mmjax.encoders.vit import ViT
from mmjax.layers.linear import Lora, merge_lora
from mmjax.systems import llava
from mmjax.training.sources import load_parts, make_tokenizer
from mmjax.training.state import abstract_params

log = logging.getLogger(__name__)

# Settings of a language model that say how it is run, not what it is.
_RUNNING = ("attention", "embed_std", "extra_tokens", "lora", "name", "remat")
_PROJECTIONS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"


def export(
  run: Path, target: Path, limit: int, layout: str | None, adapter: bool
) -> None:
  """Writes the newest checkpoint of a run, with all that was frozen.

  Args:
    run: directory of the run.
    target: new directory.
    limit: bytes of a file.
    layout: "hf" (also None) or "original".
    adapter: writes only what was trained, for PEFT.

  Raises:
    ValueError: for parts that neither layout knows, or whose weights the run's
      config does not name.
  """
  config = data.plain(json.loads((run / "config.json").read_text()))
  trained = tree.flatten(load_trainable(run / "checkpoints"))
  if adapter:
    write_adapter(config, trained, target)
    return
  fields = fields_of(config)
  arrays = _merged(_complete(config, trained), config)
  write_model(
    target,
    FAMILIES["llava"],
    fields,
    arrays,
    layout=layout or HUGGING_FACE,
    limit=limit,
  )
  _take_companions(config, target)
  write_processor(target, pad=fields["aspect"] == "pad")


def fields_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """A run's model as `mmjax convert` describes one; see llava_family."""
  model = config["model"]
  module = llava.build(model)
  encoder, lm = module.encoder, dict(model["lm"])
  if not isinstance(encoder, ViT):
    raise ValueError(
      f"The run's encoder is {type(encoder).__name__}; LLaVA's layouts have "
      "CLIP's ViT only. The language model alone can be exported by its family."
    )
  if lm.get("extra_tokens"):
    raise ValueError(
      "New tokens in a table of their own have no place in LLaVA's layouts: "
      "raise config.model.lm.vocab_size in place of extra_tokens."
    )
  first = next(iter(config["data"]["datasets"].values()))
  image = first["prompt"].get("image")
  tokenizer = make_tokenizer(config["tokenizer"]) if image else None
  kept = {k: v for k, v in lm.items() if k not in _RUNNING}
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
    lm=dict(name=lm["name"], **kept),
    image_token=tokenizer.id(image) if tokenizer else None,
    aspect="pad" if _expands(first) else "square",
  )


def _expands(dataset: Mapping[str, Any]) -> bool:
  return any(t["name"] == "expand" for t in dataset.get("transforms", ()))


def _complete(
  config: Mapping[str, Any], trained: Mapping[str, Any]
) -> dict[str, Any]:
  """Trained parameters, and frozen ones from where the run had them."""
  module = llava.build(config["model"])
  example = data.abstract_batch(next(iter(config["data"]["datasets"].values())))
  shapes = nn.unbox(abstract_params(module, example))
  found = load_parts(config.get("init", {}), shapes) | dict(trained)
  lost = [path for path in tree.flatten(shapes) if path not in found]
  if lost:
    raise ValueError(
      f"{len(lost)} parameters of the run were frozen as they were drawn, such "
      f"as {lost[0]}: config.init names no source for them."
    )
  return found


def _merged(
  arrays: dict[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
  """Without low-rank updates, which are folded into their matrices."""
  for path in [p for p in arrays if p.endswith("/lora_a")]:
    head = path.removesuffix("lora_a")
    names = ("kernel", "lora_a", "lora_b")
    parts = {name: arrays.pop(head + name) for name in names}
    arrays[f"{head}kernel"] = Merged(parts, _lora(config).scale)
  return arrays


class Merged:
  """A stack of matrices with their updates, of which one is held at a time."""

  def __init__(self, parts: Mapping[str, Any], scale: float):
    self._parts, self._scale = parts, scale
    self.shape, self.dtype = parts["kernel"].shape, np.dtype(np.float32)

  def __getitem__(self, row: int) -> np.ndarray:
    own = {k: np.asarray(x[row], np.float32) for k, x in self._parts.items()}
    return np.asarray(merge_lora(own, self._scale)["kernel"])


def _lora(config: Mapping[str, Any]) -> Lora:
  return call(Lora, config["model"]["lm"]["lora"])


def _take_companions(config: Mapping[str, Any], target: Path) -> None:
  """Files of the folders that the run's weights and tokenizer came from."""
  named = [source.get("path") for source in config.get("init", {}).values()]
  for path in filter(None, [*named, config["tokenizer"].get("path")]):
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    take_along(folder, target)


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
  content = json.dumps(_adapter_config(_lora(config)), indent=2)
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
