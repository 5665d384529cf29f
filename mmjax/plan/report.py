"""A plan as text and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mmjax.plan.planning import Estimate, Plan

CONVENTIONS = (
  "FLOPs are those of matrix products and convolutions, two a multiply-add; "
  "attention counts all pairs of positions (no causal halving); padding and "
  "empty media slots count; frozen layers count forward, and backward where a "
  "gradient passes through, without gradients of their weights; model FLOPs "
  "leave out what rematerialisation does again.",
  "The roofline lets computation, memory and network work at the same time at "
  "their data-sheet rates, links in one direction: no run is faster.",
)


def as_dict(plan: Plan, tokens: float | None = None) -> dict[str, Any]:
  """All figures, JSON; times in seconds, sizes in bytes."""
  topology = plan.topology
  return {
    "topology": topology.name,
    "devices": topology.size,
    "chip": dataclasses.asdict(topology.chip),
    "mesh": dict(plan.mesh),
    "fits": plan.fits,
    "parameters": plan.parameters,
    "programs": [_program(plan, p) for p in plan.programs],
    "budget": budget(plan, tokens),
    "unchecked": list(plan.unchecked),
    "conventions": list(CONVENTIONS),
  }


def _program(plan: Plan, program: Estimate) -> dict[str, Any]:
  times, found = program.times, dataclasses.asdict(program)
  found["memory"]["fits"] = program.memory.fits
  found["times"] |= {"step": times.seconds, "bound": times.bound}
  found["mfu_bound"] = program.mfu(plan.topology)
  found["tokens_per_second"] = program.tokens / times.seconds
  found["media_per_second"] = program.media / times.seconds
  return found


def budget(plan: Plan, tokens: float | None) -> dict[str, float] | None:
  """Days and device-hours for so many positions of text, at the bound."""
  training = [p for p in plan.programs if p.name.startswith("train")]
  if not (tokens and training):
    return None
  seconds = sum(p.times.seconds for p in training)
  steps = tokens / sum(p.tokens for p in training)
  return {
    "tokens": tokens,
    "steps": steps,
    "days": steps * seconds / 86400,
    "device_hours": steps * seconds * plan.topology.size / 3600,
  }


def as_text(plan: Plan, tokens: float | None = None) -> str:
  """What a terminal shows."""
  topology = plan.topology
  axes = " x ".join(f"{k}={v}" for k, v in plan.mesh.items())
  lines = [f"{topology.name}: {topology.size} devices, mesh {axes}", ""]
  lines += _parameters(plan.parameters)
  for program in plan.programs:
    lines += ["", *_lines(plan, program)]
  if found := budget(plan, tokens):
    lines += [
      "",
      f"{found['tokens']:.3g} tokens: {found['steps']:,.0f} steps, "
      f"{found['days']:.2f} days, {found['device_hours']:,.0f} device-hours "
      "at least",
    ]
  if topology.chip.guessed:
    lines += ["", f"No data sheet gives: {', '.join(topology.chip.guessed)}"]
  lines += [f"Not checked: {x}" for x in plan.unchecked]
  return "\n".join(lines)


def _parameters(rows: Sequence[dict[str, Any]]) -> list[str]:
  head = ("component", "", "parameters", "bytes", "a device", "cut over")
  table = [head] + [
    (
      row["component"],
      "trains" if row["trainable"] else "frozen",
      f"{row['count']:,}",
      size(row["bytes"]),
      size(row["device_bytes"]),
      ", ".join(f"{k}: {v}" for k, v in sorted(row["sharding"].items())) or "-",
    )
    for row in rows
  ]
  count = sum(row["count"] for row in rows)
  trains = sum(row["count"] for row in rows if row["trainable"])
  whole = sum(row["bytes"] for row in rows)
  device = sum(row["device_bytes"] for row in rows)
  table.append(("total", "", f"{count:,}", size(whole), size(device), ""))
  return [*_columns(table), f"{trains:,} of them train"]


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
  left = (0, 1, len(widths) - 1)
  return [
    "  ".join(
      x.ljust(w) if i in left else x.rjust(w)
      for i, (x, w) in enumerate(zip(row, widths))
    ).rstrip()
    for row in table
  ]


def _lines(plan: Plan, program: Estimate) -> list[str]:
  memory, times, topology = program.memory, program.times, plan.topology
  verdict = "fits" if memory.fits else "DOES NOT FIT"
  how = "" if memory.compiled else " (estimated from shapes)"
  rest = "?" if memory.temporaries is None else size(memory.temporaries)
  lines = [
    f"{program.name}: {verdict}{how}",
    f"  memory a device   {size(memory.peak)} of {size(memory.limit)}: "
    f"arguments {size(memory.arguments)}, temporaries {rest}",
    f"  model FLOPs       {program.operations:.4g}"
    + (
      f"; {program.executed:.4g} with recomputation"
      if program.executed != program.operations
      else ""
    ),
  ]
  share = (program.multiplied or 0) * topology.size / program.executed
  if share > 1.05:
    lines.append(
      f"  done alike        a device multiplies {share:.2f} times its share"
    )
  if program.traffic is not None:
    lines.append(f"  memory traffic    {size(program.traffic)} a device")
  for c in program.talk or ():
    far = ", between slices" if c.between else ""
    lines.append(
      f"  {c.kind:<17} {c.runs} runs of {c.count} over {c.axes}{far}: "
      f"{size(c.bytes)}, a device sends {size(c.sent)}"
    )
  parts = [
    f"{name} {seconds(t)}"
    for name, t in dataclasses.asdict(times).items()
    if t is not None
  ]
  speed = program.tokens / times.seconds
  lines += [
    f"  step at least     {seconds(times.seconds)} ({times.bound}): "
    + ", ".join(parts),
    f"  at most           {program.mfu(plan.topology):.1%} MFU, "
    f"{speed:,.0f} tokens/s, {program.media / times.seconds:,.0f} media/s",
  ]
  if program.compile_seconds is not None:
    lines.append(f"  compiled in       {program.compile_seconds:.0f} s")
  return lines


def size(count: float) -> str:
  """Bytes for people."""
  for unit in ("B", "KiB", "MiB", "GiB"):
    if abs(count) < 1024:
      return f"{count:.0f} B" if unit == "B" else f"{count:.2f} {unit}"
    count /= 1024
  return f"{count:.2f} TiB"


def seconds(time: float) -> str:
  """A short time for people."""
  if time < 1e-3:
    return f"{time * 1e6:.3g} us"
  return f"{time * 1e3:.3g} ms" if time < 1 else f"{time:.3g} s"
