"""Questions about drawn things, asked of stand-ins that see, or do not."""

import pytest

from mmjax.data import drawn
from mmjax.data.document import Media, Text
from mmjax.data.drawn_chat import COMPARED, QUESTIONS, main_colour
from mmjax.evaluation.drawn_chat import Setting, evaluate_chat

KINDS = {texts[0]: name for name, texts in QUESTIONS.items()}
CONCEPTS = {c.id: c for c in drawn.concepts("held_out")}
CONTROLS = ("none", "wrong_query", "no_query", "text_only")


def value(kind, media):
  if media.name == "blank":
    assert media.metadata["key"] == drawn.blank_key()
    assert (media.payload == 255).all()
    return "white" if kind == "colour" else "nothing"
  style, id = media.name.split("/")
  if kind == "style":
    return style
  if kind == "colour":
    return main_colour(media.payload)
  concept = CONCEPTS[id]
  if kind == "description":
    seen = f"{style}, {main_colour(media.payload)}, {concept.category}"
    return f"{seen}: {concept.name}"
  return getattr(concept, kind)


def sees(documents):
  """Answers with what is in the pictures that it is shown."""
  answers = []
  for document in documents:
    *media, question = document.segments
    assert isinstance(question, Text) and not question.target
    assert all(isinstance(m, Media) for m in media)
    kind = KINDS[question.text]
    if not media:
      answers.append("nothing")
    elif kind in COMPARED:
      one, other = (value(COMPARED[kind], m) for m in media)
      answers.append("yes" if one == other else "no")
    else:
      answers.append(value(kind, media[0]))
  return answers


@pytest.fixture(scope="module")
def results():
  told = []
  found = evaluate_chat(
    sees, Setting(count=100), lambda done, total: told.append((done, total))
  )
  return found, told


def test_every_question_has_every_control(results):
  found, told = results
  assert [(r.task, r.control) for r in found] == [
    (name, control) for name in QUESTIONS for control in CONTROLS
  ]
  assert all(len(r.records) == 100 for r in found)
  total = 100 * len(found)
  assert told == [(done, total) for done in range(100, total + 1, 100)]


def test_who_sees_is_right_and_wrong_pictures_are_no_help(results):
  scores = {(r.task, r.control): r.score for r in results[0]}
  for name in QUESTIONS:
    assert scores[name, "none"] == 100
    assert scores[name, "wrong_query"] < 70, name
    assert scores[name, "no_query"] < 70, name
    assert scores[name, "text_only"] == 0


def test_questions_are_those_of_the_seed_and_of_held_out_things(results):
  plain = [r for r in results[0] if r.control == "none"]
  for result in plain:
    shown = [m.name.split("/")[1] for d in result.prompts for m in d.media]
    assert set(shown) <= CONCEPTS.keys()
    assert len({d.id for d in result.prompts}) == 100
    wordings = {d.segments[-1].text for d in result.prompts}
    assert wordings == {QUESTIONS[result.task][0]}
  setting = Setting(questions=("style",), count=100, controls=("none",))
  (again,) = evaluate_chat(sees, setting)
  (first,) = [r for r in plain if r.task == "style"]
  assert [r["id"] for r in again.records] == [r["id"] for r in first.records]
  setting = Setting(("style",), count=100, seed=2, controls=("none",))
  (other,) = evaluate_chat(sees, setting)
  answers = [[r["answers"] for r in x.records] for x in (first, other)]
  assert answers[0] != answers[1]


@pytest.mark.parametrize("answer, score", [("yes", 50), ("No.", 50), ("", 0)])
def test_who_guesses_is_half_right_at_best(answer, score):
  setting = Setting(tuple(COMPARED), count=200, controls=("none",))
  for result in evaluate_chat(lambda asked: [answer] * len(asked), setting):
    assert result.score == pytest.approx(score, abs=8)


def test_wrong_settings_are_refused():
  with pytest.raises(ValueError, match="Did you mean 'colour'"):
    Setting(questions=("style", "color"))
  with pytest.raises(ValueError, match="No episodes"):
    evaluate_chat(sees, Setting(count=0))
  with pytest.raises(ValueError, match="Did you mean 'wrong_query'"):
    Setting(controls=("wrong_queries",))
