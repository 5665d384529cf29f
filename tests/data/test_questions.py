"""Questions from captions: filters, and runs against an endpoint."""

import collections
import json
import shutil

import pytest

from mmjax.data.instruct import captions, questions
from mmjax.data.instruct.captions import Item
from mmjax.data.instruct.journal import NAME
from mmjax.data.instruct.questions import Limits, Questions
from mmjax.data.instruct.reasons import Rejected
from tests.data.captioned import Server, made, run, save
from tests.stand_in import chat

LIMITS = Limits()
TOLD = questions.load()
CHAIR = {"caption": "A wooden chair with two tall armrests."}


def items(count):
  return [
    Item(
      f"a{i}",
      f"A wooden chair number n{i} with two armrests.",
      {"id": f"a{i}", "points": f"a{i}.ply"},
    )
    for i in range(count)
  ]


def says(step, text):
  number = text.split("number n")[1].split()[0]
  return {
    "answer": f"n{number}",
    "question": "Which number does the chair have?",
    "check": f"It is n{number}.",
    "colours": text.split("Caption: ")[1].split("\n")[0],
  }[step]


def server(bad=lambda step, text, number: None, says=says):
  return Server(TOLD, says, bad)


@pytest.mark.parametrize(
  ("step", "fields", "text", "expected"),
  [
    ("answer", {}, "wooden", "wooden"),
    ("answer", {}, 'Answer: "two tall armrests."\nAs it', "two tall armrests"),
    ("answer", {}, "\n\nWord or phrase: Wooden.", "Wooden"),
    ("answer", {}, "a woden chair", "a woden chair"),
    ("answer", {}, "metal", Rejected("absent")),
    ("answer", {}, "the", Rejected("absent")),
    ("answer", {}, "a wooden chair with two tall armrests", Rejected("long")),
    ("answer", {}, " \n...", Rejected("empty")),
    ("answer", {"caption": "dog"}, "dogs and cats", Rejected("absent")),
    ("question", {}, "What is it made of?", "What is it made of?"),
    (
      "question",
      {},
      "Question: What is it made of? Why",
      "What is it made of?",
    ),
    ("question", {}, "It is made of wood.", Rejected("format")),
    ("question", {}, "What?", Rejected("format")),
    ("question", {}, "Is the chair Wooden?", Rejected("leak")),
    ("question", {}, "Is it a woodenly chair?", "Is it a woodenly chair?"),
    ("question", {}, "word " * 31 + "?", Rejected("long")),
    ("check", {}, "Answer: wooden.", "wooden"),
    ("check", {}, "?", Rejected("empty")),
    ("colours", {}, "A chair with two armrests.", "A chair with two armrests"),
    ("colours", {}, "A metal chair.", Rejected("changed")),
  ],
)
def test_what_an_answer_is_worth(step, fields, text, expected):
  fields = {**CHAIR, "answer": "wooden", **fields}
  read = questions.reads(LIMITS)[step]
  if not isinstance(expected, Rejected):
    assert read(fields, text) == expected
    return
  with pytest.raises(Rejected) as found:
    read(fields, text)
  assert found.value.reason == expected.reason


def test_a_caption_is_too_short_without_its_colours():
  read = questions.reads(Limits(caption_words=4))["colours"]
  with pytest.raises(Rejected, match="short"):
    read({"caption": "A red round old chair."}, "round old chair")


def test_a_run_and_again(tmp_path):
  recipe = Questions(items(6), TOLD)
  with server().running() as endpoint:
    found = run(tmp_path, endpoint, recipe, recipe.items)
    assert found.done == 6 and not found.failed and not found.left
    assert set(endpoint.asked.values()) == {1} and len(endpoint.asked) == 18
    before = (tmp_path / "qa.json").read_bytes()
    assert run(tmp_path, endpoint, recipe, recipe.items).done == 6
    # Fewer are wanted, and what there is stays.
    assert run(tmp_path, endpoint, recipe, recipe.items[:2]).done == 2
    assert endpoint.asked.total() == 18
  assert (tmp_path / "qa.json").read_bytes() == before
  assert made(tmp_path, recipe)[1] == {
    "id": "a1",
    "points": "a1.ply",
    "caption": "A wooden chair number n1 with two armrests.",
    "question": "Which number does the chair have?",
    "answer": "n1",
  }


