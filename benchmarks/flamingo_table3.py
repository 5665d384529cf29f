"""Parameters and step times of Flamingo's ablations, beside the paper's.

  python -m benchmarks.flamingo_table3 [--measure] [--out FILE]

Rows are those of Tables 3 and 10 (arXiv 2204.14198 v2). Without --measure
nothing is allocated: parameters and operations come from traced shapes at
full size (flamingo_costs.py), and flamingo_fit.py asks what the paper's times
may be made of. --measure also trains a small model of each row's structure
(flamingo_small.py), which takes about an hour on two cores, and keeps each
ratio; without it, those that were kept are shown.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks import flamingo_costs as costs
from benchmarks import flamingo_fit as fitting
from benchmarks.flamingo_small import measure, pair
from benchmarks.flamingo_table3_notes import EXPLAINED, NOTES
from configs.flamingo import ablations
from mmjax import tree

RESULTS = Path("benchmarks/results")
# Of the paper: billions of parameters, seconds a step, of each row.
PAPER = {
  "baseline": (3.2, 1.74),
  "(i) w/o video-text": (3.2, 1.42),
  "(i) w/o image-text": (3.2, 0.95),
  "(i) image-text: LAION": (3.2, 1.74),
  "(i) w/o M3W": (3.2, 1.02),
  "(i) M3W only": (3.2, 0.68),  # Version 1 of the paper has this row.
  "(ii) round-robin": (3.2, 1.68),
  "(iii) no tanh gate": (3.2, 1.74),
  "(iv) vanilla xattn": (2.4, 1.16),
  "(iv) grafting": (3.3, 1.74),
  "(v) single in middle": (2.0, 0.87),
  "(v) every 4th": (2.3, 1.02),
  "(v) every 2nd": (2.6, 1.24),
  "(vi) MLP": (3.2, 1.85),
  "(vi) Transformer": (3.2, 1.81),
  "(vii) CLIP ViT-L/14": (3.1, 1.58),
  "(vii) NFNet-F0": (2.9, 1.45),
  "(viii) LM trained, random": (3.2, 2.42),
  "(viii) LM trained, pretrained": (3.2, 2.42),
  "T10 (i) small resampler": (3.1, 1.58),
  "T10 (i) large resampler": (3.4, 1.87),
  "T10 (ii) all previous images": (3.2, 1.74),
  "T10 (iii) p_next 0": (3.2, 1.74),
  "T10 (iii) p_next 1": (3.2, 1.74),
  "T10 (iv) LM pretrained on C4": (3.2, 1.74),
  "T10 (v) vision trained, random": (3.2, 4.70),
  "T10 (v) vision trained, pretrained": (3.2, 4.70),
  "T10 (vi) co-trained LM, random": (3.2, 5.34),
  "T10 (vi) co-trained LM, pretrained": (3.2, 5.34),
  "T10 (vii) LAION and CLIP only": (3.1, 0.86),
  "T10 (vii) M3W, LAION, VTP, CLIP": (3.1, 1.58),
}
# The paper ran these rows on four times the chips and multiplied by four.
MORE_CHIPS = ("vision trained", "co-trained")


def read_rows() -> dict[str, fitting.Row]:
  """What each row costs at full size."""
  rows = {}
  for name, (_, seconds) in PAPER.items():
    chips = 4 if any(part in name for part in MORE_CHIPS) else 1
    features = fitting.features(config_of(name))
    rows[name] = fitting.Row(seconds, features, chips)
    print(f"traced {name}", flush=True)
  return rows


def config_of(name: str):
  """The config of a row of PAPER."""
  return ablations.make(None if name == "baseline" else name)


def main_table(
  rows: Mapping[str, fitting.Row], times: Mapping[str, float]
) -> str:
  """Paper and ours, row by row, as Markdown; `times` may be empty."""
  head = ["row", "paper B", "ours B", "paper time", "operations", "fit"]
  if times:
    head += ["small, operations", "small, measured"]
  lines = [head, ["---"] * len(head)]
  chosen = fitting.different(rows)
  parts = fitting.HYPOTHESES[fitting.BEST]
  prices, _ = fitting.fit(chosen, parts)
  base = rows["baseline"]
  for name, row in rows.items():
    config = config_of(name)
    count = tree.count(costs.parameters(config)) / 1e9
    done = row.features["operations"] / base.features["operations"]
    predicted = fitting.predict(row, parts, prices) / base.seconds
    star = "*" if row.chips > 1 else ""
    cells = [name, f"{PAPER[name][0]}", f"{count:.3f}"]
    cells += [f"{row.seconds / base.seconds:.2f}{star}"]
    cells += [f"{done:.2f}", f"{predicted:.2f}{star}"]
    if times:
      small, other = pair(config, config_of("baseline"))
      own, usual = (costs.total(costs.operations(c)) for c in (small, other))
      time = f"{times[name]:.2f}" if name in times else "not run"
      cells += [f"{own / usual:.2f}", time]
    lines.append(cells)
  return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def shares(names: tuple[str, ...]) -> str:
  """Where the operations of some rows are, as Markdown."""
  parts = ("vision", "resampler", "blocks", "lm")
  base = costs.total(costs.operations(config_of("baseline")))
  lines = [["row", *parts, "trainable B", "data sets"]]
  lines.append(["---"] * len(lines[0]))
  for name in names:
    config = config_of(name)
    counts = costs.operations(config)
    cells = [f"{costs.total(counts, part) / base:.2f}" for part in parts]
    trainable = tree.count(costs.split(config)[0]) / 1e9
    cells += [f"{trainable:.2f}", f"{len(counts)}"]
    lines.append([name, *cells])
  by_set = costs.operations(config_of("baseline"))
  for name, counts in by_set.items():
    own = {name: counts}
    cells = [f"{costs.total(own, part) / base:.2f}" for part in parts]
    lines.append([f"baseline, {name} alone", *cells, "", ""])
  return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
  """Prints the table and writes it with its notes."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--measure", action="store_true")
  parser.add_argument(
    "--out", type=Path, default=RESULTS / "flamingo_table3.md"
  )
  parser.add_argument(
    "--times",
    type=Path,
    default=RESULTS / "flamingo_table3_times.json",
    help="measured ratios; rows that it has are not measured again",
  )
  given = parser.parse_args()
  rows, times = read_rows(), {}
  if given.measure:
    configs = {name: config_of(name) for name in rows}
    times = measure(configs, given.times)
  elif given.times.is_file():
    times = json.loads(given.times.read_text())
  command = (
    "python -m benchmarks.flamingo_table3" + " --measure" * given.measure
  )
  text = NOTES.format(
    command=command,
    table=main_table(rows, times),
    shares=shares(SHOWN),
    fits=fitting.table(rows),
    best=fitting.BEST,
    explained="\n".join(
      f"- **{row}**: {why}" for row, why in EXPLAINED.items()
    ),
  )
  given.out.parent.mkdir(parents=True, exist_ok=True)
  given.out.write_text(text)
  print(f"{text}\nWritten to {given.out}.")


SHOWN = (
  "baseline",
  "(iv) vanilla xattn",
  "(v) single in middle",
  "(vi) Transformer",
  "(vii) CLIP ViT-L/14",
  "(vii) NFNet-F0",
  "(viii) LM trained, random",
  "T10 (v) vision trained, random",
  "T10 (vi) co-trained LM, random",
)

if __name__ == "__main__":
  main()
