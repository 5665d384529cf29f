"""`mmjax evaluate`: the evaluation that a config names, on a trained run."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.cli.progress import Progress
from mmjax.config import call, lookup, require
from mmjax.data import build as data
from mmjax.data.batching import empty, stack
from mmjax.evaluation import drawn, drawn_chat, paper_tasks
from mmjax.evaluation.answers import Result, write_records
from mmjax.evaluation.model import Model
from mmjax.systems import SYSTEMS
from mmjax.training.sources import check_tokens, load_parts, make_tokenizer
from mmjax.training.state import abstract_params, trainable_mask
from mmjax.typing import Params

log = logging.getLogger(__name__)


def evaluate(
  config: Mapping[str, Any],
  workdir: str | Path,
  progress: Progress = lambda done, total: None,
) -> list[Result]:
  """Evaluates the newest checkpoint of a run.

  Args:
    config: of the run, with `evaluate`: `name` of EVALUATIONS, `model` with
      the fields of evaluation.model.Model, `prompt` with the changes to the
      training prompt, and arguments of the evaluation.
    workdir: of the run; gets `results.json` and `records.jsonl`.
    progress: is told how many of how many documents are done.
  """
  config = data.plain(config)
  if "evaluate" not in config:
    raise ValueError(
      f"The config of {workdir} names no evaluation: it has no 'evaluate'. Add "
      f"one with a name of {list(EVALUATIONS)}, or ask the run with `mmjax "
      "generate`."
    )
  workdir = Path(workdir)
  settings = dict(config["evaluate"])
  run = lookup(EVALUATIONS, settings.pop("name", None), "evaluation")
  model = load_model(
    config, workdir, settings.pop("model", {}), settings.pop("prompt", {})
  )
  results = run(model, settings, progress)
  workdir.mkdir(parents=True, exist_ok=True)
  write_records(results, workdir / "records.jsonl")
  summaries = [result.summary() for result in results]
  (workdir / "results.json").write_text(
    json.dumps({"results": summaries, "config": config}, indent=1, default=list)
  )
  return results


def load_model(
  config: Mapping[str, Any],
  workdir: str | Path,
  fields: Mapping[str, Any] | None = None,
  prompt: Mapping[str, Any] | None = None,
) -> Model:
  """A trained run as something that answers.

  Args:
    config: of the run.
    workdir: of the run.
    fields: of evaluation.model.Model.
    prompt: what differs from the prompt of the first dataset: a longer one,
      with room for more media.
  """
  config = data.plain(config)
  require(config, ("system", "model", "tokenizer", "data", "train"))
  module = lookup(SYSTEMS, config["system"], "system").build(config["model"])
  tokenizer = make_tokenizer(config["tokenizer"])
  check_tokens(tokenizer, module)
  first = next(iter(config["data"]["datasets"].values()))
  names = ("transforms", "frames", "fps", "keys", "values")
  encoder = call(
    data.encoder,
    {k: first[k] for k in names if k in first}
    | {"prompt": dict(first["prompt"]) | dict(prompt or {})},
    tokenizer=tokenizer,
  )
  # Parameters have the same shapes whatever the batch: no record is read.
  example = stack([empty(encoder.prompt.length, encoder.slots)])
  params = load_params(config, module, example, workdir)
  return call(
    Model,
    fields or {},
    module=module,
    params=params,
    encoder=encoder,
    tokenizer=tokenizer,
  )


def load_params(
  config: Mapping[str, Any],
  module: nn.Module,
  example: Mapping[str, Any],
  workdir: str | Path,
) -> Params:
  """Trained parameters of a run, with the frozen ones of their source.

  Where nothing was trained, `config.init` has to name a source of all that
  would be: a published checkpoint.
  """
  shapes = nn.unbox(abstract_params(module, example))
  mask = trainable_mask(shapes, config["train"]["trainable"])
  loaded = load_parts(config.get("init", {}), shapes)
  directory = Path(workdir) / "checkpoints"
  if not directory.exists() and all(k in loaded for k in mask if mask[k]):
    log.info("%s has no checkpoints: taking config.init alone.", workdir)
    flat = {k: np.asarray(v) for k, v in loaded.items()}
  else:
    trained = tree.flatten(load_trainable(directory))
    _check(trained, tree.flatten(shapes), workdir)
    frozen = {k: v for k, v in loaded.items() if not mask[k]}
    flat = {k: np.asarray(v) for k, v in frozen.items()} | trained
  missing = tree.flatten(shapes).keys() - flat.keys()
  if missing:
    # Frozen as they were drawn: the same draw, by the seed of the run.
    flat |= _draw(module, example, config.get("seed", 0), missing)
  return jax.tree.map(jax.numpy.asarray, tree.unflatten(flat))


def _check(
  trained: Mapping[str, Any], shapes: Mapping[str, Any], workdir: str | Path
) -> None:
  """Whether a checkpoint is of this model."""
  wrong = [f"{k}: not in the model" for k in trained if k not in shapes]
  wrong += [
    f"{k}: {x.shape}, the model's is {tuple(shapes[k].shape)}"
    for k, x in trained.items()
    if k in shapes and x.shape != tuple(shapes[k].shape)
  ]
  if wrong:
    raise ValueError(
      f"The checkpoint of {workdir} is of another model than the config's; "
      f"{wrong[0]} ({len(wrong)} such). Leave out --config and its changes."
    )


def _draw(module, example, seed, paths):
  def make(key):
    params = nn.unbox(module.init(key, example)["params"])
    return {k: v for k, v in tree.flatten(params).items() if k in paths}

  return jax.jit(make)(jax.random.key(seed))


def _drawn(
  model: Model, settings: Mapping[str, Any], progress: Progress
) -> Sequence[Result]:
  setting = call(drawn.Setting, settings)
  return drawn.evaluate_drawn(model.generate, setting, progress)


def _drawn_chat(
  model: Model, settings: Mapping[str, Any], progress: Progress
) -> Sequence[Result]:
  setting = call(drawn_chat.Setting, settings)
  return drawn_chat.evaluate_chat(model.generate, setting, progress)


def _in_context(
  model: Model, settings: Mapping[str, Any], progress: Progress
) -> Sequence[Result]:
  return call(
    paper_tasks.evaluate_tasks, settings, model=model, progress=progress
  )


# Name to (model, settings, progress) -> results.
EVALUATIONS = {
  "drawn": _drawn,
  "drawn_chat": _drawn_chat,
  "in_context": _in_context,
}
