"""What is empty, missing, double or odd: an error, or the official value."""

import dataclasses
import logging
import math

import numpy as np
import pytest

from mmjax.data.document import Document, Text
from mmjax.evaluation import caption, classification, in_context, tasks, vqa
from mmjax.evaluation.answers import Likelihoods

# Predictions and references with something wrong or odd in each.
CAPTIONS = [
  ("", ["a dog", "the dog"]),
  ("a dog", [""]),
  ("", [""]),
  ("a dog", ["", "a dog runs"]),
  ("un café très chaud 日本", ["un café chaud", "日本 の 猫"]),
  ("dog", ["dog"]),
  ("dog dog dog dog dog", ["dog"]),
]
NAMES = ("cider_d", "bleu", "rouge_l")


def official(name, predictions, references):
  bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
  cider = pytest.importorskip("pycocoevalcap.cider.cider")
  rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
  scorers = {"bleu": bleu.Bleu(4), "cider_d": cider.Cider()}
  scorer = scorers.get(name) or rouge.Rouge()
  truth = dict(enumerate(references))
  return scorer.compute_score(
    truth, {i: [p] for i, p in enumerate(predictions)}
  )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [range(7), range(2), [0, 0, 4], [2, 3], [5]])
def test_odd_captions_score_what_the_official_code_says(name, rows):
  predictions = [CAPTIONS[i][0] for i in rows]
  references = [CAPTIONS[i][1] for i in rows]
  expected, each = official(name, predictions, references)
  ours = getattr(caption, name)(predictions, references)
  if name == "bleu":
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    return
  np.testing.assert_allclose(ours[0], expected, atol=1e-9)
  np.testing.assert_allclose(ours[1], each, atol=1e-9)


def test_documented_values_of_captions():
  assert caption.cider_d(["a dog"], [["a dog"]])[0] == 0
  assert max(caption.bleu([""], [["a dog"]])) < 1e-3
  assert caption.rouge_l([""], [["a dog"]])[0] == 0
  scores = caption.score(["", "x"], [["a dog"], ["A cat."]])
  assert all(0 <= value < 1e-3 for value in scores.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
  "predictions, references, message",
  [
    ([], [], "at least one"),
    (["a"], [], "1 captions for 0"),
    (["a", "b"], [["a"], []], r"image\(s\) \[1\]"),
    ([None], [["a"]], "None, no string"),
    (["a"], [[None]], "None, no string"),
    (["a"], [[3]], "3, no string"),
    (["a"], ["a b"], "one string"),
  ],
)
def test_captions_that_are_none(name, predictions, references, message):
  with pytest.raises(ValueError, match=message):
    getattr(caption, name)(predictions, references)


def test_vqa_edges():
  ten = ["café"] * 10
  assert vqa.accuracy("", ten) == 0
  assert vqa.accuracy("CAFÉ", ten) == 1
  # The accent as a character of its own: other code points, another answer.
  assert vqa.accuracy("cafe\u0301", ten) == 0
  assert vqa.accuracy("", ["the", "a", "an", "."]) == 1
  assert vqa.accuracy("cat", ["cat"] * 3) == pytest.approx(2 / 3)
  assert vqa.accuracy("日本", ["日本"] * 4) == 1


@pytest.mark.parametrize(
  "prediction, answers, message",
  [
    (None, ["cat"] * 10, "no string"),
    (3, ["cat"] * 10, "no string"),
    ("cat", "cat", "one string"),
    ("cat", ["cat"], "Use exact match"),
    ("cat", [], "No annotation"),
  ],
)
def test_vqa_that_would_be_silently_wrong(prediction, answers, message):
  with pytest.raises(ValueError, match=message):
    vqa.accuracy(prediction, answers)


@pytest.mark.parametrize(
  "scores, labels, message",
  [
    ([], [], "at least one"),
    ([1.0], [1, 0], "1 predictions for 2"),
    ([1.0, 2.0], [1, 2], "expected 0 and 1"),
    ([1.0, 2.0], [-1, 1], "expected 0 and 1"),
    ([1.0, 2.0], [np.nan, 1], "expected 0 and 1"),
    ([1.0, 2.0], [0, 0], "needs both"),
    ([np.nan, 2.0], [0, 1], "NaN"),
  ],
)
def test_roc_auc_edges(scores, labels, message):
  with pytest.raises(ValueError, match=message):
    classification.roc_auc(np.array(scores), np.array(labels))


def test_infinite_scores_have_an_order():
  inf = np.array([-np.inf, -np.inf, 0.0, np.inf])
  assert classification.roc_auc(inf, np.array([0, 1, 0, 1])) == 62.5


@pytest.mark.parametrize(
  "scores, relevance, message",
  [
    ([np.nan, 1.0], [1.0, 0.0], "NaN"),
    ([0.0, 1.0], [1.0, -1.0], "negative"),
    ([0.0, 1.0], [1.0, np.inf], "not finite"),
    ([0.0], [1.0, 0.0], "1 predictions for 2"),
  ],
)
def test_ndcg_edges(scores, relevance, message):
  with pytest.raises(ValueError, match=message):
    classification.ndcg(np.array(scores), np.array(relevance))


