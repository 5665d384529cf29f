"""What a run trained, under the names of the original PyTorch code."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax.cli import (
  blip2_run,
  instructblip_run,
  llava_run,
  x_instructblip_run,
)
from mmjax.cli.llava_family import HUGGING_FACE, ORIGINAL
from mmjax.cli.shapes import TOKENS
from mmjax.cli.whole_run import config_of, trained_by
from mmjax.config import lookup
from mmjax.convert.families.flamingo import open_flamingo
from mmjax.convert.families.lms import LM_RULES
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
  """Writes the newest checkpoint of a run under its original's names.

  Args:
    run: directory of a run, with `config.json` and `checkpoints`.
    target: new directory, of safetensors.
    limit: bytes of a file.
    layout: of those of EXPORTS for the run's system; None is the first.
    adapter: of a LLaVA with LoRA, see llava_run.

  Raises:
    ValueError: for a system or a layout that is not known.
  """
  config = config_of(run)
  system = config.get("system")
  layouts = lookup(EXPORTS, system, "system to export")
  if adapter:
    if system != "llava":
      raise ValueError(f"--adapter is for runs of LLaVA, not of {system}.")
    llava_run.write_adapter(config, trained_by(run), target)
    return
  name = layout or next(iter(layouts))
  write = lookup(layouts, name, f"layout that {system} is exported in")
  write(run, target, limit)


def _open_flamingo(run: Path, target: Path, limit: int) -> None:
  """Frozen parts stay where they came from.

  They are not in a checkpoint; only a table that has new rows goes along.
  """
  params, rules = _flamingo(config_of(run), trained_by(run))
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


# System to the layouts of its runs, each (run, target, limit); the first is
# taken where none is named.
EXPORTS = {
  "blip2": {ORIGINAL: blip2_run.export},
  "flamingo": {ORIGINAL: _open_flamingo},
  "llava": {
    layout: functools.partial(llava_run.export, layout=layout)
    for layout in (HUGGING_FACE, ORIGINAL)
  },
  "x_instructblip": {
    ORIGINAL: x_instructblip_run.export,
    HUGGING_FACE: instructblip_run.export,
  },
}
