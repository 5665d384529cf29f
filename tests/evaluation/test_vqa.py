"""VQA accuracy against the scores the official code gave."""

import json

import pytest

from mmjax.evaluation import vqa
from tests.evaluation.record import FIXTURES

ROWS = json.loads((FIXTURES / "vqa.json").read_text())["rows"]


@pytest.mark.parametrize("protocol", ["always", "disagreement"])
def test_equals_the_recorded_scores(protocol):
  assert len({row[protocol] for row in ROWS}) >= 4
  for row in ROWS:
    score = 100 * vqa.accuracy(row["prediction"], row["answers"], protocol)
    assert score == pytest.approx(row[protocol], abs=1e-9), row


def test_the_protocols_differ_somewhere():
  assert any(row["always"] != row["disagreement"] for row in ROWS)


@pytest.mark.parametrize(
  "answer,normal",
  [
    ("The Two dogs.", "2 dogs"),
    ("t-shirt", "t shirt"),
    ("black - white", "black white"),
    # A mark that touches a space anywhere is deleted everywhere.
    ("red -ish t-shirt", "red ish tshirt"),
    ("red- t-shirt", "red tshirt"),
    ("1,000", "1000"),
    ("3.5", "3.5"),
    ("dont", "don't"),
    ("couldnt've", "couldn't've"),
    ("couldn'tve", "couldn't've"),
    ("somebody'd", "somebodyd"),
    ("Im", "im"),
    ("10:30", "10:30"),
    ("None", "0"),
    ("." * 40 + "x", "." * 8 + "x"),
    ("the", ""),
  ],
)
def test_normalize(answer, normal):
  assert vqa.normalize(answer) == normal


def test_accuracy_leaves_one_annotation_out():
  # Three of ten agree: seven annotators see 3 matches, three see only 2.
  answers = ["cat"] * 3 + ["dog"] * 7
  assert vqa.accuracy("cat", answers) == pytest.approx((7 + 3 * 2 / 3) / 10)
  assert vqa.accuracy("dog", answers) == 1.0
  assert vqa.accuracy("cow", answers) == 0.0
  assert vqa.vqa_accuracy(["cat", "dog"], [answers] * 2) == pytest.approx(95)


def test_bad_input_is_named():
  with pytest.raises(ValueError, match="No annotation"):
    vqa.accuracy("cat", [])
  with pytest.raises(ValueError, match="'sometimes'"):
    vqa.accuracy("cat", ["cat"], "sometimes")
  with pytest.raises(ValueError, match="1 predictions for 2"):
    vqa.vqa_accuracy(["cat"], [["cat"], ["dog"]])