def test_exact_match_edges():
  with pytest.raises(ValueError, match="No answer to compare"):
    classification.exact_match(["a"], [[]])
  assert classification.exact_match([""], ["a"]) == 0
  assert classification.exact_match(["ÉTÉ"], ["été"]) == 100


def queries(answers):
  return [
    Document((Text("?"),), f"q/{i}", {"question": "?", "answers": given})
    for i, given in enumerate(answers)
  ]


def evaluate(documents, metric):
  support = [
    Document((Text("?"),), f"s/{i}", {"question": "?", "answer": "cat"})
    for i in range(3)
  ]
  (result,) = in_context.evaluate(
    dataclasses.replace(tasks.TASKS["vqav2"], metric=metric),
    documents,
    support,
    generate=lambda documents: ["cat"] * len(documents),
    protocol=in_context.Protocol(shots=(1,)),
  )
  return result


@pytest.mark.parametrize("metric", ["vqa", "exact", "cider"])
def test_a_test_set_without_answers_is_answered_and_not_scored(metric, caplog):
  """As for an evaluation server: a 0 would look like a measurement."""
  result = evaluate(queries([[], []]), metric)
  assert math.isnan(result.score)
  assert [r["prediction"] for r in result.records] == ["cat", "cat"]
  assert [r["score"] for r in result.records] == [None, None]
  assert "No answers to score against" in caplog.text


def test_some_answers_missing():
  with pytest.raises(ValueError, match=r"1 of 2 records .*'q/1'"):
    evaluate(queries([["cat"], []]), "exact")


def test_a_question_that_is_there_twice_is_told(caplog):
  with caplog.at_level(logging.WARNING):
    result = evaluate(queries([["cat"], ["dog"]])[:1] * 2, "exact")
  assert result.score == 100 and "more than once: ['q/0']" in caplog.text


@pytest.mark.parametrize("shots", [0, 1])
def test_support_without_answers(shots, caplog):
  """It would show the model that the right answer is to say nothing."""

  def run(answers):
    support = [
      Document((Text("?"),), f"s/{i}", {"question": "?", "answer": answer})
      for i, answer in enumerate(answers)
    ]
    in_context.evaluate(
      tasks.TASKS["vqav2"],
      queries([["cat"] * 3]),
      support,
      generate=lambda documents: ["cat"],
      protocol=in_context.Protocol(shots=(shots,)),
    )

  with pytest.raises(ValueError, match="None of the 2 support .*'s/0'"):
    run(["", ""])
  assert not caplog.text
  run(["cat", ""])
  assert "1 of 2 support examples show an empty answer, such as 's/1'" in (
    caplog.text
  )


def choose(metric, rows, choices=("no", "yes", "may be", "c", "d")):
  """The result of two questions whose choices have these likelihoods."""
  (result,) = in_context.evaluate(
    tasks.classes(choices, metric, "vqa"),
    queries([["no"], ["yes"]]),
    [],
    score=lambda documents, answers: Likelihoods(rows, rows),
    protocol=in_context.Protocol(shots=(0,)),
  )
  return result


@pytest.mark.parametrize("metric", ["exact", "per_class", "top_1_and_5"])
def test_likelihoods_without_an_order(metric):
  rows = np.zeros((2, 5))
  # Of equal ones the first is taken.
  assert [r["prediction"] for r in choose(metric, rows).records] == ["no"] * 2
  rows[1, 3] = np.nan
  with pytest.raises(ValueError, match="after 'q/1' hold NaN"):
    choose(metric, rows)


@pytest.mark.parametrize("metric", ["auc", "top_1_and_5"])
def test_an_answer_that_no_choice_is(metric):
  choices = ("no", "Yes", "may be", "c", "d")
  with pytest.raises(ValueError, match="of 'q/1' is 'yes', none of .*'Yes'"):
    choose(metric, np.zeros((2, 5)), choices)


@pytest.mark.parametrize(
  "name", ["pool", "per_class", "permutations", "batch_size"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_a_protocol_of_none(name, value):
  with pytest.raises(ValueError, match=f"{name} is {value}"):
    in_context.Protocol(**{name: value})


def test_a_seed_that_is_there_twice():
  """Its prompts would be there twice and its records once."""
  with pytest.raises(ValueError, match=r"seeds are \(1, 2, 1\)"):
    in_context.Protocol(seeds=(1, 2, 1))


def test_features_that_nothing_is_like():
  found = np.ones((2, 3), np.float32)
  found[1, 2] = np.nan
  with pytest.raises(ValueError, match="features of 'q/1' are not finite"):
    in_context.evaluate(
      tasks.TASKS["vqav2"],
      queries([["no"], ["yes"]]),
      queries([["no"], ["yes"]]),
      generate=lambda documents: ["no"] * len(documents),
      features=lambda documents: found,
      protocol=in_context.Protocol(shots=(1,), selection="rices"),
    )


@pytest.mark.parametrize(
  "prediction,score",
  [("Whisk.", 100), ("bowl", 50), ("spoon", 0), ("", 0)],
)
def test_ivqa_asks_for_two_of_five_annotators(prediction, score):
  answers = ["whisk", "whisk", "bowl", "a whisk", "fork"]
  record = {"id": "a", "prediction": prediction, "answers": answers}
  assert tasks.METRICS[tasks.TASKS["ivqa"].metric]([record]) == (score, [score])
