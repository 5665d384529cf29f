"""`mmjax plan`: does it fit, how fast, for how long; without the machine."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.data.build import plain
from mmjax.plan import report, search
from mmjax.plan.planning import Plan, make_plan
from mmjax.plan.topology import Topology, parse

log = logging.getLogger(__name__)


def plan(
  config: Mapping[str, Any],
  topology: str | None = None,
  *,
  tokens: float | None = None,
  target: str | Path | None = None,
  searches: bool = False,
  generates: bool = False,
  finishes: bool = False,
) -> Plan:
  """Plans a config and prints what was found.

  Args:
    config: of `configs/`.
    topology: "v5e:16x16", "2*v5p:8x8x8", "h200:4x8"; None is the config's.
    tokens: positions of text to be trained on; None is the config's steps.
    target: where the figures go as JSON.
    searches: tries other batches, remat policies and meshes, too.
    generates: plans reading a prompt and writing a token in place of training.
    finishes: makes machine code of TPUs, too; see plan/compiling.py.
  """
  config = plain(config)
  topology = topology or config.get("topology")
  if not topology:
    raise ValueError(
      "The config names no `topology`. Say which: --topology v5e:16x16, "
      "2*v5p:8x8x8 or h200:8."
    )
  machine = parse(topology)
  log.info("Compiling for %s; large models take a minute", machine.name)
  found = make_plan(config, machine, generates=generates, finishes=finishes)
  if tokens is None:
    tokens = _whole_run(config, found)
  print(report.as_text(found, tokens))
  if target is not None:
    text = json.dumps(report.as_dict(found, tokens), indent=1)
    Path(target).write_text(text + "\n")
    log.info("Wrote %s", target)
  if searches:
    print("\nOther batches, remat policies and meshes:")
    print(search.table(config, search.search(config, machine)))
  elif not found.fits:
    _advise(config, machine, found, generates)
  return found


def _advise(
  config: Mapping[str, Any], machine: Topology, found: Plan, generates: bool
) -> None:
  """Says which keys make it fit."""
  worst = max(found.programs, key=lambda p: p.memory.peak)
  memory = worst.memory
  print(
    f"\n{worst.name} needs {report.size(memory.peak)} of "
    f"{report.size(memory.limit)}."
  )
  if generates:
    print(
      "Ask less at once (config.evaluate.model.batch_size), shorter prompts "
      "with fewer media (config.evaluate.prompt), or take more devices."
    )
    return
  print(
    "Trying other values of config.mesh, remat and config.train.microbatches "
    "..."
  )
  better = search.what_fits(config, machine)
  if better is None:
    print(
      "None of those tried fits. Take more devices, or smaller batches; "
      "--search tries those."
    )
  else:
    print(f"This fits:\n  {search.describe(config, better.changes)}")
    if new := search.missing(config, better.changes):
      print(
        f"The config has no {', '.join(new)} yet: a .py of your own that adds "
        "them takes the place of it."
      )


def _whole_run(config: Mapping[str, Any], found: Plan) -> float | None:
  """Positions of text in all steps of the config's run."""
  steps = config["train"].get("plan", {}).get("steps")
  training = [p for p in found.programs if p.name.startswith("train")]
  if not steps or not training:
    return None
  return steps * sum(p.tokens for p in training) / len(training)
