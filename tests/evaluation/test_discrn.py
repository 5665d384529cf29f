"""Which of two media an answer names, and what that is worth."""

import pytest

from mmjax.evaluation import discrn
from mmjax.evaluation.chat_metrics import METRICS
from tests.data.test_discrn import row, source
from tests.evaluation.test_chat import run

AV, IP = ["audio", "video"], ["image", "points"]


@pytest.mark.parametrize(
  ("text", "kinds", "places", "original"),
  [
    # The last: by the original's rule for label 0 and for label 1.
    ("the first", AV, {0}, (True, False)),
    ("Second.", AV, {1}, (False, True)),
    ("left", IP, {0}, (True, False)),
    ("(b)", AV, {1}, (False, True)),
    ("(A) the audio", AV, {0}, (True, False)),
    ("the sound of a dog", AV, {0}, (True, False)),
    # Both are clips, and what is right need not be on the right.
    ("the clip", AV, set(), (False, True)),
    ("an audio clip", AV, {0}, (True, True)),
    ("a video clip", AV, {1}, (False, True)),
    ("The right answer is the image", IP, {0}, (True, True)),
    ("the right one is the image", IP, {0}, (True, True)),
    ("That's right, the first.", IP, {0}, (True, True)),
    ("Right.", IP, {1}, (False, True)),
    ("the right", IP, {1}, (False, True)),
    ("the one on the right", IP, {1}, (False, True)),
    ("the right one", IP, {1}, (False, True)),
    ("right-hand side", IP, {1}, (False, True)),
    ("left or right", IP, {0, 1}, (True, True)),
    ("the right, not the left", IP, {0, 1}, (True, True)),
    ("a 3D model", IP, {1}, (False, True)),
    ("the picture", IP, {0}, (True, False)),
    ("audio, not video", AV, {0, 1}, (True, True)),
    ("the dog", AV, set(), (False, False)),
    ("", AV, set(), (False, False)),
    # Parts of words are names by the original's rule alone.
    ("copyright imagery", IP, set(), (True, True)),
    ("videos", AV, set(), (False, True)),
    # Of one kind, only places tell them apart.
    ("the image", ["image", "image"], set(), (False, False)),
    ("the right image", ["image", "image"], {1}, (False, True)),
  ],
)
def test_what_is_named(text, kinds, places, original):
  assert discrn.named(text, kinds) == places
  found = tuple(discrn.original(text, kinds, label) for label in (0, 1))
  assert found == original


def test_both_rules_are_reported():
  said = ["the first", "audio and video", "second", "a dog"]
  records = [
    {"id": str(k), "prediction": text, "kinds": AV, "label": 0}
    for k, text in enumerate(said)
  ]
  scores, each = METRICS["discrn"](records)
  assert scores == {"accuracy": 25, "original": 50, "both": 25, "neither": 25}
  assert next(iter(scores)) == "accuracy" and each == [100, 0, 0, 0]
  with pytest.raises(ValueError, match="no 'kinds' to be scored by"):
    METRICS["discrn"]([{"id": "x", "prediction": "first"}])


def test_captions_are_asked_as_a_benchmark(tmp_path):
  """The baseline that is shown captions in place of media."""
  rows = [row(k) for k in range(4)]
  given = source(tmp_path, *rows, by_caption=True)
  tasks = {"discrn": {"source": {"name": "discrn", **given}}}

  def says(document):
    assert document.text.startswith("question: ") and not document.media
    # The animal is told first of the audio.
    return "audio" if "audio: a dog" in document.text else "the second"

  (found,) = run(tmp_path, tasks, says)
  assert found.scores["accuracy"] == found.scores["original"] == 50
  assert found.records[0]["score"] == 100 and found.metric == "discrn"
