"""The demo from training to report, with a model too small to learn."""

import json

import pytest

from mmjax.cli.demo import demo
from tests.training.child import tiny


@pytest.mark.heavy
def test_report_stands_beside_a_model_that_reads_only_text(tmp_path, capsys):
  config = tiny(2)
  config.train.plan.update(checkpoint_every=2)
  config.text_only.steps = 1
  config.evaluate.update(shots=[0, 1], count=16)
  config.evaluate.prompt.update(length=40, media=3)
  path = demo(config, tmp_path)
  results = json.loads((tmp_path / "results.json").read_text())["results"]
  cells = {(r["task"], r["shots"], r["control"]) for r in results}
  tasks = {("bind", 1), ("category", 0), ("category", 1)}
  assert {(*t, c) for t in tasks for c in ("none", "text_only")} <= cells
  report = path.read_text()
  assert "Text-only model" in report and "|tanh α|" in report
  assert "text_only" in capsys.readouterr().out
  # Asked again, nothing trains a second time, and the table is the same.
  demo(config, tmp_path)
  again = json.loads((tmp_path / "results.json").read_text())["results"]
  assert again == results