def test_colours_go_first(tmp_path):
  (item,) = items(1)
  red = f"A red {item.caption[2:]}"
  recipe = Questions([Item(item.id, red, item.row)], TOLD, LIMITS, True)

  def plainly(step, text):
    return item.caption if step == "colours" else says(step, text)

  with server(says=plainly).running() as endpoint:
    assert run(tmp_path, endpoint, recipe, recipe.items).done == 1
  assert [step for step, _ in endpoint.asked] == [
    *("colours", "answer", "question", "check")
  ]
  assert sum("red" in text for _, text in endpoint.asked) == 1
  assert "red" not in made(tmp_path, recipe)[0]["caption"]


# What happens at a caption's first request of a step.
TROUBLE = {
  ("answer", "n0 "): (429, b"", {"Retry-After": "1"}),
  ("question", "n1 "): (500, b"oops"),
  ("check", "n2 "): "reset",
  ("answer", "n3 "): b"<html>",
  ("question", "n4 "): chat("Which number does", "length"),
  ("answer", "n5 "): chat(""),
  ("question", "n6 "): (200, b'{"choices"', {"Content-Length": "999"}),
  ("answer", "n7 "): chat("metal"),
  ("question", "n8 "): chat("Which number is n8 of?"),
  # Half a character, which the file of the data set could not be read with.
  ("question", "n9 "): chat("Which number \ud83d has the chair?"),
}


def test_all_that_goes_wrong_once(tmp_path):
  recipe, seen = Questions(items(10), TOLD), collections.Counter()

  def bad(step, text, number):
    for (name, mark), reply in TROUBLE.items():
      if name == step and mark in text and not seen[name, mark]:
        seen[name, mark] += 1
        return reply
    if step == "check" and "n9 " in text and not seen["hang"]:
      seen["hang"] += 1
      return endpoint.hang
    return None

  with server(bad).running() as endpoint:
    found = run(tmp_path, endpoint, recipe, recipe.items)
  assert found.done == 10 and not found.failed
  rows = made(tmp_path, recipe)
  asked = {row["question"] for row in rows}
  assert len(rows) == 10 and asked == {"Which number does the chair have?"}
  # A note tells why an answer is asked for again.
  assert sum("exactly as it stands" in text for _, text in endpoint.asked) == 1


def test_what_filters_remove_is_counted_and_not_asked_for_ever(tmp_path):
  every = [*items(4), Item("b", "Two words", {"id": "b"})]
  recipe = Questions(every, TOLD, Limits(caption_words=3))
  wrong = {
    ("answer", "n0 "): "metal",
    ("question", "n1 "): "Is it n1?",
    ("check", "n2 "): "unknown",
  }

  def bad(step, text, number):
    said = [x for (s, mark), x in wrong.items() if s == step and mark in text]
    return chat(said[0]) if said else None

  with server(bad).running() as endpoint:
    found = run(tmp_path, endpoint, recipe, every, tries=2)
    assert found.failed == {
      "absent": 1,
      "leak": 1,
      "disagrees": 1,
      "short": 1,
    }
    assert found.done == 1 and not found.left
    count = endpoint.asked.total()
    # A second answer is no second chance: 2 + (1 + 2) + 3 + 3 requests.
    assert count == 11
    again = run(tmp_path, endpoint, recipe, every, tries=2)
    assert again.failed == found.failed and endpoint.asked.total() == count
  assert [row["id"] for row in made(tmp_path, recipe)] == ["a3"]


