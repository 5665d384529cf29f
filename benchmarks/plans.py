"""The table of plans of every full-size config, on the machines they name.

  pip install -r requirements-tpu.txt
  python -m benchmarks.plans              all of them, a minute each
  python -m benchmarks.plans flamingo_80b those whose name has this in it

Those for GPUs need requirements-cuda.txt, and are left out without it.
Each plan is a process of its own, whose time and memory are in the table, too.
Writes benchmarks/results/plans.json as it goes and plans.md from it; a plan
that is there already is made again only with --again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.plan.report import CONVENTIONS, seconds, size

RESULTS = Path("benchmarks/results")
FLAMINGO = "configs/flamingo"
LLAVA = {
  "stage1": "configs/llava/pretrain.py:{}",
  "stage2": "configs/llava/finetune.py:{}",
  "packed": "configs/llava/finetune.py:{}_packed",
  "lora": "configs/llava/finetune_lora.py:{}",
}


def llava(machine: str = "", *all_of_them: str, **own: tuple[str, ...]) -> dict:
  """Plans of LLaVA-1.5's stages in both sizes.

  Args:
    machine: end of their names.
    *all_of_them: further arguments of each.
    **own: further arguments of a stage.
  """
  return {
    f"llava_{size}_{stage}{machine}": (
      config.format(size),
      (*all_of_them, *own.get(stage, ())),
    )
    for size in ("7b", "13b")
    for stage, config in LLAVA.items()
  }


def x_instructblip(machine: str = "", *all_of_them: str) -> dict:
  """Plans of X-InstructBLIP's runs in both sizes; see `llava`."""
  return {
    f"x_instructblip_{size}_{kind}{machine}": (
      f"configs/x_instructblip/{kind}.py:{size}",
      all_of_them,
    )
    for size in ("7b", "13b")
    for kind in ("image", "audio", "points", "video", "joint")
  }


# Further runs of one size, and what X-InstructBLIP stands on.
BLIP = {
  **{
    f"x_instructblip_7b_{kind}_projection": (
      f"configs/x_instructblip/{kind}.py:7b_projection",
      (),
    )
    for kind in ("image", "audio", "points")
  },
  "blip2_stage1": ("configs/blip2/stage1.py", ()),
  **{
    f"blip2_stage2_{size}": (f"configs/blip2/stage2.py:opt_{size}", ())
    for size in ("2.7b", "6.7b")
  },
  **{
    f"instructblip_{size}": (f"configs/instructblip/vicuna.py:{size}", ())
    for size in ("7b", "13b")
  },
}


_LESS_ROOM = "--config.model.lm.remat=full"
_WHOLE_ROWS = "--config.mesh.sequence=1"
# Name of a plan to its config and further arguments of `mmjax plan`; the
# topology is the one that the config names where none is given.
PLANS: Mapping[str, tuple[str, tuple[str, ...]]] = {
  "flamingo_3b": (f"{FLAMINGO}/baseline_3b.py", ()),
  "flamingo_9b": (f"{FLAMINGO}/flamingo_9b.py", ()),
  "flamingo_80b": (f"{FLAMINGO}/flamingo_80b.py", ()),
  "flamingo_80b_2_slices": (
    f"{FLAMINGO}/flamingo_80b.py",
    (
      *("--topology", "2*v5p:8x8x8"),
      *("--config.mesh.data=2", "--config.mesh.tensor=16"),
    ),
  ),
  "open_flamingo_3b": (f"{FLAMINGO}/open_flamingo.py", ()),
  "open_flamingo_9b": (f"{FLAMINGO}/open_flamingo_9b.py", ()),
  **llava(),
  **llava("_v5e", "--topology=v5e:4x8", _LESS_ROOM, packed=(_WHOLE_ROWS,)),
  "llava_13b_scienceqa": ("configs/llava/scienceqa.py", ()),
  **x_instructblip(),
  **BLIP,
}
# The same for GPUs, whose memory is smaller than that of as many TPUs.
_RECOMPUTE = tuple(
  f"--config.model.{part}.remat=full" for part in ("encoder", "lm")
)
GPU_PLANS: Mapping[str, tuple[str, tuple[str, ...]]] = {
  "open_flamingo_3b_h200": (
    f"{FLAMINGO}/open_flamingo.py",
    ("--topology", "h200:8", *_RECOMPUTE),
  ),
  "open_flamingo_9b_h200": (
    f"{FLAMINGO}/open_flamingo_9b.py",
    ("--topology", "h200:8", *_RECOMPUTE),
  ),
  "open_flamingo_9b_4_nodes": (
    f"{FLAMINGO}/open_flamingo_9b.py",
    (
      *("--topology", "h200:4x8", "--config.mesh.data=4"),
      *_RECOMPUTE,
    ),
  ),
  **llava(
    "_h200",
    "--topology=h200:8",
    stage1=("--config.train.microbatches=2",),
    stage2=("--config.train.microbatches=4",),
    packed=("--config.train.microbatches=2", _WHOLE_ROWS),
    lora=("--config.train.microbatches=4",),
  ),
  **x_instructblip("_h200", "--topology=h200:8", "--config.mesh.tensor=1"),
  "llava_7b_stage2_one_h200": (
    LLAVA["stage2"].format("7b"),
    ("--topology=h200:1", "--config.train.microbatches=64"),
  ),
}
ALL = PLANS | GPU_PLANS


