"""The demo over several seeds, beside a model that reads only text.

  python -m benchmarks.flamingo_demo --seeds 0 1 2

Every seed is another draw of the parameters and of the training episodes; the
evaluation asks the same held-out episodes. The text-only model is the demo's
language model alone, trained on the same text. Writes runs/flamingo_demo/ and
benchmarks/results/flamingo_demo.md.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmjax.cli.configs import load
from mmjax.cli.demo import show_progress, text_only
from mmjax.cli.evaluate import evaluate
from mmjax.cli.train import train
from mmjax.data.build import plain
from mmjax.evaluation.answers import Result

RESULTS = Path("benchmarks/results/flamingo_demo.md")
Cells = Mapping[tuple[str, int, str], float]


def run(path: str, seed: int, workdir: Path) -> tuple[Cells, dict]:
  """Scores of one seed, and its times in seconds."""
  config = plain(load(path, [f"seed={seed}", f"data.seed={seed}"]))
  alone = config.pop("text_only")
  times = {}
  started = time.monotonic()

  def done(name):
    times[name] = time.monotonic() - started - sum(times.values())

  train(config, workdir)
  done("training")
  results = evaluate(config, workdir, show_progress())
  done("evaluation")
  results += text_only(config, alone, workdir / "text_only")
  done("text-only model")
  return cells(results), times


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
  lines = [
    "# The demo on things never seen in training",
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
  parser.add_argument("--workdir", type=Path, default="runs/flamingo_demo")
  args = parser.parse_args()
  found, times = [], []
  for seed in args.seeds:
    scores, took = run(args.config, seed, args.workdir / f"seed{seed}")
    found.append(scores)
    times.append(took)
  facts = {
    "command": "`python -m benchmarks.flamingo_demo --seeds "
    + " ".join(map(str, args.seeds))
    + f" --config {args.config}`",
    "machine": f"{platform.machine()}, {os.cpu_count()} cores, no accelerator",
  } | {
    f"{name}, seconds": ", ".join(f"{t[name]:.0f}" for t in times)
    for name in times[0]
  }
  text = markdown(found, facts)
  RESULTS.write_text(text)
  (args.workdir / "facts.json").write_text(json.dumps(facts, indent=1))
  print(text)


if __name__ == "__main__":
  main()
