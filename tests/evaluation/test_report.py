"""The report: whole, self-contained, and safe whatever a run holds."""

import base64
import html.parser
import io
import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mmjax.data.document import Document, Media, Text
from mmjax.evaluation import charts, gallery, report
from mmjax.evaluation.markup import element, page
from mmjax.training.metrics import JsonlWriter

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x00\ud800"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class _Reader(html.parser.HTMLParser):
  """Collects elements, and fails on ones that are not closed in order."""

  def __init__(self, text):
    super().__init__()
    self.open, self.found, self.text = [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attributes):
    self.found.append((tag, dict(attributes)))
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)

  def all(self, tag):
    return [attributes for t, attributes in self.found if t == tag]


def _document():
  rng = np.random.default_rng(0)
  picture = rng.integers(0, 255, (300, 200, 3), np.uint8)
  encoded = io.BytesIO()
  Image.fromarray(picture[:50]).save(encoded, "JPEG")
  return Document(
    (
      Media("image", picture),
      Text("Output: a cat", end=True),
      Media("image", encoded.getvalue()),
      Text(EVIL),
    ),
    id="x",
  )


def _write_run(directory, text="plain"):
  record = {"task": "naming", "shots": 1, "control": "none", "score": 0.0}
  record |= {"prediction": text, "answers": ["fox", "fox"]}
  scores = [
    {
      "task": task,
      "metric": "exact",
      "shots": shots,
      "control": control,
      "score": score + shots,
      "deviation": 1.5,
      "count": 60,
    }
    for task in ("naming", text)
    for shots in (0, 4)
    for control, score in (("none", 80.0), ("wrong_query", 31.5), (text, 85.0))
  ]
  results = {
    "title": text,
    "subtitle": text,
    "tasks": {"naming": {"title": "Naming", "note": text}},
    "results": scores,
    "episodes": [gallery.episode(_document(), record, directory)],
    "facts": {text: text, "seed": 0},
    "parameters": [
      {"component": text, "state": "trained", "count": 1234567},
      {"component": "vision", "state": "frozen", "count": 10},
    ],
    "config": {text: [text]},
  }
  (directory / "results.json").write_text(json.dumps(results))
  writer = JsonlWriter(directory / "metrics.jsonl")
  for step in range(0, 2000):
    loss = math.nan if step == 7 else 1 / (step + 1)
    writer.write(
      step,
      {
        "loss": loss,
        "gates/attention/0": 0.0,
        "gates/attention/10": -step / 4000,
        "gates/attention/2": step / 8000,
      },
    )
  writer.close()


def test_report_of_a_run(tmp_path):
  _write_run(tmp_path)
  path = report.build(tmp_path)
  assert path == tmp_path / "report.html"
  read = _Reader(path.read_text("utf-8"))
  text = " ".join(read.text)
  for expected in ("84.0", "± 1.5", "+48.5", "-5.0", "1,234,567", "fox"):
    assert expected in text, expected
  assert "+48.5 points over a wrong image" in text
  # Each block once, in the order of the stack.
  blocks = re.findall(r"block (\d+)", text)
  assert blocks == ["0", "2", "10"]
  assert report.build(tmp_path).read_text("utf-8") == path.read_text("utf-8")


def test_report_needs_no_other_file_and_no_script(tmp_path):
  _write_run(tmp_path)
  text = report.build(tmp_path).read_text("utf-8")
  read = _Reader(text)
  sources = [a["src"] for a in read.all("img")]
  assert len(sources) == 2
  for source in sources:
    head, data = source.split(",", 1)
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "PNG" and max(image.size) <= gallery.THUMBNAIL
  assert not re.search(r"https?:|url\(|@import", text)
  assert not {"script", "link", "iframe", "object"} & {t for t, _ in read.found}
  (policy,) = (a for a in read.all("meta") if "http-equiv" in a)
  assert policy["content"].startswith("default-src 'none'")


def test_nothing_in_a_run_becomes_markup(tmp_path):
  _write_run(tmp_path, text=EVIL)
  text = report.build(tmp_path).read_text("utf-8")
  read = _Reader(text)
  assert not read.all("script") and len(read.all("img")) == 2
  for _, attributes in read.found:
    assert not any(name.startswith("on") for name in attributes)
  assert "<script>alert(1)</script>" in " ".join(read.text)
  assert "\x00" not in text


