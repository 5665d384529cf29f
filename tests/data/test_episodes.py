import collections
import dataclasses

import numpy as np
import pytest

from mmjax.data import drawn
from mmjax.data.document import Document, Media, Text
from mmjax.data.episodes import Drawn, ask, few_shot
from mmjax.text import tokenizer
from mmjax.text.prompts import Flamingo
from mmjax.text.prompts.templates import FLAMINGO, OPEN_FLAMINGO, TEMPLATES

BIND = {"bind": {"shots": (1, 2)}}
GROUPS = {"category": {"shots": (0, 4)}, "subcategory": {"shots": (2,)}}


def concepts(document):
  ids = [m.name.split("/")[-1] for m in document.media]
  by_id = {c.id: c for c in drawn.concepts()}
  return [by_id.get(i) for i in ids]


def styles(document):
  return [m.name.split("/")[0] for m in document.media]


def test_a_pure_function_of_seed_and_index():
  a, b = Drawn(BIND, seed=3), Drawn(BIND, seed=3)
  for i in (5, 0, 2**39):
    assert str(a[i]) == str(b[i])
  assert str(a[1]) != str(a[2]) != str(Drawn(BIND, seed=4)[2])


def test_binding_can_be_solved_from_its_support_alone():
  source = Drawn(BIND, split="held_out")
  for i in range(100):
    document = source[i]
    things, answers = concepts(document), answers_of(document)
    known = dict(zip([t.id for t in things[:-1]], answers[:-1]))
    assert len(known) == 2 and len(set(known.values())) == 2
    assert known[things[-1].id] == answers[-1] == document.metadata["answer"]
    assert set(known.values()) <= set(drawn.words())
    assert styles(document)[-1] not in styles(document)[:-1]
    assert len(things) == 2 * document.metadata["shots"] + 1


def answers_of(document):
  """The text after each question."""
  texts = [s for s in document.segments if isinstance(s, Text)]
  return [t.text.strip() for t in texts[1::2]]


def test_binding_gives_nothing_away():
  answers, places = collections.Counter(), collections.Counter()
  for i in range(400):
    document = Drawn(BIND)[i]
    words = answers_of(document)
    answers[words[-1]] += 1
    places[words[0] == words[-1]] += 1
  assert max(answers.values()) < 30 and len(answers) == 40
  assert 150 < places[True] < 250


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_concepts_are_of_their_split(split):
  source = Drawn(BIND | GROUPS | {"caption": {}}, split=split)
  for i in range(150):
    assert {c.split for c in concepts(source[i])} == {split}


def test_groups_are_right_and_support_is_of_other_things():
  source = Drawn(GROUPS)
  for i in range(60):
    document = source[i]
    things = concepts(document)
    assert len({t.id for t in things}) == len(things)
    field = document.metadata["task"]
    assert answers_of(document) == [getattr(t, field) for t in things]


def test_only_the_query_is_learned_unless_asked():
  def targets(**fields):
    document = Drawn({"category": {"shots": (2,)} | fields})[0]
    return [s.target for s in document.segments if isinstance(s, Text)]

  assert targets() == [False] * 5 + [True]
  assert targets(learn_support=True) == [False, True] * 3


def test_contrast_and_style_options():
  apart = Drawn({"bind": {"shots": (1,), "contrast": "category"}})
  for i in range(50):
    a, b, _ = concepts(apart[i])
    assert a.category != b.category
  same = Drawn({"bind": {"shots": (1,), "same_style": True}})
  assert all(len(set(styles(same[i]))) == 1 for i in range(20))


def test_keys_lead_to_the_pictures():
  for one in Drawn(BIND)[0].media:
    picture = drawn.table()[one.metadata["key"]]
    np.testing.assert_array_equal(one.load(), picture)


def test_every_prompt_is_in_the_vocabulary_and_fits():
  made = tokenizer.drawn()
  prompt = Flamingo(
    made, length=96, media=9, image_as_text=False, overflow="error"
  )
  source = Drawn(BIND | GROUPS | {"caption": {"shots": (0, 2)}})
  unknown = made.id("<unk>")
  for i in range(200):
    assert unknown not in prompt.write(source[i]).tokens


def test_errors():
  with pytest.raises(ValueError, match="Did you mean 'bind'"):
    Drawn({"bnd": {}})
  with pytest.raises(ValueError, match="at least 1"):
    Drawn({"bind": {"shots": (0,)}})
  with pytest.raises(IndexError):
    Drawn(BIND, size=3)[3]


def row(name, question, answer):
  return Document(
    (Media("image", b"", name),),
    name,
    {"question": question, "answer": answer},
  )


def pieces(document):
  return [
    s.name if isinstance(s, Media) else (s.text, s.target, s.end)
    for s in document.segments
  ]


def test_few_shot_with_flamingos_template():
  document = few_shot(
    row("q", "Where?", "here"), [row("s", "Who?", "me")], FLAMINGO["vqa"]
  )
  assert pieces(document) == [
    "s",
    ("Question: Who? Answer:", False, False),
    (" me", False, True),
    "q",
    ("Question: Where? Answer:", False, False),
    (" here", True, False),
  ]
  assert document.query().text.endswith("Where? Answer:")
  assert document.metadata["answer"] == "here"


def test_few_shot_of_open_flamingo_has_newlines():
  document = few_shot(
    row("q", "Where?", "here"), [row("s", "Who?", "me")], OPEN_FLAMINGO["vqa"]
  )
  assert pieces(document)[2:4] == [("me", False, True), ("\n", False, False)]


def test_zero_shot_keeps_the_text_of_its_examples():
  document = few_shot(
    row("q", "Where?", "here"),
    [row("s", "Who?", "me")],
    FLAMINGO["vqa"],
    text_only=True,
  )
  assert [m.name for m in document.media] == ["q"]
  assert pieces(document)[1] == (" me", False, True)
  two = row("s", "Who?", "me")
  two = dataclasses.replace(two, segments=(*two.media, *two.segments))
  shown = few_shot(
    row("q", "Where?", "here"), [two, two], FLAMINGO["vqa"], text_only=True
  )
  assert [m.name for m in shown.media] == ["q"]


def test_templates_name_missing_fields():
  document = Document((Media("image", b""),), "x", {"answer": "a"})
  with pytest.raises(ValueError, match="needs 'question'"):
    ask(document, FLAMINGO["vqa"])
  assert set(TEMPLATES["flamingo"]) >= {"caption", "vqa", "hateful_memes"}
