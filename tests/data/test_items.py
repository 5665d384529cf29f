"""Questions about one item, and about two."""

import collections
import json
import pickle
import re
from pathlib import Path

import pytest

from mmjax.data import instructions
from mmjax.data.build import documents
from mmjax.data.document import Media, Text
from mmjax.data.item_pairs import PAIR_QUESTIONS, ItemPairs
from mmjax.data.items import Items, read
from tests.data.mutations import spoiled
from tests.data.real import make_set

ASKED = dict(name=1.0, category=1.0, choice=1.0, shape=1.0, caption=1.0)
PAIRS = {name: 1.0 for name in PAIR_QUESTIONS if name != "more"}
BOTH = ("image", "points")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return make_set(tmp_path_factory.mktemp("sets") / "things")


def drawn(source, count=300):
  return [source[i] for i in range(count)]


def test_a_document_is_media_question_answer(folder):
  for document in drawn(Items(folder, ASKED)):
    medium, question, answer = document.segments
    assert isinstance(medium, Media) and isinstance(question, Text)
    assert not question.target and answer.target
    fields = document.metadata
    assert question.text == fields["question"] == question.text.lower()
    assert "{" not in question.text and answer.text == fields["answer"]
    row = next(
      r for r in read(folder) if f"things/{r.id}" == document.media[0].name
    )
    known = dict(row.values, choice=row.values["name"])
    assert fields["answer"] == known[fields["task"]]
    assert int(row.object) < 8


def test_a_document_is_a_function_of_seed_and_index(folder):
  one, two = (Items(folder, ASKED, seed=s) for s in (0, 1))
  again = pickle.loads(pickle.dumps(one))
  assert [str(d) for d in drawn(one, 9)] == [str(d) for d in drawn(again, 9)]
  assert [str(d) for d in drawn(one, 9)] != [str(d) for d in drawn(two, 9)]
  assert one.endless and len(one) > 10**9


def test_splits_share_nothing(folder):
  names = [
    {d.media[0].name for d in drawn(Items(folder, ASKED, split=split))}
    for split in ("train", "held_out")
  ]
  assert not names[0] & names[1] and min(map(len, names)) > 6


def test_choices(folder):
  for document in drawn(Items(folder, ASKED)):
    fields = document.metadata
    if fields["task"] in ("category", "shape", "choice"):
      assert fields["answer"] in fields["choices"]
    if fields["task"] == "category":
      assert fields["choices"] == ["bed", "lamp", "vase"]
    if fields["task"] == "choice":
      assert len(set(fields["choices"])) == 4
      assert all(name in fields["question"] for name in fields["choices"])


def test_the_place_of_the_right_choice_tells_nothing(folder):
  places = collections.Counter(
    d.metadata["choices"].index(d.metadata["answer"])
    for d in drawn(Items(folder, dict(choice=1.0)), 400)
  )
  assert set(places) == set(range(4)) and min(places.values()) > 70


def test_every_item_once(folder):
  asked = dict(category=1.0, shape=3.0)
  source = Items(folder, asked, split="held_out", kinds=["points"], every=True)
  found = {
    (d.media[0].name, d.metadata["task"]) for d in drawn(source, len(source))
  }
  assert len(source) == len(found) == 2 * 4 and not source.endless
  with pytest.raises(IndexError, match="8 of 8"):
    source[8]


def test_even_values(tmp_path):
  folder = make_set(tmp_path / "things", kinds=("audio",))
  path = tmp_path / "things" / "items.jsonl"
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  for row in rows[1:]:
    row["category"] = "lamp"
  path.write_text("\n".join(map(json.dumps, rows)))
  counts = collections.Counter(
    d.metadata["answer"]
    for d in drawn(Items(folder, dict(category=1.0), even="category"), 400)
  )
  assert counts["bed"] == pytest.approx(200, abs=40)
  with pytest.raises(ValueError, match="even is 'size', which things/audio/0"):
    Items(folder, dict(category=1.0), even="size")


def test_pairs(folder):
  counts = collections.Counter()
  for document in drawn(ItemPairs(folder, PAIRS, kinds=["image", "points"])):
    media, fields = document.media, document.metadata
    assert {m.kind for m in media} == {"image", "points"}
    counts[fields["task"], fields["answer"]] += 1
    numbers = [int(m.name.split("/")[-1]) for m in media]
    kinds = [("bed", "lamp", "vase")[n % 3] for n in numbers]
    right = fields["answer"] == fields["choices"][0]
    assert fields["answer"] in fields["choices"]
    if fields["task"] == "same":
      assert (numbers[0] == numbers[1]) == right
    elif fields["task"] == "which":
      assert fields["choices"] == ["3d model", "picture"]
      meant = [m.kind for m in media].index("points" if right else "image")
      assert kinds[meant] in fields["question"]
      assert kinds[1 - meant] not in fields["question"]
    else:
      words = fields["question"].replace("?", " ").replace(",", " ").split()
      said = [word for word in words if word in ("bed", "lamp", "vase")]
      assert (said == kinds) == right
  assert len(counts) == 6 and min(counts.values()) > 30


def test_which_has_more(folder):
  counts = collections.Counter()
  source = ItemPairs(folder, dict(more=1.0), kinds=BOTH, about=["shape"])
  for document in drawn(source):
    media, fields = document.media, document.metadata
    tall = [int(m.name.split("/")[-1]) % 2 for m in media]
    assert sorted(tall) == [0, 1]
    taller = {"image": "picture", "points": "3d model"}[
      media[tall.index(1)].kind
    ]
    assert fields["answer"] == taller and taller in fields["choices"]
    assert "taller for its width" in fields["question"]
    counts[taller] += 1
  assert min(counts.values()) > 100


