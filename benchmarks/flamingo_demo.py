"""The demo over several seeds, beside a model that cannot see.

  python -m benchmarks.flamingo_demo --seeds 0 1 2

Every seed is another draw of the parameters and of the training episodes; the
evaluation asks the same held-out episodes. The model that cannot see is
trained on the same documents with its gates frozen at 0, so that no block adds
anything to the language model. Writes runs/flamingo_demo/ and
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
from mmjax.cli.demo import show_progress
from mmjax.cli.evaluate import evaluate
from mmjax.cli.train import train
from mmjax.evaluation.answers import Result

RESULTS = Path("benchmarks/results/flamingo_demo.md")
BLIND = [("(encoder|resampler|blocks)/.*", False), (".*", True)]
Cells = Mapping[tuple[str, int, str], float]


def run(path: str, seed: int, blind: bool, workdir: Path) -> tuple[Cells, dict]:
  """Scores of one run, and its times in seconds."""
  config = load(path, [f"seed={seed}", f"data.seed={seed}"])
  if blind:
    config.train.trainable = BLIND
    config.train.optimizer.weight_decay = [(".*", 0.05)]
    config.evaluate.controls = ["none"]
  started = time.monotonic()
  train(config, workdir)
  trained = time.monotonic()
  results = evaluate(config, workdir, show_progress())
  times = {
    "training": trained - started,
    "evaluation": time.monotonic() - trained,
  }
  return cells(results), times


def cells(results: Sequence[Result]) -> Cells:
  return {(r.task, r.shots, r.control): r.score for r in results}


def markdown(seeing: Sequence[Cells], blind: Sequence[Cells], facts) -> str:
  """A table of means and single seeds."""
  names = ["none", "no_query", "wrong_query", "blank_support"]
  titles = ["all media", "no query", "wrong query", "support blank"]
  lines = [
    "# The demo on things never seen in training",
    "",
    *(f"- {key}: {value}" for key, value in facts.items()),
    "",
    "Exact match in percent: mean (each seed).",
    "",
    "| task | shots | " + " | ".join(titles) + " | cannot see |",
    "|---|---|" + "---|" * (len(names) + 1),
  ]
  for task, shots in dict.fromkeys((t, s) for t, s, _ in seeing[0]):
    row = [task, str(shots)]
    row += [_cell([c.get((task, shots, n)) for c in seeing]) for n in names]
    row += [_cell([c.get((task, shots, "none")) for c in blind])]
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
  seeing, blind, times = [], [], []
  for seed in args.seeds:
    for results, blinded in ((seeing, False), (blind, True)):
      name = f"seed{seed}{'_blind' * blinded}"
      found, took = run(args.config, seed, blinded, args.workdir / name)
      results.append(found)
      if not blinded:
        times.append(took)
  facts = {
    "command": "`python -m benchmarks.flamingo_demo --seeds "
    + " ".join(map(str, args.seeds))
    + (f" --config {args.config}`" if args.config else "`"),
    "machine": f"{platform.machine()}, {os.cpu_count()} cores, no accelerator",
    "training, seconds": ", ".join(f"{t['training']:.0f}" for t in times),
    "evaluation, seconds": ", ".join(f"{t['evaluation']:.0f}" for t in times),
    "cannot see": "the same run with every gate frozen at 0",
  }
  text = markdown(seeing, blind, facts)
  RESULTS.write_text(text)
  (args.workdir / "facts.json").write_text(json.dumps(facts, indent=1))
  print(text)


if __name__ == "__main__":
  main()
