import csv
import json

import pytest

from mmjax.cli.main import main
from mmjax.cli.select import select
from mmjax.data.formats import Conversations, Documents
from mmjax.data.sources import Json

CAPTIONS = ["a red kite"] * 4 + ["the lake"] * 12 + ["a lone bird"]


def chats():
  return [
    {
      "id": f"GCC_train_{i:09d}",
      "image": f"GCC_train_{i:09d}.jpg",
      "conversations": [
        {"from": "human", "value": "Give a brief description.\n<image>"},
        {"from": "gpt", "value": caption},
      ],
    }
    for i, caption in enumerate(CAPTIONS)
  ]


def run(source, target, **options):
  lines = []
  fields = dict(phrases="runs", most=5) | options
  return select(source, target, write=lines.append, **fields), lines


def test_chats_of_cc3m(tmp_path):
  source, target = tmp_path / "chat.json", tmp_path / "some.json"
  source.write_text(json.dumps(chats(), indent=1))
  done = []
  summary, lines = run(source, target, progress=lambda *at: done.append(at))
  kept = json.loads(target.read_text())
  assert kept == [record for record in chats() if record in kept]
  said = [record["conversations"][1]["value"] for record in kept]
  assert said == ["a red kite"] * 4 + ["the lake"] * 5
  assert summary["records"] == 17 and summary["selected"] == 9
  assert (summary["phrases"], summary["rare_phrases"]) == (3, 1)
  assert (
    json.loads((tmp_path / "some.json.summary.json").read_text()) == summary
  )
  assert "9 of 17 records" in lines[0] and done[-1] == (17, 17)
  assert len(Documents(Json(str(target)), Conversations("/tmp"))) == 9
  # Another time it is the same, and with another seed it is not.
  run(source, tmp_path / "again.json")
  assert (tmp_path / "again.json").read_bytes() == target.read_bytes()
  run(source, tmp_path / "other.json", seed=1)
  assert (tmp_path / "other.json").read_bytes() != target.read_bytes()
  assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]


def test_lines_and_tables(tmp_path):
  rows = [{"file": f"{i}.jpg", "caption": c} for i, c in enumerate(CAPTIONS)]
  lines = tmp_path / "a.jsonl"
  lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
  run(lines, tmp_path / "b.jsonl")
  kept = [
    json.loads(x) for x in (tmp_path / "b.jsonl").read_text().split("\n") if x
  ]
  table = tmp_path / "a.csv"
  with open(table, "w", newline="") as file:
    writer = csv.DictWriter(file, ["file", "caption"])
    writer.writeheader()
    writer.writerows(rows)
  run(table, tmp_path / "b.csv")
  with open(tmp_path / "b.csv", newline="") as file:
    assert list(csv.DictReader(file)) == kept
  assert len(kept) == 9


def test_another_column(tmp_path):
  source = tmp_path / "a.tsv"
  source.write_text("url\ttitle\n" + "".join(f"u\t{c}\n" for c in CAPTIONS))
  with pytest.raises(ValueError, match="no column 'caption'"):
    run(source, tmp_path / "b.tsv")
  summary, _ = run(source, tmp_path / "b.tsv", column="title")
  assert summary["selected"] == 9


def test_records_without_a_caption_are_told(tmp_path):
  found = [*chats(), {"id": 1}, {"conversations": []}, 7]
  source = tmp_path / "a.json"
  source.write_text(json.dumps(found))
  summary, lines = run(source, tmp_path / "b.json")
  assert summary["without_caption"] == 3 and summary["selected"] == 9
  assert "without a caption, and left out: 3" in "\n".join(lines)
  assert "record 19: " in lines[-1] and "JSON int" in lines[-1]
  source.write_text(json.dumps([{"id": 1}]))
  with pytest.raises(ValueError, match="No record .* has a caption. First"):
    run(source, tmp_path / "c.json")
  assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
  ("source", "target", "message"),
  [
    ("a.txt", "b.txt", "no .json, .jsonl"),
    ("a.json", "b.jsonl", r"name it \*\.json"),
    ("a.json", "a.json", "there already"),
    ("a.json", "nowhere/b.json", "no folder"),
    ("none.json", "b.json", "There is no file"),
    ("empty.json", "b.json", "has no records"),
  ],
)
def test_mistakes_are_named(tmp_path, source, target, message):
  (tmp_path / "a.json").write_text(json.dumps(chats()))
  (tmp_path / "empty.json").write_text("[]")
  with pytest.raises(ValueError, match=message):
    run(tmp_path / source, tmp_path / target)
  with pytest.raises(ValueError, match="Did you mean 'spacy'"):
    run(tmp_path / "a.json", tmp_path / "b.json", phrases="spaci")


def test_the_command(tmp_path, capsys):
  source = tmp_path / "chat.json"
  source.write_text(json.dumps(chats()))
  given = ["data", "select", str(source), str(tmp_path / "b.json")]
  assert main([*given, "--phrases", "runs", "--most", "2"]) == 0
  assert "4 of 17 records" in capsys.readouterr().out
  assert len(json.loads((tmp_path / "b.json").read_text())) == 4
  assert main([*given, "--phrases", "runs"]) == 1
  assert "there already" in capsys.readouterr().err
