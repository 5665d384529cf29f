"""What a run trained, under the names of the original PyTorch code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.cli import llava_run, x_instructblip_run
from mmjax.cli.shapes import TOKENS
from mmjax.config import lookup
from mmjax.convert.families.flamingo import open_flamingo
from mmjax.convert.families.lms import LM_RULES
from mmjax.convert.read import read_json
from mmjax.convert.rules import Rule, to_torch
from mmjax.convert.write import Writer
from mmjax.systems import SYSTEMS
from mmjax.training.sources import load_parts


def export_run(
  run: Path,
  target: Path,
  limit: int,
  layout: str | None = None,
  adapter: bool = False,
) -> None:
  """Writes the newest checkpoint of a run in its original's key layout.

  Frozen parts are not in a checkpoint, and stay where they came from; only a
  table that has new rows goes along with them.

  Args:
    run: directory of a run, with `config.json` and `checkpoints`.
    target: new directory, of safetensors.
    limit: bytes of a file.
    layout, adapter: of a LLaVA, see llava_run.
  """
  config = read_json(run / "config.json")
  if config.get("system") == "llava":
    llava_run.export(run, target, limit, layout, adapter)
    return
  if layout or adapter:
    raise ValueError("--layout and --adapter are for runs of LLaVA.")
  if config.get("system") == x_instructblip_run.FAMILY:
    x_instructblip_run.export(run, target, limit)
    return
  prepare = lookup(ORIGINALS, config.get("system"), "system to export")
  trained = tree.flatten(load_trainable(run / "checkpoints"))
  params, rules = prepare(config, trained)
  state = {key: np.asarray(value) for key, value in to_torch(params, rules)}
  entries = {key: (value.dtype, value.shape) for key, value in state.items()}
  writer = Writer(target, entries, {"format": "pt"}, limit)
  for key, value in state.items():
    writer.put(key, value)
  writer.close()


def _flamingo(
  config: dict[str, Any], trained: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Rule]]:
  """Parameters and rules of OpenFlamingo, which joins tables of tokens."""
  module = SYSTEMS["flamingo"].build(config["model"])
  family = config["model"]["lm"]["name"]
  lookup(LM_RULES, family, "language model with an original")
  lm = module.lm
  rules = open_flamingo(
    family, module.before, tied=lm.tie_embeddings, extra=lm.extra_tokens
  )
  return dict(trained) | _frozen_tables(config, lm, trained), rules


def _frozen_tables(
  config: dict[str, Any], lm: nn.Module, trained: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Tables of which only the new tokens' rows train, from their source."""
  tables = [
    path.removesuffix("extra") + "table"
    for path in trained
    if path.startswith("lm/") and path.endswith("/extra")
  ]
  tables = [path for path in tables if path not in trained]
  if not tables:
    return {}
  init = config.get("init", {})
  sources = {k: v for k, v in init.items() if k.split("/")[0] == "lm"}
  made = jax.eval_shape(lm.init, jax.random.key(0), *TOKENS)["params"]
  loaded = load_parts(sources, {"lm": nn.unbox(made)})
  if lost := [path for path in tables if path not in loaded]:
    raise ValueError(
      f"New rows of {', '.join(lost)} are trained, but config.init names no "
      "source of the others, which the original keeps in the same table."
    )
  return {path: np.asarray(loaded[path], np.float32) for path in tables}


# System to what its original is given: parameters, and rules for their names.
ORIGINALS = {"flamingo": _flamingo}
