"""What a run trained, under the names of the original PyTorch code."""

from pathlib import Path
from typing import Any

import numpy as np

from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.config import lookup
from mmjax.convert.families.flamingo import open_flamingo
from mmjax.convert.families.lms import LM_RULES
from mmjax.convert.read import read_json
from mmjax.convert.rules import Rule, to_torch
from mmjax.convert.write import Writer
from mmjax.systems import SYSTEMS


def export_run(run: Path, target: Path, limit: int) -> None:
  """Writes the newest checkpoint of a run in its original's key layout.

  Frozen parts are not in a checkpoint, and stay where they came from.

  Args:
    run: directory of a run, with `config.json` and `checkpoints`.
    target: new directory, of safetensors.
    limit: bytes of a file.
  """
  config = read_json(run / "config.json")
  rules = lookup(RULES, config.get("system"), "system to export")(config)
  params = tree.flatten(load_trainable(run / "checkpoints"))
  state = {key: np.asarray(value) for key, value in to_torch(params, rules)}
  entries = {key: (value.dtype, value.shape) for key, value in state.items()}
  writer = Writer(target, entries, {"format": "pt"}, limit)
  for key, value in state.items():
    writer.put(key, value)
  writer.close()


def _flamingo(config: dict[str, Any]) -> list[Rule]:
  module = SYSTEMS["flamingo"].build(config["model"])
  family = config["model"]["lm"]["name"]
  lookup(LM_RULES, family, "language model with an original")
  lm = module.lm
  return open_flamingo(
    family, module.before, tied=lm.tie_embeddings, extra=lm.extra_tokens
  )


# System to the rules of its original.
RULES = {"flamingo": _flamingo}
