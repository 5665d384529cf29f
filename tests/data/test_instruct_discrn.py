"""DisCRn's rows, by a language model and from an attribute."""

import collections
import json

import pytest

from mmjax.data.instruct import discrn, pairs
from mmjax.data.instruct.captions import Item
from mmjax.data.instruct.discrn import Comparisons, Properties
from mmjax.data.instruct.journal import NAME
from mmjax.data.instruct.pairs import Drawing, tf_idf
from mmjax.data.instruct.reasons import Rejected
from tests.data.captioned import Server, made, run
from tests.stand_in import chat

TOLD = discrn.load()
GOOD = "Question: {}\nAnswer: {}\nExplanation: {}"


def items(count):
  return [
    Item(
      f"i{k}",
      f"Thing number n{k} makes a sound.",
      {"id": f"i{k}", "start_seconds": k, "captions_pred_audio": f"p{k}"},
    )
    for k in range(count)
  ]


def says(step, text):
  """The one with the smaller number is right."""
  numbers = [part.split()[0] for part in text.split("number n")[1:]]
  if step == "properties":
    return f"loud {numbers[0]}, alive, sudden"
  right = 1 + (int(numbers[1]) < int(numbers[0]))
  if step == "check":
    return f"Entity {right}."
  why = f"Entity {right} is n{min(map(int, numbers))}, and not as the other."
  return GOOD.format("Which entity is smaller?", f"entity {right}", why)


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    (GOOD.format("Which entity is it?", "entity 1", "So."), 0),
    (GOOD.format("Which one is it?", "The second one", "So."), 1),
    ("Which entity is it?\nAnswer: Entity 2\nExplanation: So.", 1),
    (GOOD.format("Which entity is it?", "entity 1 or 2", "So."), 0),
    (GOOD.format("Which is it?", "entity 1, not entity 2", "So."), "entity"),
    (GOOD.format("Which entity is it?", "a dog", "So."), "entity"),
    (GOOD.format("Which 3D model is it?", "entity 1", "So."), "medium"),
    (GOOD.format("Is entity 1 a dog?", "entity 1", "So."), "place"),
    (GOOD.format("Is the first a dog?", "entity 1", "So."), "place"),
    (GOOD.format("It is.", "entity 1", "So."), "format"),
    (GOOD.format("Which?", "entity 1", "So."), "format"),
    (GOOD.format("Which entity is it?", "entity 1", ""), "empty"),
    ("Question: Which entity is it?\nAnswer: entity 1", "format"),
    ("entity 1", "format"),
  ],
)
def test_what_an_answer_is_worth(text, expected):
  if isinstance(expected, int):
    assert discrn.compared({}, text)["answer"] == expected
    return
  with pytest.raises(Rejected) as found:
    discrn.compared({}, text)
  assert found.value.reason == expected


def test_properties():
  found = discrn.properties({}, "Properties: loud, a; alive, b, loud\nmore")
  assert found == ["loud", "a", "alive"]
  with pytest.raises(Rejected, match="format"):
    discrn.properties({}, "loud, alive")


def make(folder, server, every, **options):
  drawn = pairs.draw(every, tf_idf, Drawing(seed=3))
  alone, both = Properties(TOLD), Comparisons(drawn, TOLD)
  run(folder, server, alone, every, **options)
  return both, run(folder, server, both, drawn, **options)


def test_a_run_and_again(tmp_path):
  every = items(7)
  with Server(TOLD, says).running() as server:
    recipe, found = make(tmp_path, server, every)
    assert found.done == 7 and server.asked.total() == 7 + 2 * 7
    before = (tmp_path / "discrn.json").read_bytes()
    make(tmp_path, server, every)
    assert server.asked.total() == 21 and set(server.asked.values()) == {1}
    make(tmp_path / "other", server, every[::-1])
  assert (tmp_path / "discrn.json").read_bytes() == before
  assert (tmp_path / "other" / "discrn.json").read_bytes() == before
  rows = made(tmp_path, recipe)
  assert [row["label"] for row in rows] == [0, 1, 0, 1, 0, 1, 0]
  for row in rows:
    numbers = [int(name[1:]) for name in row["sample_ids"]]
    assert numbers[row["label"]] == min(numbers)
    assert row["start_seconds"] == numbers
    assert row["captions_pred_audio"] == [f"p{k}" for k in numbers]
    for k, caption, known in zip(numbers, row["captions"], row["properties"]):
      assert f"n{k} " in caption and known == [f"loud {k}", "alive", "sudden"]
    # What is said of an entity goes with it.
    assert row["explanation"].startswith(f"Entity {row['label'] + 1} is")
    assert row["question"] == "Which entity is smaller?"


