"""`mmjax demo`: trains a small Flamingo, evaluates it, writes a report."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.cli.evaluate import evaluate
from mmjax.cli.progress import show_progress
from mmjax.cli.train import train
from mmjax.data import build as data
from mmjax.evaluation import drawn, gallery, report
from mmjax.evaluation.answers import Result
from mmjax.training.metrics import clock_time
from mmjax.training.state import TrainState
from mmjax.tree import count

EPISODES = 12  # Shown of each task.
TITLE = "Flamingo on drawn things"
SUBTITLE = (
  "Few-shot answers about things that were never seen in training, in any "
  "drawing style. Every score stands beside controls that take the pictures "
  "away."
)


def demo(config: Mapping[str, Any], workdir: str | Path) -> Path:
  """Train, evaluate, report.

  Args:
    config: of a run on the drawn set, with `evaluate`.
    workdir: gets the run, `results.json` and `report.html`. A run that was
      interrupted goes on.

  Returns:
    the report's path.
  """
  config, workdir = data.plain(config), Path(workdir)
  alone = config.pop("text_only", None)
  started = time.monotonic()
  state = train(config, workdir)
  trained = time.monotonic()
  print("\nEvaluating on held-out things", flush=True)
  results = evaluate(config, workdir, show_progress())
  done = time.monotonic()
  facts = {
    "steps": int(state.step),
    "skipped steps": int(state.skipped),
    "training": clock_time(trained - started),
    "evaluation": clock_time(done - trained),
    "seed": config.get("seed", 0),
  }
  if alone:
    print("\nThe language model alone, on the same text", flush=True)
    results += text_only(config, alone, workdir / "text_only")
    facts["text-only model"] = (
      f"{alone['steps']} steps, {clock_time(time.monotonic() - done)}"
    )
  path = write_report(results, config, state, facts, workdir)
  print(f"\n{drawn.table(results)}\n\nReport: {path}")
  return path


def text_only(
  config: Mapping[str, Any], changes: Mapping[str, Any], workdir: Path
) -> list[Result]:
  """Trains and evaluates the language model of a config without its media.

  It reads the same documents, the marks of pictures included, so what it gets
  right can be guessed from the text.

  Args:
    config: of the run with media.
    changes: `steps`, and the `trainable` and `weight_decay` of what is left.
    workdir: of the new run.

  Returns:
    results under the control "text_only".
  """
  model, init = config["model"], config.get("init", {})
  settings, evaluation = config["train"], config["evaluate"]
  decay = {"weight_decay": changes["weight_decay"]}
  alone = dict(config) | {
    "system": "text",
    "model": {k: model[k] for k in ("lm", "dtype") if k in model},
    "init": {k: v for k, v in init.items() if k.split("/")[0] == "lm"},
    "train": settings
    | {
      "trainable": changes["trainable"],
      "optimizer": settings["optimizer"] | decay,
      "plan": settings["plan"] | {"steps": changes["steps"]},
    },
    "evaluate": evaluation | {"controls": ("none",)},
  }
  train(alone, workdir)
  results = evaluate(alone, workdir, show_progress())
  return [dataclasses.replace(r, control="text_only") for r in results]


def write_report(
  results: Sequence[Result],
  config: Mapping[str, Any],
  state: TrainState,
  facts: Mapping[str, Any],
  workdir: Path,
) -> Path:
  """Adds what the report shows to `results.json`, and builds it."""
  episodes = [
    gallery.episode(prompt, record, workdir)
    for result in results
    if result.control == "none" and result.shots == _shown(result, results)
    for prompt, record in list(zip(result.prompts, result.records))[:EPISODES]
  ]
  content = {
    "title": TITLE,
    "subtitle": SUBTITLE,
    "tasks": drawn.TITLES,
    "results": [result.summary() for result in results],
    "episodes": episodes,
    "facts": dict(facts),
    "parameters": _parameters(state),
    "config": config,
  }
  (workdir / "results.json").write_text(
    json.dumps(content, indent=1, default=list)
  )
  return report.build(workdir)


def _shown(result: Result, results: Sequence[Result]) -> int:
  """The number of shots whose episodes are shown: the smallest with support."""
  shots = sorted({r.shots for r in results if r.task == result.task})
  return next((s for s in shots if s), shots[-1])


def _parameters(state: TrainState) -> list[dict[str, Any]]:
  rows = []
  for kind, params in (("trained", state.trainable), ("frozen", state.frozen)):
    for component, part in params.items():
      rows.append({"component": component, "state": kind, "count": count(part)})
  return rows
