"""`mmjax evaluate`: the evaluation that a config names, on a trained run."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from mmjax import distributed, preflight, tree
from mmjax.checkpoints import fingerprint, load_trainable
from mmjax.cli.progress import Progress
from mmjax.config import call, lookup, require
from mmjax.data import build as data
from mmjax.data.batching import empty, stack
from mmjax.evaluation import (
  chat_table,
  drawn,
  drawn_chat,
  items,
  paper_tasks,
)
from mmjax.evaluation.answers import Result, write_records
from mmjax.evaluation.chat import ChatResult, evaluate_chat
from mmjax.evaluation.judge import Ask, Judging
from mmjax.evaluation.ledger import Memory, Share
from mmjax.evaluation.model import Model
from mmjax.sharding import make_mesh, shardings
from mmjax.systems import SYSTEMS
from mmjax.training.checks import check_media, check_tokens
from mmjax.training.sources import load_parts, make_tokenizer
from mmjax.training.state import abstract_params, trainable_mask
from mmjax.typing import Params

log = logging.getLogger(__name__)


def evaluate(
  config: Mapping[str, Any],
  workdir: str | Path,
  progress: Progress = lambda done, total: None,
  *,
  tasks: Sequence[str] | None = None,
  limit: int | None = None,
  ask: Callable[[Judging], Ask] | None = None,
) -> list[Any]:
  """Evaluates the newest checkpoint of a run.

  Several processes part the questions between them, and the first writes what
  they found. Answers that are written are kept as they come: started again, it
  asks what is still open. Those that are ranked by their likelihoods are not
  kept, and are asked for anew.

  Args:
    config: of the run, with `evaluate`: `name` of EVALUATIONS, `model` with
      the fields of evaluation.model.Model, `prompt` with the changes to the
      training prompt, `mesh` of the devices of a process, and arguments of the
      evaluation.
    workdir: of the run; gets `results.json`, `results.md`, `records.jsonl` and
      a folder `answers`. What is asked in part replaces nothing of the whole:
      of the tasks "gqa" and "pope" with a limit of 8 there is
      `results_gqa+pope_limit_8.json` and so on.
    progress: is told how many of how many documents are done.
    tasks: names of those of `config.evaluate.tasks` that are asked; None is
      all.
    limit: of the questions of each task, always the same.
    ask: makes a judge for the tasks that need one.

  Returns:
    the results; `show` makes a table of them.
  """
  distributed.start()
  config, workdir = data.plain(config), Path(workdir)
  settings = _settings(config, workdir, tasks, limit)
  run = lookup(EVALUATIONS, settings.pop("name", None), "evaluation")
  preflight.check(config)
  preflight.check_workdir(workdir)
  fields, prompt = settings.pop("model", {}), settings.pop("prompt", {})
  mesh = local_mesh(settings.pop("mesh", {"data": -1}))
  model = load_model(config, workdir, fields, prompt, mesh)
  memory = _memory(config, _reading(config, prompt), model, workdir)
  results = run(model, settings, Given(memory, ask, progress))
  if distributed.is_first():
    end = _part(config["evaluate"], tasks, limit)
    _write(results, config, workdir, end)
    if limit is not None:
      log.warning(
        "At most %d questions of each task were asked: results are in %s, and "
        "no scores of the tasks.",
        *(limit, workdir / f"results{end}.json"),
      )
  distributed.wait("results are written")
  return results


@dataclasses.dataclass(frozen=True)
class Given:
  """What an evaluation is given besides its settings.

  Attributes:
    memory: of answers.
    ask: makes a judge.
    progress: is told how many of how many documents are done.
  """

  memory: Memory
  ask: Callable[[Judging], Ask] | None
  progress: Progress


def show(results: Sequence[Any]) -> str:
  """A table for a terminal."""
  chats = [r for r in results if isinstance(r, ChatResult)]
  return chat_table.table(chats) if chats else drawn.table(results)


def _settings(
  config: Mapping[str, Any],
  workdir: Path,
  tasks: Sequence[str] | None,
  limit: int | None,
) -> dict[str, Any]:
  """`config.evaluate` with the tasks and questions that are asked for."""
  if "evaluate" not in config:
    raise ValueError(
      f"The config of {workdir} names no evaluation: it has no 'evaluate'. Add "
      f"one with a name of {list(EVALUATIONS)}, or ask the run with `mmjax "
      "generate`."
    )
  settings = dict(config["evaluate"])
  if limit is not None and limit < 1:
    raise ValueError(f"limit is {limit}; expected 1 question or more.")
  if "tasks" not in settings:
    if tasks is not None:
      raise ValueError(
        f"The evaluation {settings.get('name')!r} names no tasks to choose "
        f"{list(tasks)} from; leave --tasks out."
      )
    return _limited(settings, limit)
  named = settings["tasks"]
  settings["tasks"] = {
    name: _limited(lookup(named, name, "task of the config"), limit)
    for name in (named if tasks is None else tasks)
  }
  return settings


def _limited(settings: Any, limit: int | None) -> Any:
  """Settings with a `count` of at most so many; wrong ones are told later."""
  if limit is None or not isinstance(settings, Mapping):
    return settings
  count = settings.get("count")
  if isinstance(count, int):
    limit = min(count, limit)
  return dict(settings) | {"count": limit}


def _part(
  settings: Mapping[str, Any],
  tasks: Sequence[str] | None,
  limit: int | None,
) -> str:
  """How the files of this part of an evaluation end; empty for all of it."""
  named = settings.get("tasks", ())
  some = [name for name in named if name in (tasks or ())]
  chosen = "" if tasks is None or some == list(named) else "_" + "+".join(some)
  return chosen if limit is None else f"{chosen}_limit_{limit}"


def local_mesh(sizes: Mapping[str, int]) -> Mesh | None:
  """A mesh of this process' devices; None where there is only one.

  Processes have nothing to do with each other here, so that each goes on while
  others read a picture or write a long answer.
  """
  devices = jax.local_devices()
  return make_mesh(sizes, devices) if len(devices) > 1 else None


def _memory(
  config: Mapping[str, Any],
  reading: Mapping[str, Any],
  model: Model,
  workdir: Path,
) -> Memory:
  """Of answers, which depend on all that is named here."""
  about = {
    "parameters": fingerprint(model.params),
    **{key: config[key] for key in ("system", "model", "tokenizer")},
    "reading": reading,
  }
  share = Share(
    jax.process_index(),
    jax.process_count(),
    lambda: distributed.wait("answers are kept"),
  )
  return Memory(workdir / "answers", about, share)


def _write(
  results: Sequence[Any],
  config: Mapping[str, Any],
  workdir: Path,
  end: str,
) -> None:
  workdir.mkdir(parents=True, exist_ok=True)
  write_records(results, workdir / f"records{end}.jsonl")
  summaries = [result.summary() for result in results]
  (workdir / f"results{end}.json").write_text(
    json.dumps({"results": summaries, "config": config}, indent=1, default=list)
  )
  chats = [r for r in results if isinstance(r, ChatResult)]
  if chats:
    (workdir / f"results{end}.md").write_text(chat_table.markdown(chats))


def load_model(
  config: Mapping[str, Any],
  workdir: str | Path,
  fields: Mapping[str, Any] | None = None,
  prompt: Mapping[str, Any] | None = None,
  mesh: Mesh | None = None,
) -> Model:
  """A trained run as something that answers.

  Args:
    config: of the run.
    workdir: of the run.
    fields: of evaluation.model.Model.
    prompt: what differs from the prompt of the first dataset: a longer one,
      with room for more media.
    mesh: of the devices that it runs on; None is the default one.
  """
  config = data.plain(config)
  require(config, ("system", "model", "tokenizer", "data", "train"))
  module = lookup(SYSTEMS, config["system"], "system").build(config["model"])
  tokenizer = make_tokenizer(config["tokenizer"])
  check_tokens(tokenizer, module)
  encoder = call(data.encoder, _reading(config, prompt), tokenizer=tokenizer)
  first = next(iter(config["data"]["datasets"]))
  check_media(encoder, module, f"config.data.datasets.{first}.prompt")
  # Parameters have the same shapes whatever the batch: no record is read.
  example = stack([empty(encoder.prompt.length, encoder.slots)])
  params = load_params(config, module, example, workdir, mesh)
  return call(
    Model,
    fields or {},
    module=module,
    params=params,
    encoder=encoder,
    tokenizer=tokenizer,
    mesh=mesh,
  )


def _reading(
  config: Mapping[str, Any], prompt: Mapping[str, Any] | None
) -> dict[str, Any]:
  """Arguments of `data.build.encoder`: those of the first dataset, changed."""
  first = next(iter(config["data"]["datasets"].values()))
  return data.reading(first) | {"prompt": first["prompt"] | dict(prompt or {})}


def load_params(
  config: Mapping[str, Any],
  module: nn.Module,
  example: Mapping[str, Any],
  workdir: str | Path,
  mesh: Mesh | None = None,
) -> Params:
  """Trained parameters of a run, with the frozen ones of their source.

  Where nothing was trained, `config.init` has to name a source of all that
  would be: a published checkpoint. What is frozen has `train.frozen_dtype`, if
  that is named, as in training. On a mesh they lie as its axes say, and no
  device is given all of what is cut.
  """
  boxed = abstract_params(module, example)
  shapes = nn.unbox(boxed)
  mask = trainable_mask(shapes, config["train"]["trainable"])
  loaded = load_parts(config.get("init", {}), shapes)
  directory = Path(workdir) / "checkpoints"
  if not directory.exists() and all(k in loaded for k in mask if mask[k]):
    log.info("%s has no checkpoints: taking config.init alone.", workdir)
    flat = dict(loaded)
  else:
    trained = tree.flatten(load_trainable(directory))
    _check(trained, tree.flatten(shapes), workdir)
    flat = {k: v for k, v in loaded.items() if not mask[k]} | trained
  missing = tree.flatten(shapes).keys() - flat.keys()
  if missing:
    # Frozen as they were drawn: the same draw, by the seed of the run.
    flat |= _draw(module, example, config.get("seed", 0), missing)
  held = config["train"].get("frozen_dtype")
  held = held and jax.numpy.dtype(held)

  def array(path: str, value: Any) -> np.ndarray:
    value = np.asarray(value)
    return value.astype(held) if held and not mask[path] else value

  params = tree.unflatten({k: array(k, v) for k, v in flat.items()})
  if mesh is None:
    return jax.tree.map(jax.numpy.asarray, params)
  return jax.tree.map(jax.device_put, params, shardings(boxed, mesh))


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
  model: Model, settings: Mapping[str, Any], given: Given
) -> Sequence[Result]:
  return drawn.evaluate_drawn(
    given.memory.generate(model, "drawn"),
    call(drawn.Setting, settings),
    given.progress,
  )


def _drawn_chat(
  model: Model, settings: Mapping[str, Any], given: Given
) -> Sequence[Result]:
  return drawn_chat.evaluate_chat(
    given.memory.generate(model, "drawn_chat"),
    call(drawn_chat.Setting, settings),
    given.progress,
  )


def _items(
  model: Model, settings: Mapping[str, Any], given: Given
) -> Sequence[Result]:
  return items.evaluate_items(
    given.memory.generate(model, "items"),
    model.score,
    call(items.Setting, settings),
    given.progress,
  )


def _in_context(
  model: Model, settings: Mapping[str, Any], given: Given
) -> Sequence[Result]:
  return call(
    paper_tasks.evaluate_tasks,
    settings,
    model=model,
    remember=given.memory.generate,
    progress=given.progress,
  )


def _chat(
  model: Model, settings: Mapping[str, Any], given: Given
) -> Sequence[ChatResult]:
  return call(
    evaluate_chat,
    settings,
    model=model,
    memory=given.memory,
    ask=given.ask,
    progress=given.progress,
  )


# Name to (model, settings, what else it is given) -> results.
EVALUATIONS = {
  "chat": _chat,
  "drawn": _drawn,
  "drawn_chat": _drawn_chat,
  "in_context": _in_context,
  "items": _items,
}