def run(config: str, more: Sequence[str]) -> dict[str, Any]:
  """One plan, in a process of its own."""
  with tempfile.TemporaryDirectory() as folder:
    target = Path(folder) / "plan.json"
    command = [sys.executable, "-m", "mmjax.cli.main", "plan"]
    command += ["--config", config, *more]
    said = Path(folder) / "said.txt"
    started = time.monotonic()
    with said.open("w") as file:
      process = subprocess.Popen(
        [*command, "--json", str(target)], stdout=file, stderr=file
      )
      # Its own memory, not the largest of all children's.
      _, _, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - started
    if not target.exists():
      raise RuntimeError(f"{config}: {said.read_text()[-2000:]}")
    found = json.loads(target.read_text())
  shown = " ".join(["mmjax plan", *command[4:]])
  return found | {
    "command": shown,
    "took": took,
    "cpu": usage.ru_utime + usage.ru_stime,
    # Of this process and of the compiler's, each at its largest.
    "host_bytes": usage.ru_maxrss * 1024,
  }


def row(name: str, plan: Mapping[str, Any]) -> list[str]:
  """A line of the table."""
  count = sum(r["count"] for r in plan["parameters"])
  trains = sum(r["count"] for r in plan["parameters"] if r["trainable"])
  mesh = " ".join(f"{k}={v}" for k, v in plan["mesh"].items() if v > 1)
  (step,) = plan["programs"]
  memory, times = step["memory"], step["times"]
  return [
    name,
    plan["topology"],
    mesh,
    f"{count / 1e9:.2f} B, {trains / 1e9:.2f} B train",
    f"{size(memory['peak'])} of {size(memory['limit'])}",
    "fits" if plan["fits"] else "does not fit",
    f"{step['operations']:.3g}",
    f"{seconds(times['step'])} ({times['bound']})",
    f"{step['mfu_bound']:.0%}",
    f"{step['tokens_per_second']:,.0f} / {step['media_per_second']:,.0f}",
    f"{plan['took']:.0f} s, {size(plan['host_bytes'])}",
  ]


def markdown(plans: Mapping[str, Mapping[str, Any]]) -> str:
  """The table of all plans that were made."""
  head = [
    *("config", "topology", "mesh", "parameters", "memory a device", ""),
    *("model FLOPs a step", "step at least", "MFU at most"),
    *("tokens / media a second at most", "planning took"),
  ]
  lines = [
    "# Plans of the full-size configs",
    "",
    "- command: `python -m benchmarks.plans`; each is `mmjax plan "
    "--config CONFIG` with the topology that the config names",
    f"- machine: {os.cpu_count()} cores, no accelerator. Nothing here was run: "
    "figures are of compiled programs and data sheets",
    "- planning is that of the command; its memory that of the larger of two "
    "processes, itself and the compiler",
    *(f"- {text}" for text in CONVENTIONS),
    "",
    "| " + " | ".join(head) + " |",
    "|" + "---|" * len(head),
    *(
      "| " + " | ".join(row(name, plans[name])) + " |"
      for name in ALL
      if name in plans
    ),
  ]
  return "\n".join(lines) + "\n"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("names", nargs="*", help="parts of names; default all")
  parser.add_argument("--again", action="store_true")
  args = parser.parse_args()
  store = RESULTS / "plans.json"
  plans = json.loads(store.read_text()) if store.exists() else {}
  for name in ALL:
    wanted = not args.names or any(part in name for part in args.names)
    if not wanted or (name in plans and not args.again):
      continue
    found = run(*ALL[name])
    if found["unchecked"]:
      print(f"{name} is left out: {found['unchecked'][0]}")
      continue
    plans[name] = found
    print(" | ".join(row(name, plans[name])), flush=True)
    store.write_text(json.dumps(plans, indent=1) + "\n")
    (RESULTS / "plans.md").write_text(markdown(plans))


if __name__ == "__main__":
  main()
