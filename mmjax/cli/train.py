"""`mmjax train`: a config, a directory, a run."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
from jax.sharding import Mesh

from mmjax import distributed, preflight
from mmjax.config import call, differences, lookup, require
from mmjax.data import build as data
from mmjax.sharding import BATCH, make_mesh
from mmjax.systems import SYSTEMS
from mmjax.text.tokenizer import Tokenizer
from mmjax.training import loop
from mmjax.training.checks import check_media, check_tokens
from mmjax.training.goodput import Goodput
from mmjax.training.recipe import Recipe, make_recipe
from mmjax.training.sources import load_parts, make_tokenizer
from mmjax.training.state import TrainState, init_state, parameter_table
from mmjax.training.stopping import Stop, stop_signals
from mmjax.training.watchdog import Patience
from mmjax.typing import Batch

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
  with stop_signals() as stop:
    return _train(config, workdir, stop)


def _train(
  config: Mapping[str, Any], workdir: str | Path, stop: Stop
) -> TrainState:
  distributed.start()
  workdir = Path(workdir)
  clock = Goodput(workdir if distributed.is_first() else None)
  config = data.plain(config)
  require(config, ("system", "model", "tokenizer", "data", "train"))
  preflight.check(config)
  plan, patience = _pace(config["train"])
  preflight.check_workdir(workdir)
  system = lookup(SYSTEMS, config["system"], "system")
  module = system.build(config["model"])
  tokenizer = make_tokenizer(config["tokenizer"])
  check_tokens(tokenizer, module)
  mesh = make_mesh(config.get("mesh", {"data": -1}))
  host = distributed.readers(mesh, BATCH)
  batches = data.batches(config["data"], tokenizer, host)
  _check_media(config["data"], tokenizer, module)
  changed = find_changes(config, workdir)
  recipe = make_recipe(config["train"], module, batches.example, plan.steps)
  state, where = begin(config, recipe, batches.example, mesh)
  step = recipe.step(
    lambda params, batch: system.loss(module, params, batch),
    batches.weights,
    config.get("seed", 0),
  )
  run = loop.Run(
    step,
    batches,
    plan,
    mesh,
    workdir,
    patience=patience,
    clock=clock,
    monitor=system.monitor,
    extra={"lr": lambda now: float(recipe.schedule(now - 1))},
    # Not before: a config that does not fit the run must not take its place.
    begun=lambda step: keep_config(config, workdir, changed, step),
    stop=stop,
  )
  return loop.train(state, where, run)


def _pace(settings: Mapping[str, Any]) -> tuple[loop.Plan, Patience]:
  """How long `config.train` says that a run is, and a step may take."""
  require(settings, ("plan", "trainable", "optimizer"), "config.train")
  plan = call(loop.Plan, settings["plan"])
  return plan, call(Patience, settings.get("watchdog", {}))


def _check_media(
  config: Mapping[str, Any], tokenizer: Tokenizer, module: nn.Module
) -> None:
  """Whether every dataset's prompt leaves the right room for its media."""
  for name, entry in config["datasets"].items():
    encoder = call(data.encoder, data.reading(entry), tokenizer=tokenizer)
    where = f"config.data.datasets.{name}.prompt"
    check_media(encoder, module, where)


def begin(
  config: Mapping[str, Any], recipe: Recipe, example: Batch, mesh: Mesh
) -> tuple[TrainState, TrainState]:
  """The first state of a run, and its shardings.

  Args:
    config: of the run.
    recipe: of `config.train`.
    example: a batch, for its shapes.
    mesh: where the state lives.
  """
  if distributed.is_first():
    print(parameter_table(recipe.shapes, recipe.mask))
  return init_state(
    recipe.module,
    example,
    rules=config["train"]["trainable"],
    optimizer=lambda _: recipe.optimizer,
    mesh=mesh,
    seed=config.get("seed", 0),
    loaded=load_parts(config.get("init", {}), recipe.shapes),
    frozen_dtype=recipe.frozen_dtype,
  )


def find_changes(config: Mapping[str, Any], workdir: Path) -> list[str]:
  """Names of the keys in which a run's config.json differs, if it has one."""
  path = workdir / "config.json"
  if not path.exists():
    return []
  try:
    old = json.loads(path.read_text())
  except ValueError as error:
    log.warning("%s is no JSON (%s); a new one is written.", path, error)
    return ["config"]
  changed = sorted(differences(old, json.loads(_as_text(config))))
  if changed:
    log.warning("Goes on with another config; changed: %s", changed)
  return changed


def keep_config(
  config: Mapping[str, Any], workdir: Path, changed: Sequence[str], step: int
) -> None:
  """Writes config.json; one that differs stays as that of the steps before."""
  if not distributed.is_first():
    return
  path = workdir / "config.json"
  if changed:
    path.replace(workdir / f"config-to-step-{step}.json")
  part = path.with_name(f"{path.name}.{os.getpid()}.part")
  part.write_text(_as_text(config))
  part.replace(path)


def _as_text(config: Mapping[str, Any]) -> str:
  return json.dumps(config, indent=2, default=list)