@pytest.mark.parametrize("question", ["which", "both"])
def test_pairs_are_asked_about_what_is_named(folder, question):
  """Things without the property are not shown."""
  path = Path(folder) / "items.jsonl"
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  shapes = {r["id"]: r["attributes"].get("shape") for r in rows}
  about = dict(about=["shape"], kinds=BOTH)
  found = drawn(ItemPairs(folder, {question: 1.0}, **about), 60)
  assert {"tall", "low"} == {
    shapes[m.name.split("/", 1)[1]] for d in found for m in d.media
  }
  for document in found:
    text = document.metadata["question"]
    assert "of the kind" not in text and ("tall" in text or "low" in text)


def test_neither_order_tells_which(folder):
  """Where a medium comes, and where it is named, are independent of it."""
  source = ItemPairs(folder, dict(which=1.0), kinds=BOTH)
  counts = collections.Counter()
  for d in drawn(source, 400):
    asked = re.sub(".*(which of|is the) ", "", d.metadata["question"])
    first_named = asked.index("3d model") < asked.index("picture")
    first_shown = d.media[0].kind == "points"
    counts[d.metadata["answer"], first_named, first_shown] += 1
  assert len(counts) == 8 and min(counts.values()) > 30


def test_what_is_said_of_both_does_not_tell_the_answer(tmp_path):
  """Also where one category is rare."""
  folder = make_set(tmp_path / "things")
  path = tmp_path / "things" / "items.jsonl"
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  for row in rows:
    row["category"] = "bed" if row["object"] == "0" else "lamp"
  path.write_text("\n".join(map(json.dumps, rows)))
  source = ItemPairs(folder, dict(both=1.0), kinds=["image", "points"])
  counts = collections.Counter(
    (d.metadata["question"].count("bed"), d.metadata["answer"])
    for d in drawn(source, 600)
  )
  for beds in range(3):
    yes, no = counts[beds, "yes"], counts[beds, "no"]
    assert yes / (yes + no) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    (dict(questions={}), "No questions. Known: name, category"),
    (dict(questions=dict(categry=1.0)), "Did you mean 'category'"),
    (dict(questions=dict(name=-1.0)), "not negative"),
    (dict(questions=dict(name=float("nan"))), "one above 0"),
    (dict(questions=dict(strength=1.0)), "No item of .* has a 'strength'"),
    (dict(split="test"), "Unknown split 'test'"),
    (dict(kinds=["imag"]), "Did you mean 'image'"),
    (dict(kinds=["audio"]), r"nothing of \['audio'\]"),
  ],
)
def test_wrong_settings_are_refused(folder, fields, said):
  with pytest.raises(ValueError, match=said):
    Items(**(dict(folders=folder, questions=ASKED) | fields))


@pytest.mark.parametrize(
  ("kinds", "said"),
  [
    (("image",), "expected two"),
    (("image", "audio"), "no two things"),
  ],
)
def test_wrong_pairs_are_refused(folder, kinds, said):
  with pytest.raises(ValueError, match=said):
    ItemPairs(folder, PAIRS, kinds=kinds)


@pytest.mark.parametrize(
  ("about", "said"),
  [([], "about is empty"), (["shap"], "Did you mean 'shape'")],
)
def test_wrong_properties_are_refused(folder, about, said):
  with pytest.raises(ValueError, match=said):
    ItemPairs(folder, PAIRS, kinds=BOTH, about=about)


def test_what_has_no_order_has_no_more(folder, tmp_path):
  with pytest.raises(ValueError, match="an order 'category'"):
    ItemPairs(folder, dict(more=1.0), kinds=BOTH)
  other = make_set(tmp_path / "things")
  path = tmp_path / "things" / "items.jsonl"
  path.write_text(path.read_text().replace('"tall"', '"high"'))
  with pytest.raises(ValueError, match=r"shape is \['high'\], expected"):
    ItemPairs(other, dict(more=1.0), kinds=BOTH, about=["shape"])


def test_a_set_that_is_not_there(tmp_path):
  with pytest.raises(ValueError, match="mmjax data fetch NAME"):
    Items(str(tmp_path), ASKED)


def test_a_damaged_table_is_a_named_error(tmp_path):
  folder = make_set(tmp_path / "things")
  path = Path(folder) / "items.jsonl"
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  errors = 0
  for _, changed in spoiled(rows[:1]):
    lines = [*changed, *rows[1:]] if isinstance(changed, list) else [changed]
    path.write_text("\n".join(map(json.dumps, lines)))
    try:
      Items(folder, ASKED)[0]
    except ValueError as error:
      errors += 1
      assert str(error)
  assert errors > 10


def test_a_config_names_them(folder):
  source = dict(name="items", folders=folder, questions=ASKED, seed=3)
  assert str(documents(source)[5]) == str(Items(folder, ASKED, seed=3)[5])


def test_wordings():
  for task, wordings in instructions.WORDINGS.items():
    assert len(set(wordings)) == len(wordings) > 4
    for wording in wordings:
      for kinds in (["audio"], ["points", "image"]):
        text = instructions.fill(wording, kinds, "What is IT??")
        assert text == text.lower() and "{" not in text and "??" not in text
        assert ("what is it?" in text) == (task in ("question", "entailment"))
