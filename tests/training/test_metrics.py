"""Means over steps, and every place they are written to."""

import io
import json
import logging
import math
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.training import metrics


def test_sums_weigh_by_count():
  sums = metrics.Sums()
  sums.add({"loss": (jnp.float32(6), jnp.int32(2)), "lr": 0.5})
  sums.add({"loss": (2.0, 6), "lr": np.float32(1.5)})
  assert sums.take() == {"loss": 1.0, "lr": 1.0}
  assert sums.take() == {}


def test_sums_of_nothing_are_not_a_number():
  sums = metrics.Sums()
  sums.add({"loss": (0.0, 0)})
  assert math.isnan(sums.take()["loss"])


def test_jsonl_there_and_back(tmp_path):
  path = tmp_path / "run" / "metrics.jsonl"
  writer = metrics.JsonlWriter(path, clock=lambda: 7.0)
  writer.write(1, {"loss": 2.5})
  writer.write(2, {"loss": math.nan, "norm": math.inf})
  for line in path.read_text().splitlines():
    # Strict JSON, on the disk before the writer is closed.
    json.loads(line, parse_constant=lambda name: pytest.fail(name))
  writer.close()
  one, two = metrics.read_jsonl(path)
  assert one == {"step": 1, "time": 7, "loss": 2.5}
  assert math.isnan(two["loss"]) and two["norm"] == math.inf


def test_jsonl_of_a_killed_and_resumed_run(tmp_path, caplog):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 3')
  writer = metrics.JsonlWriter(path)
  writer.write(2, {"loss": 2.5})
  writer.write(3, {"loss": 1.5})
  writer.close()
  with caplog.at_level(logging.WARNING):
    lines = metrics.read_jsonl(path)
  assert [(x["step"], x["loss"]) for x in lines] == [(1, 3), (2, 2.5), (3, 1.5)]
  assert "line 3" in caplog.text
  # A run that goes on with other steps between its lines.
  path.write_text('{"step": 25, "loss": 1}\n{"step": 20, "loss": 2}\n')
  assert [line["step"] for line in metrics.read_jsonl(path)] == [20, 25]


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def _run(file, total=100, step_seconds=0.05):
  times = iter([0.0] + [30 + step_seconds * 10 * i for i in range(100)])
  bar = metrics.Progress(total, file=file, clock=lambda: next(times))
  for step in range(10, total + 1, 10):
    bar.write(step, {"loss": 1.0 + 1 / step, "hidden": 5.0})
  bar.close()
  return file.getvalue()


def test_terminal_shows_a_bar(monkeypatch):
  monkeypatch.setenv("COLUMNS", "80")
  written = _run(_Terminal())
  assert written.endswith("\n") and written.count("\n") == 1
  frames = written.rstrip("\n").split("\r")[1:]
  assert len(frames) == 10 and {len(f) for f in frames} == {79}
  assert " 50/100 ███████████████ " in frames[4]
  assert "50%" in frames[4] and "loss 1.02" in frames[4]
  assert "hidden" not in written and "left" not in frames[0]
  assert "0:00 left" in frames[-1]


def test_a_narrow_terminal_is_not_broken(monkeypatch):
  monkeypatch.setenv("COLUMNS", "20")
  frames = _run(_Terminal()).rstrip("\n").split("\r")[1:]
  assert {len(f) for f in frames} == {19}


def test_a_file_gets_plain_lines():
  written = _run(io.StringIO())
  lines = written.splitlines()
  assert "\r" not in written and 2 <= len(lines) < 10
  assert lines[0] == "10/100  loss 1.1"
  assert lines[-1].startswith("100/100  loss 1.01  ")


def test_step_time_and_time_left():
  times = iter([0.0, 1.0, 2.0])
  file = io.StringIO()
  bar = metrics.Progress(1000, file=file, every=0.0, clock=lambda: next(times))
  for step in (0, 10, 20):
    bar.write(step, {})
  assert file.getvalue().splitlines()[-1] == "20/1000  100 ms/step  1:38 left"


@pytest.mark.parametrize(
  "seconds,text",
  [
    (5.0, "0:05"),
    (83.4, "1:23"),
    (7384.0, "2:03:04"),
    (93784.0, "1 d 2:03:04"),
  ],
)
def test_clock_time(seconds, text):
  assert metrics.clock_time(seconds) == text


@pytest.mark.parametrize(
  "seconds,text", [(0.0451, "45.1 ms"), (1.254, "1.25 s"), (2000.0, "2000 s")]
)
def test_duration(seconds, text):
  assert metrics.duration(seconds) == text


def test_open_writers_write_everywhere(tmp_path, capsys):
  pytest.importorskip("tensorboardX")
  with metrics.open_writers(tmp_path, total=2) as writer:
    writer.write(1, {"loss": jnp.float32(2.0)})
    writer.write(2, {"loss": np.float64(1.0)})
  assert [
    x["loss"] for x in metrics.read_jsonl(tmp_path / "metrics.jsonl")
  ] == [
    2.0,
    1.0,
  ]
  assert "2/2  loss 1" in capsys.readouterr().err
  (events,) = (tmp_path / "tensorboard").iterdir()
  assert b"loss" in events.read_bytes()


def test_absent_packages_are_named_and_left_out(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
  with caplog.at_level(logging.WARNING):
    writer = metrics.open_writers(tmp_path, total=1, wandb={"project": "x"})
  assert [type(w).__name__ for w in writer.writers] == [
    "JsonlWriter",
    "Progress",
  ]
  writer.close()
  assert "tensorboardX" in caplog.text and "pip install wandb" in caplog.text


def test_wandb_gets_the_values(tmp_path, monkeypatch):
  logged = []
  run = types.SimpleNamespace(
    log=lambda values, step: logged.append((step, values)),
    finish=lambda: logged.append("closed"),
  )
  fake = types.SimpleNamespace(init=lambda **options: run)
  monkeypatch.setitem(sys.modules, "wandb", fake)
  writer = metrics.WandbWriter(tmp_path, project="x")
  writer.write(3, {"loss": 1.0})
  writer.close()
  assert logged == [(3, {"loss": 1.0}), "closed"]
