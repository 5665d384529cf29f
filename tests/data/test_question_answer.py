"""Rows of `mmjax data qa` as documents."""

import json

import pytest

from mmjax.data import build
from mmjax.data.document import BadSample
from mmjax.data.questions import QuestionAnswer

ROW = {"id": 7, "audio": "a.flac", "question": " Who barks?", "answer": "a dog"}


def test_a_row(tmp_path):
  (tmp_path / "qa.json").write_text(json.dumps([ROW]))
  found = build.documents(
    {"name": "json", "paths": str(tmp_path / "qa.json")},
    {"name": "qa", "folder": str(tmp_path)},
  )
  sound, question, answer = found[0].segments
  assert sound.kind == "audio" and sound.name == "a.flac"
  assert sound.payload.path == str(tmp_path / "a.flac")
  assert question.text == "Who barks?" and not question.target
  assert answer.text == "a dog" and answer.target
  assert found[0].id == "7" and found[0].metadata["answers"] == ["a dog"]


def test_several_media_come_in_the_order_of_their_kinds():
  row = {**ROW, "image": "x/i.jpg"}
  kinds = [media.kind for media in QuestionAnswer()(row).media]
  assert kinds == ["image", "audio"]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"audio": None}, "7 names no file"),
    ({"audio": 3}, "'audio' is a int"),
    ({"audio": "../a.flac"}, "below"),
    ({"question": None}, "'question' is a NoneType"),
    ({"answer": " "}, "empty question or answer"),
    ({"answer": "\ud800"}, "half a character"),
  ],
)
def test_bad_rows(changes, message):
  with pytest.raises(BadSample, match=message):
    QuestionAnswer()({**ROW, **changes})
