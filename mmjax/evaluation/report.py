"""A run as one HTML file: tables, curves, gates and episodes with pictures.

  build("runs/demo")    reads   runs/demo/results.json, metrics.jsonl, images/
                        writes  runs/demo/report.html

`results.json` holds any of these, and the report shows what is there:

  title, subtitle   text
  tasks             {name: {"title": ..., "note": ...}}
  results           [Result.summary(), ...]  of `in_context.evaluate`
  episodes          [gallery.episode(...), ...]
  facts             {"seed": 0, "training time": "4:10", ...}
  parameters        [{"component", "state": "trained" or "frozen", "count"}]
  config            nested dicts

`metrics.jsonl` gives the loss ("loss", "<dataset>/loss") and the gates
("gates/attention/<block>", "gates/dense/<block>": tanh of alpha). The file
loads nothing and runs no script: pictures are inside it, charts are SVG.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.evaluation import charts, gallery
from mmjax.evaluation.charts import Line
from mmjax.evaluation.gallery import (
  CONTROLS,
  control_text,
  shots_text,
  title_text,
)
from mmjax.evaluation.markup import Element, element, page
from mmjax.evaluation.style import STYLE
from mmjax.training.metrics import read_jsonl

_ABOUT_LOSSES = (
  "The loss is the mean over the learned tokens of a data set, or of all of "
  "them; thin lines are as it was logged, thick ones smoothed."
)
_ABOUT_GATES = (
  "A gate is how much of what a block makes of the pictures is added to the "
  "text: at 0 the language model sees none."
)
_GATE = re.compile(r"gates/(?P<kind>[^/]+)/(?P<block>.+)")

Results = Mapping[str, Any]
Metrics = Sequence[Mapping[str, float]]


def build(directory: str | Path) -> Path:
  """Writes `report.html` of a run's directory and returns its path."""
  directory = Path(directory)
  results = json.loads((directory / "results.json").read_text("utf-8"))
  lines = directory / "metrics.jsonl"
  metrics = read_jsonl(lines) if lines.exists() else []
  target = directory / "report.html"
  target.write_text(render(results, metrics, directory), "utf-8")
  return target


def render(
  results: Results, metrics: Metrics = (), directory: str | Path = "."
) -> str:
  """The report as HTML.

  Args:
    results: what `results.json` holds.
    metrics: what `metrics.jsonl` holds.
    directory: where the pictures of episodes are.
  """
  title = results.get("title", "Report")
  scores = results.get("results", ())
  named = results.get("tasks", {})
  episodes = results.get("episodes", ())
  return page(
    title,
    STYLE,
    element("h1", title),
    element("p", results.get("subtitle"), class_="muted"),
    _tiles(scores, named),
    _scores(scores, named),
    _training(metrics),
    gallery.section(episodes, named, Path(directory)),
    _run(results),
  )


def _tiles(scores: Sequence[Mapping], named: Mapping) -> Element | None:
  """For every task its result at the most shots, and how much media gave."""
  tiles = []
  for task, cells in _by_task(scores).items():
    shots = max((s for s, control in cells if control == "none"), default=None)
    if shots is None:
      continue
    score, other = cells[shots, "none"], cells.get((shots, "wrong_query"))
    margin = None
    if other is not None:
      points = score["score"] - other["score"]
      margin = element("small", f"{points:+.1f} points over a wrong image")
    tiles.append(
      element(
        "div",
        element("small", f"{title_text(task, named)}, {shots_text(shots)}"),
        element("b", f"{score['score']:.1f}"),
        margin,
        class_="tile",
      )
    )
  return element("div", tiles, class_="tiles") if tiles else None


def _scores(scores: Sequence[Mapping], named: Mapping) -> list | None:
  if not scores:
    return None
  made = [
    element("h2", "What the model knows, and whether it looked"),
    element(
      "p",
      "Each score stands beside its controls, the same questions with some "
      "media taken away. In green, the points that the media were worth; a "
      "result that a control also reaches shows nothing.",
      class_="note",
    ),
  ]
  for task, cells in _by_task(scores).items():
    metric = next(iter(cells.values())).get("metric", "")
    made += [
      element("h3", title_text(task, named)),
      element("p", _note(task, metric, cells, named), class_="note"),
      element(
        "div",
        element("div", _table(cells), class_="scroll"),
        _curve(cells),
        class_="pair",
      ),
    ]
  return made


def _by_task(scores: Sequence[Mapping]) -> dict[str, dict]:
  """{task: {(shots, control): result}}, in the order of the list."""
  tasks: dict[str, dict] = {}
  for score in scores:
    cells = tasks.setdefault(score["task"], {})
    cells[score["shots"], score["control"]] = score
  return tasks


def _note(task: str, metric: str, cells: Mapping, named: Mapping) -> str:
  counts = sorted({c["count"] for c in cells.values() if "count" in c})
  parts = [
    named.get(task, {}).get("note"),
    f"Metric: {metric}, in percent." if metric else None,
    f"{counts[-1]} answers a cell." if counts else None,
  ]
  return " ".join(p for p in parts if p)


def _controls(cells: Mapping) -> list[str]:
  found = {control for _, control in cells}
  return [c for c in CONTROLS if c in found] + sorted(found - set(CONTROLS))


