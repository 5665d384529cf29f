"""`mmjax data discrn`, by a language model and from an attribute."""

import json
import re

import pytest

from mmjax.cli import main as cli
from mmjax.data.discrn import Discrn
from tests.data.captioned import Server, save
from tests.data.instructing import KEY
from tests.data.test_instruct_discrn import TOLD, items, says

KINDS = ["--kinds", "points", "image"]


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


SHAPES = {"bed": "low", "lamp": "tall", "box": "even"}


def table(folder):
  """What `mmjax data fetch` writes, a row a file."""
  every = [
    {
      "id": f"{kind}/{name}",
      "file": f"{kind}/{name}.{kind}",
      "kind": kind,
      "object": f"The {name}",
      "caption": f"{kind} of a {name}",
      "attributes": {"shape": shape, "tags": [], **more},
    }
    for name, shape in SHAPES.items()
    for kind, more in (("points", {}), ("image", {"colour": "red"}))
  ]
  return save(folder / "items.jsonl", every)


def test_a_fetched_set_gives_things_that_two_kinds_show(tmp_path):
  command = start(table(tmp_path), tmp_path / "x", "--attribute", "shape")
  assert cli.main([*command, *KINDS]) == 0
  found = rows(tmp_path / "x")
  for row in found:
    assert row["captions"] == [f"points of a {x}" for x in row["sample_ids"]]
    shape = SHAPES[row["sample_ids"][row["label"]]]
    assert row["question"].endswith(f" {shape}?")
  folders = {kind: str(tmp_path / kind) for kind in ("points", "image")}
  for kind in folders:
    (tmp_path / kind).mkdir()
    for name in SHAPES:
      (tmp_path / kind / f"{name}.{kind}").touch()
  files = {kind: f"{{sample_id}}.{kind}" for kind in folders}
  source = Discrn(str(tmp_path / "x" / "discrn.json"), folders, files)
  assert [len(source[k].media) for k in range(len(found))] == [2, 2, 2]


@pytest.mark.parametrize(
  ("change", "options", "message"),
  [
    ({}, ["--attribute", "shape"], "of those in .*: image, points. Name them"),
    ({}, ["--kinds", "image", "audio", "--attribute", "shape"], "'audio'"),
    ({}, ["--model", "m"], "kinds are \\[\\]"),
    ({}, [*KINDS, "--attribute", "size"], "size 'None'.*'colour'.*'shape'"),
    (
      {"file": "image/b.png"},
      [*KINDS, "--attribute", "shape"],
      "'The box' has",
    ),
    ({"file": ""}, [*KINDS, "--attribute", "shape"], "the file ''; expected"),
    ({"object": None}, [*KINDS, "--attribute", "shape"], "line 6: 'object'"),
  ],
)
def test_a_fetched_set_without_two_kinds_is_refused(
  tmp_path, capsys, change, options, message
):
  path = table(tmp_path)
  *lines, last = (tmp_path / "items.jsonl").read_text().splitlines()
  changed = json.dumps({**json.loads(last), **change})
  (tmp_path / "items.jsonl").write_text("\n".join([*lines, changed]))
  assert cli.main(start(path, tmp_path / "x", *options)) == 1
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and re.search(message, said), said


def test_a_folder_of_a_model_is_not_written_over(source, tmp_path, capsys):
  (tmp_path / "x").mkdir()
  (tmp_path / "x" / "journal.jsonl").touch()
  command = start(source, tmp_path / "x", "--attribute", "category")
  assert cli.main(command) == 1
  assert "was made by a language model" in capsys.readouterr().err
