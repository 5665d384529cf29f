"""Metrics as the tasks call them: on records of raw strings and scores."""

import numpy as np
import pytest

from mmjax.evaluation import caption, tasks

CAPTIONS = [
  ("A dog's ball.", ["a dog with a ball", "The dog plays, (in grass)."]),
  ("Two cats sit", ["two cats sit on a couch.", "Cats!"]),
  ("green sky", ["A boat on the lake", "the sea - a boat"]),
]


def test_captions_are_tokenized_before_they_are_scored():
  records = [{"prediction": p, "answers": a} for p, a in CAPTIONS]
  mean, each = tasks.METRICS[tasks.TASKS["coco"].metric](records)
  expected = caption.score(*zip(*CAPTIONS))["CIDEr"]
  assert mean == pytest.approx(expected) == pytest.approx(np.mean(each))
  assert each[0] > 0 and each[2] == pytest.approx(0)


def test_kinetics_is_the_mean_of_top_1_and_top_5():
  choices = list("abcdef")
  # Ranks of the right answer: 1, 3 and 6.
  records = [
    {
      "choices": choices,
      "answers": [answer],
      "scores": [6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
      "prediction": "a",
    }
    for answer in "acf"
  ]
  mean, each = tasks.METRICS["top_1_and_5"](records)
  assert mean == pytest.approx(100 * (1 / 3 + 2 / 3) / 2)
  assert each == [100, 0, 0]


def test_classes_count_alike_however_many_examples_they_have():
  pairs = [("cat", "cat"), ("cat", "cat"), ("dog", "cat"), ("fox", "fox")]
  records = [{"prediction": p, "answers": [a]} for p, a in pairs]
  mean, each = tasks.METRICS["per_class"](records)
  assert mean == pytest.approx(100 * (2 / 3 + 1) / 2)
  assert each == [100, 100, 0, 100]


def test_vqa_is_in_percent():
  answers = ["two dogs"] * 3 + ["cat"] * 7
  records = [{"prediction": "The 2 dogs.", "answers": answers}]
  mean, each = tasks.METRICS[tasks.TASKS["vqav2"].metric](records)
  assert mean == each[0] == pytest.approx(90)
