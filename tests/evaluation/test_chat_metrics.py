"""Parsers and metrics against tables made by hand and restated rules."""

import numpy as np
import pytest

from mmjax.evaluation import caption
from mmjax.evaluation.chat_metrics import METRICS
from mmjax.evaluation.chat_tasks import CHAT_TASKS, PARSERS
from mmjax.evaluation.published import PUBLISHED


@pytest.mark.parametrize(
  ("parser", "said", "expected"),
  [
    ("yes_or_no", "No", "no"),
    ("yes_or_no", "Yes, there is no doubt.", "no"),
    ("yes_or_no", "There is not. Yes", "no"),
    ("yes_or_no", "Yes. No", "yes"),
    ("yes_or_no", "no, it is", "no"),
    ("yes_or_no", "Nope", "yes"),
    ("yes_or_no", "NO", "yes"),
    ("yes_or_no", "", "yes"),
    ("begins_yes_or_no", "Yes.", "yes"),
    ("begins_yes_or_no", "no", "no"),
    ("begins_yes_or_no", "A yes", None),
    ("begins_yes_or_no", "Not at all", "no"),
    ("begins_yes_or_no", "perhaps", None),
    ("begins_yes_or_no", "", None),
    ("letter", "B", "B"),
    ("letter", " B\n", "B"),
    ("letter", "B. an apple", "B"),
    ("letter", "As it is red. The answer is C.", "C"),
    ("letter", "The answer is A. The answer is B.", None),
    ("letter", "The answer is A", None),
    ("letter", "b", None),
    ("letter", "B.an apple", None),
    ("letter", "Apples grow", None),
    ("letter", "", None),
    ("plain", "A Cat..", "a cat"),
    ("as_it_is", " A cat. ", "A cat."),
  ],
)
def test_what_is_read_of_an_answer(parser, said, expected):
  assert PARSERS[parser](said) == expected


def record(prediction, *answers, **fields):
  return dict(id="a", prediction=prediction, answers=[*answers], **fields)


def test_pope_by_hand():
  said = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes")]
  said += [("yes", "yes")]
  rows = [record(p, a, split="random") for p, a in said]
  rows += [record("no", a, split="popular") for a in ("yes", "no")]
  scores, worth = METRICS["pope"](rows)
  # Of 3 times yes 2 are right, of 3 that are yes 2 are found.
  two_thirds = pytest.approx(200 / 3)
  assert scores["random/precision"] == scores["random/recall"] == two_thirds
  assert scores["random/f1"] == two_thirds
  assert scores["random/accuracy"] == scores["random/yes"] == 60
  # What never says yes has no precision, and does not end the evaluation.
  assert scores["popular/f1"] == scores["popular/precision"] == 0
  assert scores["popular/accuracy"] == 50 and scores["popular/yes"] == 0
  assert scores["f1"] == pytest.approx(100 / 3)
  assert next(iter(scores)) == "f1"
  assert worth == [100, 0, 100, 0, 100, 0, 100]


def test_pope_as_the_official_code_counts():
  """TP, FP, TN and FN in a loop, as restated from eval_pope.py."""
  rng = np.random.default_rng(0)
  rows = [
    record(*rng.choice(["yes", "no"], 2), split="random") for _ in range(50)
  ]
  counts = dict(TP=0, FP=0, TN=0, FN=0)
  for row in rows:
    right = row["prediction"] == row["answers"][0]
    counts["FT"[right] + ("P" if row["prediction"] == "yes" else "N")] += 1
  tp, fp, tn, fn = counts.values()
  precision, recall = tp / (tp + fp), tp / (tp + fn)
  scores, _ = METRICS["pope"](rows)
  assert scores["f1"] == pytest.approx(
    100 * 2 * precision * recall / (precision + recall)
  )
  assert scores["random/accuracy"] == pytest.approx(2 * (tp + tn))
  assert scores["random/yes"] == pytest.approx(2 * (tp + fp))


def test_mme_by_hand():
  def pair(category, number, *said):
    return [
      record(p, a, category=category, picture=f"{category}/{number}")
      for p, a in zip(said, ("yes", "no"))
    ]

  rows = pair("existence", 1, "yes", "no") + pair("existence", 2, "yes", "yes")
  rows += pair("OCR", 1, None, "no") + pair("code_reasoning", 1, "yes", "no")
  scores, _ = METRICS["mme"](rows)
  assert scores["existence/accuracy"] == 75
  assert scores["existence/accuracy+"] == 50
  assert scores["OCR/accuracy"] == 50 and scores["OCR/accuracy+"] == 0
  assert list(scores)[:2] == ["perception", "cognition"]
  assert scores["perception"] == 125 + 50 and scores["cognition"] == 200
  # One question of a picture says nothing about both.
  alone, _ = METRICS["mme"](rows[:1])
  assert alone["existence/accuracy+"] == 0 and "cognition" not in alone


def test_scienceqa_by_hand():
  rows = [
    record(p, "A", subject=s, grade=f"grade{g}", has_text=t, has_image=i)
    for p, s, g, t, i in (
      ("A", "natural science", 1, True, True),
      ("B", "natural science", 6, True, False),
      ("A", "social science", 7, False, False),
      (None, "social science", 12, False, True),
    )
  ]
  scores, worth = METRICS["scienceqa"](rows)
  assert scores == {
    "average": 50,
    "NAT": 50,
    "SOC": 50,
    "TXT": 50,
    "IMG": 50,
    "NO": 100,
    "G1-6": 50,
    "G7-12": 50,
  }
  assert worth == [100, 0, 100, 0]


def test_records_of_another_benchmark_are_named():
  with pytest.raises(ValueError, match="'a' has no 'split' to be scored by"):
    METRICS["pope"]([record("yes", "yes")])


def test_published_scores_are_of_tasks_that_there_are():
  for model, tasks in PUBLISHED.items():
    assert tasks.keys() <= CHAT_TASKS.keys(), model
  assert PUBLISHED["LLaVA-1.5-7B"]["pope"]["popular/f1"] == 86.1
  assert PUBLISHED["LLaVA-13B"]["scienceqa"]["SOC"] == 95.95


def test_mentions_are_whole_words_or_any_part():
  rows = [
    record("A busy road.", "bus"),
    record("the Bus stops", "tram", "bus"),
    record("a night stand", "night stand"),
    record("a chair", "table"),
  ]
  scores, each = METRICS["mentions"](rows)
  assert scores == {"accuracy": 50, "original": 75}
  assert each == [0, 100, 100, 0]
  # What looks like a pattern is none.
  assert METRICS["mentions"]([record("abc", "a.c")])[0]["original"] == 0


def test_short_answers_are_compared_as_vqa_writes_them():
  rows = [
    record("Two dogs.", "two dogs"),
    record("the cat", "cat"),
    record("a cat", "dog", "cat"),
    record("cats", "cat"),
  ]
  scores, each = METRICS["normalized"](rows)
  assert scores == {"accuracy": 75, "original": 50}
  assert each == [100, 100, 100, 0]


def test_captions_are_scored_as_the_coco_code_does():
  rows = [
    record("a cat on a mat", "a cat on a mat", "the cat"),
    record("a dog", "two birds fly", "birds"),
  ]
  scores, each = METRICS["caption"](rows)
  expected = caption.score(
    [r["prediction"] for r in rows], [r["answers"] for r in rows]
  )
  assert scores == expected and next(iter(scores)) == "CIDEr"
  assert np.mean(each) == pytest.approx(scores["CIDEr"]) and each[1] == 0
