"""The demo over several seeds, beside a model that reads only text.

  python -m benchmarks.flamingo_demo --seeds 0 1 2
  python -m benchmarks.flamingo_demo --seeds 0 --name flamingo_smollm2 \
    --config configs/flamingo/smollm2.py

Every seed is another draw of the parameters and of the training episodes; the
evaluation asks the same held-out episodes. The text-only model is the config's
language model alone, trained on the same text, where the config has one.
Writes runs/NAME/, benchmarks/results/NAME.md, and beside it the log of every
run, NAME_seedN.jsonl. A run that was interrupted goes on.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmjax.cli.configs import load
from mmjax.cli.demo import text_only
from mmjax.cli.evaluate import evaluate
from mmjax.cli.progress import show_progress
from mmjax.cli.train import train
from mmjax.data.build import plain
from mmjax.evaluation.answers import Result
from mmjax.training.metrics import read_jsonl

RESULTS = Path("benchmarks/results")
Cells = Mapping[tuple[str, int, str], float]


def run(path: str, seed: int, workdir: Path) -> tuple[Cells, dict]:
  """Scores of one seed, and its times in seconds."""
  config = plain(load(path, [f"seed={seed}", f"data.seed={seed}"]))
  alone = config.pop("text_only", None)
  train(config, workdir)
  results = evaluate(config, workdir, show_progress())
  if alone:
    results += text_only(config, alone, workdir / "text_only")
  times = step_times(workdir / "metrics.jsonl")
  return cells(results), dict(zip(("a step", "training"), times))


def step_times(metrics: Path) -> tuple[float, float]:
  """Seconds of a step, the median over a log, and of all steps at that.

  Right for runs that were interrupted, too; the compiler's time is in none.
  """
  log = read_jsonl(metrics)
  each = statistics.median(
    (b["time"] - a["time"]) / (b["step"] - a["step"])
    for a, b in zip(log, log[1:])
  )
  return each, each * log[-1]["step"]


def cells(results: Sequence[Result]) -> Cells:
  return {(r.task, r.shots, r.control): r.score for r in results}


def markdown(seeds: Sequence[Cells], facts: Mapping[str, str]) -> str:
  """A table of means and single seeds."""
  titles = {
    "none": "all media",
    "no_query": "no query",
    "wrong_query": "wrong query",
    "blank_support": "support blank",
    "text_only": "text-only model",
  }
  known = {control for scores in seeds for _, _, control in scores}
  titles = {k: v for k, v in titles.items() if k in known}
  lines = [
    "# Drawn things never seen in training",
    "",
    *(f"- {key}: {value}" for key, value in facts.items()),
    "",
    "Exact match in percent: mean (each seed).",
    "",
    "| task | shots | " + " | ".join(titles.values()) + " |",
    "|---|---|" + "---|" * len(titles),
  ]
  for task, shots in dict.fromkeys((t, s) for t, s, _ in seeds[0]):
    row = [task, str(shots)]
    row += [_cell([c.get((task, shots, n)) for c in seeds]) for n in titles]
    lines.append("| " + " | ".join(row) + " |")
  return "\n".join(lines) + "\n"


def _cell(values: Sequence[float | None]) -> str:
  known = [v for v in values if v is not None]
  if not known:
    return "–"
  each = ", ".join(f"{v:.1f}" for v in known)
  return f"**{statistics.fmean(known):.1f}** ({each})"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
  parser.add_argument("--config", default="configs/flamingo/demo.py")
  parser.add_argument("--name", default="flamingo_demo")
  args = parser.parse_args()
  runs = Path("runs") / args.name
  found, times = [], []
  for seed in args.seeds:
    workdir = runs / f"seed{seed}"
    scores, took = run(args.config, seed, workdir)
    log = RESULTS / f"{args.name}_seed{seed}.jsonl"
    shutil.copyfile(workdir / "metrics.jsonl", log)
    found.append(scores)
    times.append(took)
  options = f"--seeds {' '.join(map(str, args.seeds))} --name {args.name}"
  facts = {
    "command": "`python -m benchmarks.flamingo_demo "
    f"{options} --config {args.config}`",
    "machine": f"{platform.machine()}, {os.cpu_count()} cores, no accelerator",
  } | {
    f"{name}, seconds": ", ".join(f"{t[name]:.5g}" for t in times)
    for name in times[0]
  }
  text = markdown(found, facts)
  (RESULTS / f"{args.name}.md").write_text(text)
  (runs / "facts.json").write_text(json.dumps(facts, indent=1))
  print(text)


if __name__ == "__main__":
  main()
