"""`mmjax train`: a config, a directory, a run."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.config import call, lookup
from mmjax.data import build as data
from mmjax.sharding import make_mesh
from mmjax.systems import SYSTEMS
from mmjax.training import loop
from mmjax.training.optimizer import make_optimizer
from mmjax.training.sources import load_parts, make_tokenizer
from mmjax.training.state import (
  TrainState,
  abstract_params,
  init_state,
  parameter_table,
  trainable_mask,
)
from mmjax.training.step import Guard, make_step
from mmjax.typing import Params

log = logging.getLogger(__name__)


def train(config: Mapping[str, Any], workdir: str | Path) -> TrainState:
  """Trains what a config describes, or goes on with it.

  Args:
    config: of `configs/`: `system`, `model`, `tokenizer`, `data`, `init`,
      `train`, `mesh` and `seed`.
    workdir: gets `config.json`, metrics and checkpoints. A run that stopped
      goes on from the newest checkpoint.

  Returns:
    the last state.
  """
  config = data.plain(config)
  workdir = Path(workdir)
  system = lookup(SYSTEMS, config["system"], "system")
  module = system.build(config["model"])
  tokenizer = make_tokenizer(config["tokenizer"])
  host = (jax.process_index(), jax.process_count())
  batches = data.batches(config["data"], tokenizer, host)
  keep_config(config, workdir)
  settings = dict(config["train"])
  example = peek(batches)
  shapes = nn.unbox(abstract_params(module, example))
  rules = settings.pop("trainable")
  print(parameter_table(shapes, trainable_mask(shapes, rules)))
  plan = call(loop.Plan, settings.pop("plan"))
  mesh = make_mesh(config.get("mesh", {"data": -1}))
  schedules: dict[str, Any] = {}

  def optimizer(trainable: Params):
    made, schedules["lr"] = make_optimizer(
      settings.pop("optimizer"), trainable, plan.steps
    )
    schedules["tx"] = made
    return made

  state, where = init_state(
    module,
    example,
    rules=rules,
    optimizer=optimizer,
    mesh=mesh,
    seed=config.get("seed", 0),
    loaded=load_parts(config.get("init", {}), shapes),
    frozen_dtype=jnp.dtype(settings.pop("frozen_dtype", "float32")),
  )
  step = make_step(
    lambda params, batch: system.loss(module, params, batch),
    schedules["tx"],
    batches.weights,
    microbatches=settings.pop("microbatches", 1),
    guard=call(Guard, settings.pop("guard", {})),
  )
  if settings:
    raise ValueError(f"config.train has unknown keys {sorted(settings)}.")
  return loop.train(
    state,
    where,
    step,
    batches,
    plan,
    mesh,
    workdir,
    monitor=system.monitor,
    extra={"lr": lambda now: float(schedules["lr"](now - 1))},
  )


def peek(batches) -> dict:
  """A batch, for its shapes; the iterator stays where it is."""
  before = batches.get_state()
  example = next(iter(next(batches).values()))
  batches.set_state(before)
  return example


def keep_config(config: Mapping[str, Any], workdir: Path) -> None:
  """Writes config.json, or says what differs from the one that is there."""
  path = workdir / "config.json"
  text = json.dumps(config, indent=2, default=list)
  if path.exists():
    old = json.loads(path.read_text())
    changed = sorted(differences(old, json.loads(text)))
    if changed:
      log.warning("Goes on with another config; changed: %s", changed)
  workdir.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def differences(old: Any, new: Any, path: str = "config") -> set[str]:
  """Names of the keys in which two configs differ."""
  if not (isinstance(old, dict) and isinstance(new, dict)):
    return set() if old == new else {path}
  found: set[str] = set()
  for key in old.keys() | new.keys():
    found |= differences(old.get(key), new.get(key), f"{path}.{key}")
  return found
