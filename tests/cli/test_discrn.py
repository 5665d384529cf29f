"""`mmjax data discrn`, by a language model and from an attribute."""

import json

import pytest

from mmjax.cli import main as cli
from tests.data.captioned import Server, save
from tests.data.instructing import KEY
from tests.data.test_instruct_discrn import TOLD, items, says


@pytest.fixture
def source(tmp_path):
  rows = [
    {**item.row, "caption": item.caption, "category": f"c{k % 3}"}
    for k, item in enumerate(items(6))
  ]
  return save(tmp_path / "captions.jsonl", rows)


def start(source, target, *options):
  return ["data", "discrn", str(target), "--captions", source, *options]


def rows(target):
  return json.loads((target / "discrn.json").read_text())


def test_a_run_and_again(source, tmp_path, monkeypatch, capsys):
  command = start(source, tmp_path / "x", "--model", "m")
  with Server(TOLD, says).running() as server:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert cli.main(command) == 0
    assert cli.main(command) == 0
    assert server.asked.total() == 18
    assert cli.main([*command, "--others", "3"]) == 1
  said = capsys.readouterr()
  assert "others was 100, is 3" in said.err
  assert "The properties of 6 things are known\n" in said.out
  assert said.out.count("6 answers of this request are in") == 2
  assert len(rows(tmp_path / "x")) == 6


@pytest.mark.parametrize("step", ["properties", "question"])
def test_a_data_set_of_nothing_is_no_success(
  step, source, tmp_path, monkeypatch, capsys
):
  command = start(source, tmp_path / "x", "--model", "m", "--tries", "1")

  def useless(asked, text):
    return "none" if asked == step else says(asked, text)

  with Server(TOLD, useless).running() as server:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for _ in range(2):
      assert cli.main(command) == 1
      said = capsys.readouterr().out.splitlines()
      assert "Nothing was kept" in said[-1]
    assert server.asked.total() == (6 if step == "properties" else 12)


def test_a_dry_run_sends_and_writes_nothing(source, tmp_path, capsys):
  command = start(source, tmp_path / "x", "--model", "m", "--dry-run")
  assert cli.main([*command, "--price-in", "1", "--price-out", "1"]) == 0
  said = capsys.readouterr().out
  for name in ("properties", "question", "check", "together", "cost"):
    assert name in said
  assert not (tmp_path / "x").exists()


def test_an_attribute_needs_no_model(source, tmp_path, capsys):
  command = start(source, tmp_path / "x", "--attribute", "category")
  assert cli.main(command) == 0
  assert "6 rows are in" in capsys.readouterr().out
  first = rows(tmp_path / "x")
  assert [row["label"] for row in first] == [0, 1] * 3
  assert cli.main(command) == 0 and rows(tmp_path / "x") == first
  assert cli.main([*command, "--seed", "1"]) == 0
  assert rows(tmp_path / "x") != first


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["--attribute", "name"], "has the name 'None'"),
    (["--attribute", "category", "--limit", "1"], "make no pair"),
    (["--attribute", "category", "--among", "0"], "expected 1 or more"),
    (["--attribute", "category", "--prompts", "none"], "Cannot read questions"),
    (["--model", "m", "--limit", "1"], "1 items make no pair"),
    (["--model", "m", "--encoder", "none"], "none"),
    ([], "Name either the --model"),
  ],
)
def test_what_is_refused_is_one_line(
  source, tmp_path, capsys, options, message
):
  assert cli.main(start(source, tmp_path / "x", *options)) == 1
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and message in said
  assert not (tmp_path / "x").exists()


def test_a_folder_of_a_model_is_not_written_over(source, tmp_path, capsys):
  (tmp_path / "x").mkdir()
  (tmp_path / "x" / "journal.jsonl").touch()
  command = start(source, tmp_path / "x", "--attribute", "category")
  assert cli.main(command) == 1
  assert "was made by a language model" in capsys.readouterr().err