def _table(cells: Mapping) -> Element:
  controls = _controls(cells)
  head = element(
    "tr",
    element("th", "Shots"),
    [element("th", control_text(c), class_="number") for c in controls],
  )
  rows = [
    element(
      "tr",
      element("td", shots),
      [_cell(cells, shots, control) for control in controls],
    )
    for shots in sorted({s for s, _ in cells})
  ]
  return element("table", element("thead", head), element("tbody", rows))


def _cell(cells: Mapping, shots: int, control: str) -> Element:
  cell, whole = cells.get((shots, control)), cells.get((shots, "none"))
  if cell is None:
    return element("td", "–", class_="number")
  below = None
  if control == "none":
    if cell.get("deviation"):
      below = element("small", f"± {cell['deviation']:.1f}")
    return element("td", f"{cell['score']:.1f}", below, class_="number result")
  if whole is not None:
    points = whole["score"] - cell["score"]
    sign = "up" if points > 0 else "down"
    below = element("small", f"{points:+.1f}", class_=sign)
  return element("td", f"{cell['score']:.1f}", below, class_="number")


def _curve(cells: Mapping) -> Element | None:
  shots = sorted({s for s, _ in cells})
  if len(shots) < 2:
    return None
  lines = {}
  for i, control in enumerate(_controls(cells)):
    points = [
      (float(s), cells[s, control]["score"])
      for s in shots
      if (s, control) in cells
    ]
    whole = control == "none"
    lines[control_text(control)] = Line(
      points,
      color=charts.COLORS[i % len(charts.COLORS)],
      width=2.4 if whole else 1.4,
      dashes=None if whole else "5 4",
      marks=True,
    )
  return charts.line_chart(
    "Score over shots",
    lines,
    x_label="support examples",
    y_label="score, %",
    y_range=(0.0, 0.0),
    x_ticks=[float(s) for s in shots],
  )


def _training(metrics: Metrics) -> list | None:
  losses, gates = list(_losses(metrics)), list(_gates(metrics))
  notes = [_ABOUT_LOSSES] * bool(losses) + [_ABOUT_GATES] * bool(gates)
  if not notes:
    return None
  return [
    element("h2", "Training"),
    element("p", " ".join(notes), class_="note"),
    element("div", losses + gates, class_="pair"),
  ]


def _series(metrics: Metrics, name: str) -> list[tuple[float, float]]:
  return [(m["step"], m[name]) for m in metrics if name in m]


def _names(metrics: Metrics) -> Iterable[str]:
  return dict.fromkeys(name for m in metrics for name in m)


def _losses(metrics: Metrics) -> Iterable[Element]:
  names = [n for n in _names(metrics) if n.split("/")[-1] == "loss"]
  lines: dict[str, Line] = {}
  for i, name in enumerate(names):
    color = charts.COLORS[i % len(charts.COLORS)]
    points = _series(metrics, name)
    # Over a twentieth of a short log; ten lines of it would lag behind.
    weight = min(max(1 - 20 / len(points), 0.0), 0.9)
    lines[f"_{name}"] = Line(charts.thin(points), color, 1.0, opacity=0.3)
    lines[name] = Line(charts.thin(charts.smooth(points, weight)), color, 2.0)
  if lines:
    yield charts.line_chart("Loss", lines, x_label="step", y_label="loss")


def _gates(metrics: Metrics) -> Iterable[Element]:
  """The paper's figure 6: how far each block has opened its gates."""
  kinds: dict[str, list[str]] = {}
  for name in _names(metrics):
    if found := _GATE.fullmatch(name):
      kinds.setdefault(found["kind"], []).append(found["block"])
  for kind, blocks in kinds.items():
    blocks.sort(key=lambda b: (not b.isdigit(), int(b) if b.isdigit() else 0))
    lines = {}
    for color, block in zip(charts.ramp(len(blocks)), blocks):
      points = _series(metrics, f"gates/{kind}/{block}")
      points = charts.thin([(x, abs(y)) for x, y in points])
      lines[f"block {block}"] = Line(points, color)
    yield charts.line_chart(
      f"Gates of the {kind} layers, |tanh α|",
      lines,
      x_label="step",
      y_label="|tanh α|",
      y_range=(0.0, 0.0),
    )


def _run(results: Results) -> list | None:
  facts, parameters = results.get("facts"), results.get("parameters")
  config = results.get("config")
  if not (facts or parameters or config):
    return None
  return [
    element("h2", "The run"),
    element(
      "div",
      _facts(facts) if facts else None,
      _parameters(parameters) if parameters else None,
      class_="pair",
    ),
    element(
      "details",
      element("summary", "Configuration"),
      element("pre", json.dumps(config, indent=2, ensure_ascii=False)),
    )
    if config
    else None,
  ]


def _facts(facts: Mapping[str, Any]) -> Element:
  rows = [
    element("tr", element("th", name), element("td", str(value)))
    for name, value in facts.items()
  ]
  return element("table", element("tbody", rows))


def _parameters(rows: Sequence[Mapping]) -> Element:
  def line(component: str, state: str, count: int) -> Element:
    return element(
      "tr",
      element("td", component),
      element("td", state),
      element("td", f"{count:,}", class_="number"),
    )

  states = dict.fromkeys(r["state"] for r in rows)
  sums = {s: sum(r["count"] for r in rows if r["state"] == s) for s in states}
  head = element(
    "tr",
    element("th", "Component"),
    element("th", "State"),
    element("th", "Parameters", class_="number"),
  )
  body = [line(r["component"], r["state"], r["count"]) for r in rows]
  body += [line("all", state, count) for state, count in sums.items()]
  return element("table", element("thead", head), element("tbody", body))
