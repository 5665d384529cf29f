"""What a deeper language model costs the compiler: 8 and 80 layers, compared.

  pip install -r requirements-tpu.txt
  python -m benchmarks.compile_depth

Layers are scanned, so the programs should be of one size. Two configs: a plan
of OpenFlamingo-9B, whose layers come in groups of four with a block each, and
the demo's down to machine code. Writes benchmarks/results/compile_depth.md.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.plans import run

TARGET = Path("benchmarks/results/compile_depth.md")
DEPTHS = (8, 80)
CASES = {
  "OpenFlamingo-9B, to the places in memory": (
    "configs/flamingo/open_flamingo_9b.py",
    (),
  ),
  "the demo, to machine code": (
    "configs/flamingo/demo.py",
    (
      *("--topology", "v5e:2x2", "--machine-code"),
      *("--config.mesh.data=-1", "--config.model.xattn.every=4"),
    ),
  ),
}


def seconds(config: str, more: Sequence[str]) -> list[float]:
  """CPU seconds of the whole command for each of DEPTHS."""
  return [
    run(config, [*more, f"--config.model.lm.num_layers={depth}"])["cpu"]
    for depth in DEPTHS
  ]


def main() -> None:
  lines = [
    "# Compiling deeper models",
    "",
    "`python -m benchmarks.compile_depth`: CPU seconds of `mmjax plan`, from "
    "its start to its end.",
    "",
    "| program | " + " | ".join(f"{d} layers" for d in DEPTHS) + " | ratio |",
    "|" + "---|" * (len(DEPTHS) + 2),
  ]
  for name, case in CASES.items():
    short, long = seconds(*case)
    lines.append(f"| {name} | {short:.1f} | {long:.1f} | {long / short:.2f} |")
    print(lines[-1], flush=True)
  TARGET.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
  main()