def test_charts_are_well_formed_xml(tmp_path):
  _write_run(tmp_path)
  text = report.build(tmp_path).read_text("utf-8")
  drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
  assert len(drawings) == 4  # loss, gates, and the scores of two tasks
  for drawing in drawings:
    root = ElementTree.fromstring(drawing)
    for path in root.iter("path"):
      numbers = re.findall(r"[\d.]+", path.get("d"))
      assert numbers and "nan" not in path.get("d")
      xs, ys = map(float, numbers[0::2]), map(float, numbers[1::2])
      assert all(0 <= x <= charts.WIDTH for x in xs)
      assert all(0 <= y <= charts.HEIGHT for y in ys)
      assert len(numbers) <= 2 * charts.MOST_POINTS


def test_the_smoothed_loss_of_a_short_run_does_not_lag():
  metrics = [{"step": 25 * i, "loss": 8 * 0.5**i} for i in range(28)]
  text = report.render({}, metrics)
  thin, thick = re.findall(r'<path d="M([^"]*)"', text)
  ends = [
    [float(point.split()[1]) for point in path.split("L")]
    for path in (thin, thick)
  ]
  assert len(ends[0]) == len(ends[1]) == 28
  # Pixels, of which the chart is 218 high.
  assert max(abs(a - b) for a, b in zip(*ends)) < 40
  assert abs(ends[0][10] - ends[1][10]) < 2
  assert "thick ones smoothed" in text and "A gate is" not in text


def test_an_empty_run_still_has_a_report():
  read = _Reader(report.render({}))
  assert "Report" in read.text and not read.all("table")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname"])
def test_no_picture_from_outside_the_run(tmp_path, name):
  (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n")
  run = tmp_path / "run"
  run.mkdir()
  with pytest.raises(ValueError, match="not inside"):
    report.render({"episodes": [{"parts": [{"image": name}]}]}, (), run)


def test_what_is_no_picture_is_named(tmp_path):
  (tmp_path / "x.png").write_text("<svg onload=alert(1)>")
  with pytest.raises(ValueError, match="'x.png' is no PNG"):
    report.render({"episodes": [{"parts": [{"image": "x.png"}]}]}, (), tmp_path)
  media = Media("image", np.zeros((2, 2, 3), np.float32))
  with pytest.raises(ValueError, match="float32"):
    gallery.save_image(media, tmp_path)


def test_pictures_are_saved_once(tmp_path):
  media = Media("video", np.zeros((4, 8, 8, 3), np.uint8))
  assert gallery.save_image(media, tmp_path) == gallery.save_image(
    media, tmp_path
  )
  (saved,) = (tmp_path / "images").iterdir()
  assert Image.open(saved).size == (8, 8)


def test_page_escapes_text_and_attributes():
  text = page("a<b", "p > b { color: red }", element("p", "1<2", id='"x"'))
  assert "<title>a&lt;b</title>" in text and "p > b {" in text
  assert '<p id="&quot;x&quot;">1&lt;2</p>' in text


def test_element_takes_text_between_elements():
  made = element("p", "a", [element("b", 1), None, "c"], "d", class_="x")
  assert ElementTree.tostring(made) == b'<p class="x">a<b>1</b>cd</p>'


@pytest.mark.parametrize(
  "low,high,expected",
  [
    (0.3, 9.0, [0, 2, 4, 6, 8, 10]),
    (0.0, 100.0, [0, 20, 40, 60, 80, 100]),
    (5.0, 5.0, [4.4, 4.6, 4.8, 5.0, 5.2, 5.4, 5.6]),
    (-0.02, 0.01, [-0.02, -0.015, -0.01, -0.005, 0, 0.005, 0.01]),
  ],
)
def test_ticks_cover_the_range(low, high, expected):
  made = charts.ticks(low, high)
  assert made[0] <= low and made[-1] >= high and len(made) <= 8
  if low < high:
    assert made == pytest.approx(expected)


def test_smooth_has_no_bias_and_thin_keeps_means():
  assert charts.smooth([(float(i), 3.0) for i in range(5)], 0.9)[0][1] == (
    pytest.approx(3.0)
  )
  points = [(float(i), float(i)) for i in range(1000)]
  thinned = charts.thin([*points, (1000.0, math.nan)], most=10)
  assert len(thinned) == 10 and thinned[0] == (49.5, 49.5)


def test_a_chart_of_nothing_says_so():
  empty = charts.Line([(0.0, math.nan)])
  made = charts.line_chart("t", {"a": empty}, x_label="x", y_label="y")
  assert b"No data" in ElementTree.tostring(made)
