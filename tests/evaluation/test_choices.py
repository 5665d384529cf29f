"""Tasks whose answers are chosen by likelihood."""

import dataclasses

import numpy as np
import pytest

from mmjax.data.document import Document
from mmjax.evaluation import in_context, tasks
from mmjax.evaluation.answers import Likelihoods
from mmjax.evaluation.in_context import Protocol
from tests.evaluation.seeing import (
  EXAMPLES,
  NAMES,
  QUERIES,
  TASK,
  Seeing,
  image,
)


def test_closed_ended_choice_and_ensembling():
  model = Seeing()
  results = in_context.evaluate(
    tasks.classes(NAMES, metric="per_class"),
    QUERIES,
    EXAMPLES,
    score=model.score,
    protocol=Protocol(shots=(0, 2, 3), permutations=6),
  )
  assert [r.score for r in results] == [100, 100, 100]
  # 1 order of nothing, 2 of two examples, 6 of three.
  assert len(model.asked) == (1 + 2 + 6) * len(QUERIES)
  assert all(len(d.media) == 1 for d in model.asked[: len(QUERIES)])
  last = model.asked[3 * len(QUERIES) :]
  orders = {tuple(d.metadata["support"]) for d in last if d.id == "test/0"}
  assert len(orders) == 6 and len({frozenset(o) for o in orders}) == 1


def test_written_answers_are_asked_for_once():
  model = Seeing()
  in_context.evaluate(
    TASK,
    QUERIES,
    EXAMPLES,
    generate=model.generate,
    protocol=Protocol(shots=(2,), permutations=6),
  )
  assert len(model.asked) == len(QUERIES)


def test_ensembling_averages_likelihoods():
  calls = []

  def score(documents, answers):
    first = [float(d.metadata["support"] < ["train/5"]) for d in documents]
    calls.append(len(documents))
    total = np.array([[-1.0, -3.0 * f] for f in first])
    return Likelihoods(total, total)

  results = in_context.evaluate(
    tasks.classes(("cat", "dog")),
    QUERIES[:1],
    EXAMPLES[4:6],
    score=score,
    protocol=Protocol(shots=(2,), permutations=6),
  )
  # Of the two orders one gives "dog" 0 and the other -3.
  assert results[0].records[0]["scores"] == [-1.0, -1.5]


def test_length_normalisation_follows_the_style():
  def score(documents, answers):
    total = np.tile([[-4.0, -5.0]], (len(documents), 1))
    return Likelihoods(total, total / [1, 5])

  def run(style):
    (result,) = in_context.evaluate(
      tasks.classes(("cat", "a large dog")),
      QUERIES,
      EXAMPLES,
      score=score,
      protocol=Protocol(style=style, shots=(0,)),
    )
    return {r["prediction"] for r in result.records}

  assert run("flamingo") == {"cat"}
  assert run("open_flamingo") == {"a large dog"}


@pytest.mark.parametrize(
  ("style", "count"), [("flamingo", 0), ("open_flamingo", 2)]
)
def test_a_style_says_what_zero_shots_of_a_choice_show(style, count):
  def score(documents, answers):
    total = np.zeros((len(documents), len(answers)))
    return Likelihoods(total, total)

  (result,) = in_context.evaluate(
    tasks.classes(NAMES),
    QUERIES,
    EXAMPLES,
    score=score,
    protocol=Protocol(style=style, shots=(0,)),
  )
  assert {len(r["support"]) for r in result.records} == {count}
  for prompt in result.prompts:
    assert len(prompt.media) == 1 and prompt.text.count("Output:") == 1 + count


def test_hateful_memes_is_scored_by_roc_auc():
  queries = [
    Document((image(i % 4),), f"m/{i}", {"text": "hi", "answer": a})
    for i, a in enumerate(["no", "yes", "no", "yes"])
  ]

  def score(documents, answers):
    assert list(answers) == [" no", " yes"]
    margin = [float(d.id[-1]) for d in documents]
    total = np.array([[0.0, m] for m in margin])
    return Likelihoods(total, total)

  (result,) = in_context.evaluate(
    tasks.TASKS["hateful_memes"],
    queries,
    queries,
    score=score,
    protocol=Protocol(shots=(0,)),
  )
  assert result.score == 75


def test_choices_of_each_record():
  queries = [
    Document(
      (image(i),),
      f"s/{i}",
      {
        "question": "?",
        "answer": NAMES[i],
        "choices": sorted({NAMES[i], "owl", NAMES[i % 2]}),
        "relevance": [1.0, 0.0, 0.0],
      },
    )
    for i in (2, 0, 2)
  ]
  model = Seeing()
  (chosen,) = in_context.evaluate(
    tasks.TASKS["star"],
    queries,
    EXAMPLES,
    score=model.score,
    protocol=Protocol(shots=(1,)),
  )
  assert chosen.score == 100
  assert [len(r["scores"]) for r in chosen.records] == [3, 2, 3]
  assert [r["id"] for r in chosen.records] == ["s/2", "s/0", "s/2"]
  (ranked,) = in_context.evaluate(
    dataclasses.replace(tasks.TASKS["star"], metric="ndcg"),
    queries[:1],
    EXAMPLES,
    score=model.score,
    protocol=Protocol(shots=(0,)),
  )
  # The relevant answer is "cat", the picture a fox: it ranks second or lower.
  assert ranked.score == 0
  with pytest.raises(ValueError, match="'test/0' has choices"):
    in_context.evaluate(
      tasks.TASKS["star"],
      QUERIES,
      EXAMPLES,
      score=model.score,
      protocol=Protocol(shots=(0,)),
    )