def test_trouble_and_filters(tmp_path):
  every, seen = items(8), collections.Counter()
  drawn = pairs.draw(every, tf_idf, Drawing(seed=3))
  unlucky = next(pair for pair in drawn if "i7" not in pair.id)
  first, second = (item.caption for item in unlucky.items)

  def bad(step, text, number):
    if step == "properties" and "n7 " in text:
      return chat("nothing")
    seen[step] += 1
    if seen[step] == 2:
      return (429, b"", {"Retry-After": "1"})
    if seen[step] == 4:
      return b"<html>"
    if step == "check" and -1 < text.find(second) < text.find(first):
      return chat(f"entity {1 + says(step, text).endswith('1.')}")
    return None

  with Server(TOLD, says, bad).running() as server:
    recipe, found = make(tmp_path, server, every, tries=2)
  unknown = sum("i7" in pair.id for pair in drawn)
  assert found.failed == {"unknown": unknown, "disagrees": 1}
  assert found.done == 7 - unknown and not found.left
  labels = [row["label"] for row in made(tmp_path, recipe)]
  assert labels == [k % 2 for k in range(len(labels))]


def test_a_run_that_broke_off_goes_on(tmp_path):
  every = items(6)

  def bad(step, text, number):
    return (503, b"") if server.asked.total() > 10 else None

  with Server(TOLD, says, bad).running() as server:
    assert make(tmp_path, server, every)[1].left
  with (tmp_path / NAME).open("a") as file:
    file.write('{"id": "[')
  with Server(TOLD, says).running() as server:
    assert make(tmp_path, server, every)[1].done == 6
    assert server.asked.total() == 18 - 10
  lines = [json.loads(line) for line in (tmp_path / NAME).open()]
  assert len({(x["id"], x["kind"]) for x in lines}) == len(lines) == 18


@pytest.mark.parametrize("place", [1, 2])
def test_who_always_names_one_place_does_not_agree(tmp_path, place):
  """The check shows the two in the other order."""

  def biased(step, text):
    if step == "properties":
      return says(step, text)
    if step == "check":
      return f"Entity {place}."
    return GOOD.format("Which entity is smaller?", f"entity {place}", "So.")

  with Server(TOLD, biased).running() as server:
    recipe, found = make(tmp_path, server, items(6))
  assert found.failed == {"disagrees": 6} and not found.done
  assert made(tmp_path, recipe) == []


def test_ids_of_any_letters_are_told_apart(tmp_path):
  """Joined by a mark, two pairs would have one id."""
  names = ["a", "a|a", "a|a|a", 'a", "a']
  every = [
    Item(name, item.caption, {"id": name})
    for name, item in zip(names, items(4))
  ]
  both = {pairs.Pair(a, b).id for a in every for b in every}
  assert len(both) == len(every) ** 2
  with Server(TOLD, says).running() as server:
    recipe, found = make(tmp_path, server, every)
    assert found.done == 4 and server.asked.total() == 4 + 2 * 4
  for row in made(tmp_path, recipe):
    assert row["question"] == "Which entity is smaller?"


def test_rows_of_an_attribute():
  names = ["dog", "Dog", "apple", "car", "owl"]
  every = [
    Item(str(k), f"{name} {k}", {"id": k, "category": name})
    for k, name in enumerate(names)
  ]
  lines = ["is it {a_value}?"]
  rows = discrn.by_attribute(every, "category", lines, tf_idf, Drawing())
  assert rows == discrn.by_attribute(
    every[::-1], "category", lines, tf_idf, Drawing()
  )
  assert [row["label"] for row in rows] == [0, 1, 0, 1, 0]
  for row, name in zip(rows, names):
    article = "an" if name in ("apple", "owl") else "a"
    assert row["question"] == f"is it {article} {name}?"
    right, wrong = (
      row["properties"][i][0] for i in (row["label"], 1 - row["label"])
    )
    assert right == name and wrong.lower() != name.lower()
    assert names[row["sample_ids"][row["label"]]] == name
  with pytest.raises(ValueError, match="has the colour 'None'"):
    discrn.by_attribute(every, "colour", lines, tf_idf, Drawing())
  with pytest.raises(ValueError, match="make no pair"):
    discrn.by_attribute(every[:2], "category", lines, tf_idf, Drawing())


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "has no question"),
    (b"which is it?", "neither {value} nor"),
    (b"is it {name}?", "name"),
    (b"is it {value?", "expected"),
    (b"\xff", "Cannot read"),
  ],
)
def test_bad_templates_are_refused(tmp_path, content, message):
  path = tmp_path / "templates.txt"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    discrn.questions(path)
  assert len(discrn.questions()) == 3
