"""Conversations about drawn things: true, balanced, and the same every time."""

import collections

import numpy as np
import pytest

from mmjax.data import drawn
from mmjax.data.document import Media, Text
from mmjax.data.drawn_chat import (
  COMPARED,
  QUESTIONS,
  DrawnChat,
  main_colour,
  name_of,
)

ALL = dict.fromkeys(QUESTIONS, 1.0)
# Percent of the documents of a type that its commonest answer is right for.
BEST_CONSTANT = {
  "name": 1,
  "category": 20,
  "style": 37,
  "colour": 25,
  "description": 1,
  "same_category": 53,
  "same_style": 53,
  "same_colour": 53,
}


def documents(count, questions=ALL, **fields):
  source = DrawnChat(questions, **fields)
  return [source[i] for i in range(count)]


def described(document):
  """All of it, without pixels."""
  return [
    (s.name, s.metadata["key"]) if isinstance(s, Media) else (s.text, s.target)
    for s in document.segments
  ] + [document.id, document.metadata]


def of_text(document):
  """Questions and answers."""
  texts = [s for s in document.segments if isinstance(s, Text)]
  assert [t.target for t in texts] == [False, True] * (len(texts) // 2)
  return [(q.text, a.text) for q, a in zip(texts[::2], texts[1::2])]


def test_documents_are_a_function_of_seed_and_index():
  first = [described(d) for d in documents(40, seed=5)]
  # Of another source, backwards, and of one with an end.
  again = DrawnChat(ALL, seed=5, size=40)
  assert [described(again[i]) for i in reversed(range(40))] == first[::-1]
  assert len(again) == 40 and not again.endless
  assert DrawnChat(ALL).endless
  other = [described(d) for d in documents(40, seed=6)]
  assert not any(a[:-2] == b[:-2] for a, b in zip(first, other))
  assert len({str(d[:-2]) for d in first}) == 40


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_answers_follow_from_the_pictures(split):
  kinds = {text: name for name, texts in QUESTIONS.items() for text in texts}
  concepts = {c.id: c for c in drawn.concepts(split)}

  def about(media):
    style, id = media.name.split("/")
    concept = concepts[id]
    np.testing.assert_array_equal(media.payload, drawn.image(concept, style))
    assert media.metadata["key"] == drawn.key(concept, style)
    colour = main_colour(media.payload)
    return dict(
      name=concept.name,
      category=concept.category,
      style=style,
      colour=colour,
      description=f"{style}, {colour}, {concept.category}: {concept.name}",
    )

  asked = collections.Counter()
  for document in documents(150, split=split, seed=2):
    known = [about(m) for m in document.media]
    for question, answer in of_text(document):
      kind = kinds[question]
      asked[kind] += 1
      if kind in COMPARED:
        one, other = (k[COMPARED[kind]] for k in known)
        assert answer == ("yes" if one == other else "no")
        assert known[0]["name"] != known[1]["name"]
      else:
        assert len(known) == 1 and answer == known[0][kind]
    assert document.metadata["answer"] == answer
    assert document.metadata["task"] == kind
    assert document.metadata["query_media"] == len(known)
  assert min(asked[kind] for kind in QUESTIONS) > 5


def test_held_out_things_are_never_in_training():
  seen = {
    split: {m.name for d in documents(1500, split=split) for m in d.media}
    for split in ("train", "held_out")
  }
  things = {k: {n.split("/")[1] for n in v} for k, v in seen.items()}
  assert not things["train"] & things["held_out"]
  for split, found in things.items():
    known = {c.id for c in drawn.concepts(split)}
    assert found <= known and len(found) > 0.6 * len(known)


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_no_answer_is_right_too_often(name, split):
  """Of yes and no both are as likely, and no other is much."""
  count = 1500
  found = collections.Counter(
    d.metadata["answer"]
    for d in documents(count, {name: 1.0}, split=split, turns=(1,), seed=4)
  )
  (_, most), *_ = found.most_common(1)
  assert 100 * most / count <= BEST_CONSTANT[name]
  if name in COMPARED:
    assert found.keys() == {"yes", "no"}
    assert abs(found["yes"] - found["no"]) / count < 0.05


def test_what_hardly_any_is_like_does_not_mean_no(monkeypatch):
  """Few attempts to find one that is alike leave the balance as it is."""
  monkeypatch.setattr("mmjax.data.drawn_chat._ATTEMPTS", 2)
  found = collections.Counter(
    d.metadata["answer"]
    for d in documents(1500, {"same_category": 1.0}, split="held_out")
  )
  assert abs(found["yes"] - found["no"]) / 1500 < 0.05


def test_weights_turns_and_wordings_are_as_asked_for():
  questions = dict(category=3.0, style=1.0, same_style=0.0)
  found = documents(400, questions, turns=(1, 2), wordings=1)
  first, sizes = collections.Counter(), collections.Counter()
  for document in found:
    asked = [q for q, _ in of_text(document)]
    assert len(set(asked)) == len(asked)
    first[asked[0]] += 1
    sizes[len(asked)] += 1
  # The first wordings alone; what weighs nothing never comes first.
  assert first.keys() == {QUESTIONS["category"][0], QUESTIONS["style"][0]}
  assert first[QUESTIONS["category"][0]] == pytest.approx(300, abs=30)
  assert sizes.keys() == {1, 2} and min(sizes.values()) > 150
  every = {q for d in documents(300) for q, _ in of_text(d)}
  assert every == {text for texts in QUESTIONS.values() for text in texts}


def test_no_question_is_asked_twice_however_many_turns():
  (document,) = documents(1, dict(style=1.0, colour=1.0), turns=(9,))
  assert len(of_text(document)) == 2


def test_questions_are_not_told_apart_by_their_number_of_pictures():
  """All that compare have two, all others one."""
  for name in QUESTIONS:
    counts = {len(d.media) for d in documents(20, {name: 1.0}, turns=(1,))}
    assert counts == {2 if name in COMPARED else 1}


RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255,) * 3, (0, 0, 0)


