"""The directory of a run as training leaves it, without the training."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import orbax.checkpoint as ocp

from mmjax.checkpoints import checksums


def leave(folder: Path, config: dict[str, Any], trained: Any) -> None:
  """A config and a checkpoint of step 7 in a folder that is there."""
  (folder / "config.json").write_text(json.dumps(config))
  with ocp.CheckpointManager(folder / "checkpoints") as manager:
    saved = {"trainable": trained, "step": jnp.asarray(7)}
    note = {"data": {}, "frozen": "none", "arrays": checksums(saved)}
    state, data = ocp.args.StandardSave(saved), ocp.args.JsonSave(note)
    manager.save(7, args=ocp.args.Composite(state=state, data=data))