def test_a_run_that_broke_off_goes_on(tmp_path):
  recipe = Questions(items(8), TOLD)
  down = []

  def bad(step, text, number):
    if len(down) or endpoint.asked.total() > 13:
      down.append(text)
      return (503, b"")
    return None

  with server(bad).running() as endpoint:
    found = run(tmp_path, endpoint, recipe, recipe.items)
  assert found.left == found.unanswered == 8 - found.done > 0
  first = [json.loads(line) for line in (tmp_path / NAME).open()]
  assert len(first) == 13
  # A process that was killed left half a line.
  with (tmp_path / NAME).open("a") as file:
    file.write('{"id": "a0", "ki')
  with server().running() as endpoint:
    assert run(tmp_path, endpoint, recipe, recipe.items).done == 8
    assert endpoint.asked.total() == 24 - 13
  lines = [json.loads(line) for line in (tmp_path / NAME).open()]
  assert lines[:13] == first and len(lines) == 24
  assert len({(line["id"], line["kind"]) for line in lines}) == 24


def test_captions(tmp_path):
  rows = [{"id": 1, "caption": " A  dog\nbarks. ", "audio": "1.wav"}]
  (found,) = captions.read(save(tmp_path / "c.jsonl", rows))
  assert found == Item("1", "A dog barks.", rows[0])


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b'{"id": 1}', "line 1: 'caption' is 'None'"),
    (b'{"caption": "a"}', "'id' is 'None'"),
    (b'{"id": 1, "caption": 2}', "'caption' is '2'"),
    (b'{"id": 1, "caption": " "}', "'caption' is empty"),
    (
      b'{"id": 1, "caption": "a"}\n{"id": "1", "caption": "b"}',
      "more than once",
    ),
    (b'\n{"id": 1, "caption": "a"', "line 2 is no JSON"),
    (b'{"id": 1, "caption": "\\ud800"}', "no JSON of UTF-8"),
    (b"[1]", "no JSON object"),
    (b"", "has no row"),
    (b'{"id": 1, "caption": "\xff"}', "Cannot read captions"),
    (b"[" * 100_000, "no JSON"),
  ],
)
def test_hostile_captions_are_refused(tmp_path, content, message):
  path = tmp_path / "c.jsonl"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    captions.read(path)
  with pytest.raises(ValueError, match="Cannot read"):
    captions.read(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
  ("file", "content", "message"),
  [
    ("answer/system.txt", " ", "system.txt is empty"),
    ("answer/form.txt", "{caption.x}", "a name in braces"),
    ("answer/form.txt", "{caption", "Write other braces twice"),
    ("answer/form.txt", "{text}", "the fields of form.txt"),
    ("check/1.json", '{"caption": "a", "says": "b"}', "the fields of form.txt"),
    ("answer/1.json", '{"caption": "a dog", "says": "cat"}', "no example: abs"),
    ("notes.json", '{"absnt": "x"}', "Did you mean 'absent'"),
    ("check/1.json", "{", "is no JSON"),
  ],
)
def test_changed_prompts_that_are_none(tmp_path, file, content, message):
  copy = tmp_path / "qa"
  shutil.copytree(questions.ASSETS, copy)
  assert questions.load(copy) == TOLD
  (copy / file).write_text(content)
  with pytest.raises(ValueError, match=message):
    questions.load(copy)


def test_prompts_need_their_files_and_an_example(tmp_path):
  copy = tmp_path / "qa"
  shutil.copytree(questions.ASSETS, copy)
  for path in (copy / "check").glob("*.json"):
    path.unlink()
  with pytest.raises(ValueError, match="check has no example"):
    questions.load(copy)
  with pytest.raises(ValueError, match="assets/qa: copy it"):
    questions.load(tmp_path / "none")


@pytest.mark.parametrize(
  "fields",
  [{"caption_words": 0}, {"question_words": (5, 4)}, {"same": 100.0}],
)
def test_limits_that_are_none(fields):
  with pytest.raises(ValueError, match="expected"):
    Limits(**fields)