def painted(*parts):
  """A picture of 64 x 64 of (rows, colour)."""
  pixels = np.concatenate([np.full((n, 64, 3), rgb) for n, rgb in parts])
  assert len(pixels) == 64
  return pixels.astype(np.uint8)


@pytest.mark.parametrize(
  "parts, name",
  [
    ([(64, RED)], "red"),
    ([(64, WHITE)], "white"),
    ([(64, BLACK)], "black"),
    # A white background is no part of a picture, however small that is.
    ([(63, WHITE), (1, RED)], "red"),
    ([(40, WHITE), (14, BLUE), (10, RED)], "blue"),
    # The larger part; of two as large the first by name.
    ([(31, RED), (33, BLUE)], "blue"),
    ([(33, RED), (31, BLUE)], "red"),
    ([(32, RED), (32, BLUE)], "blue"),
    ([(32, BLUE), (32, RED)], "blue"),
    # Shades of one colour count together.
    (
      [(24, BLUE), (10, RED), (10, (220, 30, 30)), (10, (255, 80, 80))]
      + [(10, (190, 0, 20))],
      "red",
    ),
    # White that is no background: something on it is not quite as white.
    ([(32, WHITE), (32, (246, 246, 246))], "white"),
  ],
)
def test_colours_of_pictures(parts, name):
  assert main_colour(painted(*parts)) == name


def test_a_ramp_of_greys_is_grey():
  ramp = np.linspace(0, 255, 64).astype(np.uint8)
  assert main_colour(np.tile(ramp[:, None, None], (1, 64, 3))) == "grey"
  # Its dark end is black, its light end white.
  assert main_colour(np.tile(ramp[:14, None, None], (1, 64, 3))) == "black"
  assert main_colour(np.tile(ramp[59:62, None, None], (1, 64, 3))) == "white"


@pytest.mark.parametrize(
  "rgb, name",
  [
    ((221, 46, 68), "red"),
    ((244, 144, 12), "orange"),
    ((255, 204, 77), "yellow"),
    ((119, 178, 85), "green"),
    ((85, 172, 238), "blue"),
    ((170, 142, 214), "purple"),
    ((234, 89, 110), "red"),
    ((255, 105, 180), "pink"),
    ((139, 69, 19), "brown"),
    ((128, 0, 0), "brown"),
    ((153, 170, 181), "grey"),
    ((41, 47, 51), "black"),
    ((250, 248, 246), "white"),
  ],
)
def test_names_of_colours(rgb, name):
  assert name_of(np.array(rgb) / 255) == name


@pytest.mark.parametrize(
  "fields, said",
  [
    (dict(questions={}), "No questions. Known: name, category"),
    (dict(questions=dict(categry=1.0)), "Did you mean 'category'"),
    (dict(questions=dict(name=-1.0)), "not negative"),
    (dict(questions=dict(name=0.0)), "one above 0"),
    (dict(questions=dict(name=float("nan"))), "one above 0"),
    (dict(turns=()), r"turns are \[\]"),
    (dict(turns=(0, 1)), r"turns are \[0, 1\]"),
    (dict(wordings=0), "wordings 0"),
    (dict(split="test"), "'test'"),
  ],
)
def test_wrong_settings_are_refused(fields, said):
  with pytest.raises(ValueError, match=said):
    DrawnChat(**(dict(questions=ALL) | fields))


def test_there_is_nothing_beyond_the_end():
  source = DrawnChat(ALL, size=3)
  for index in (-1, 3):
    with pytest.raises(IndexError, match=f"{index} of 3"):
      source[index]
