"""Line charts as inline SVG."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from mmjax.evaluation.markup import Element, element

WIDTH, HEIGHT = 520, 270
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 40
MOST_POINTS = 400

INK, MUTED, GRID = "#1c2430", "#667085", "#e4e7ec"
# Told apart by those who do not see all colours; the first is the result.
COLORS = ("#1d4ed8", "#d97706", "#0f766e", "#be185d", "#6b7280", "#7c3aed")

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of a chart.

  Attributes:
    points: (x, y), in the order of x; points that are no number are gaps.
    color: of the line.
    width: of the line.
    opacity: of the line.
    marks: whether each point is a dot.
    dashes: the SVG pattern of a broken line, or none.
  """

  points: Points
  color: str = COLORS[0]
  width: float = 1.8
  opacity: float = 1.0
  marks: bool = False
  dashes: str | None = None


def line_chart(
  title: str,
  lines: Mapping[str, Line],
  *,
  x_label: str,
  y_label: str,
  y_range: tuple[float, float] | None = None,
  x_ticks: Sequence[float] | None = None,
  legend: bool = True,
) -> Element:
  """A chart with its title and legend.

  Args:
    title: over the chart.
    lines: by what the legend calls them; a name that starts with "_" is not
      in it.
    x_label: under the x axis.
    y_label: over the y axis.
    y_range: at least this much of y is shown.
    x_ticks: where the x axis is marked; without them, at round numbers.
    legend: whether there is one.
  """
  finite = [p for line in lines.values() for p in line.points if _is_finite(p)]
  if not finite:
    return element(
      "figure", element("figcaption", title), element("p", "No data.")
    )
  xs, ys = zip(*finite)
  ys += tuple(y_range or ())
  scale = _Scale((min(xs), max(xs)), (min(ys), max(ys)))
  figure = element(
    "svg",
    element("title", title),
    _axes(scale, x_ticks, x_label, y_label),
    [_drawn(line, scale) for line in lines.values()],
    viewBox=f"0 0 {WIDTH} {HEIGHT}",
    role="img",
  )
  names = {k: v for k, v in lines.items() if not k.startswith("_")}
  return element(
    "figure",
    element("figcaption", title),
    figure,
    _legend(names) if legend and len(names) > 1 else None,
    class_="chart",
  )


class _Scale:
  """Data to places in the picture; the axes end at round numbers."""

  def __init__(self, x: tuple[float, float], y: tuple[float, float]):
    self.x = x if x[0] < x[1] else (x[0] - 1, x[1] + 1)
    self.y_ticks = ticks(*y)
    self.y = (self.y_ticks[0], self.y_ticks[-1])

  def at(self, x: float, y: float) -> tuple[float, float]:
    across = (x - self.x[0]) / (self.x[1] - self.x[0])
    up = (y - self.y[0]) / (self.y[1] - self.y[0])
    return (
      round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
      round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
  """Round numbers around a range: ticks(0.3, 9) is 0, 2, 4, 6, 8, 10."""
  if not low < high:
    low, high = low - 0.5, high + 0.5
  rough = (high - low) / count
  power = 10.0 ** math.floor(math.log10(rough))
  step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [round(i * step, 12) for i in range(first, last + 1)]


def smooth(points: Points, weight: float) -> list[tuple[float, float]]:
  """Exponential mean of y, unbiased at the start; gaps stay out."""
  total = norm = 0.0
  made = []
  for x, y in filter(_is_finite, points):
    total = weight * total + (1 - weight) * y
    norm = weight * norm + (1 - weight)
    made.append((x, total / norm))
  return made


def thin(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
  """At most so many points: the mean of each stretch."""
  points = list(filter(_is_finite, points))
  size = max(math.ceil(len(points) / most), 1)
  stretches = [points[i : i + size] for i in range(0, len(points), size)]
  return [
    tuple(math.fsum(values) / len(s) for values in zip(*s)) for s in stretches
  ]


def ramp(count: int) -> list[str]:
  """Colours from light to dark, for layers in their order."""
  light, dark = (0xF2, 0xB1, 0x3C), (0x4C, 0x1D, 0x95)
  made = []
  for i in range(count):
    t = i / max(count - 1, 1)
    mixed = (round(a + t * (b - a)) for a, b in zip(light, dark))
    made.append("#" + "".join(f"{c:02x}" for c in mixed))
  return made


def _axes(scale, x_ticks, x_label: str, y_label: str) -> list[Element]:
  made = []
  for y in scale.y_ticks:
    _, place = scale.at(scale.x[0], y)
    made.append(_rule(LEFT, place, WIDTH - RIGHT, place, GRID))
    made.append(_label(LEFT - 8, place + 4, _number(y), "end"))
  inside = x_ticks or [
    x for x in ticks(*scale.x) if scale.x[0] <= x <= scale.x[1]
  ]
  bottom = HEIGHT - BOTTOM
  for x in inside:
    place, _ = scale.at(x, scale.y[0])
    made.append(_rule(place, bottom, place, bottom + 4, MUTED))
    made.append(_label(place, bottom + 17, _number(x), "middle"))
  made.append(_rule(LEFT, bottom, WIDTH - RIGHT, bottom, MUTED))
  middle = (LEFT + WIDTH - RIGHT) / 2
  made.append(_label(middle, HEIGHT - 6, x_label, "middle"))
  made.append(
    element(
      "text",
      y_label,
      transform=f"translate(12 {(TOP + bottom) / 2:g}) rotate(-90)",
      text_anchor="middle",
      fill=MUTED,
    )
  )
  return made


def _rule(x1, y1, x2, y2, color: str) -> Element:
  return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=color)


def _label(x, y, text: str, anchor: str) -> Element:
  return element("text", text, x=x, y=y, text_anchor=anchor, fill=MUTED)


def _drawn(line: Line, scale: _Scale) -> list[Element]:
  command, path, dots = "M", [], []
  for point in line.points:
    if not _is_finite(point):
      command = "M"
      continue
    x, y = scale.at(*point)
    path.append(f"{command}{x:g} {y:g}")
    command = "L"
    if line.marks:
      dots.append(element("circle", cx=x, cy=y, r=3.2, fill=line.color))
  stroke = element(
    "path",
    d=" ".join(path),
    fill="none",
    stroke=line.color,
    stroke_width=line.width,
    stroke_opacity=line.opacity,
    stroke_linejoin="round",
    stroke_dasharray=line.dashes,
  )
  return [stroke, *dots]


def _legend(lines: Mapping[str, Line]) -> Element:
  return element(
    "ul",
    [
      element("li", element("i", style=f"background:{line.color}"), name)
      for name, line in lines.items()
    ],
    class_="legend",
  )


def _is_finite(point: tuple[float, float]) -> bool:
  return all(map(math.isfinite, point))


def _number(value: float) -> str:
  if abs(value) >= 1e6:
    return f"{value / 1e6:g}M"
  return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"
