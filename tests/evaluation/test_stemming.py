"""OK-VQA's stems, as its annotations have them."""

import json

import numpy as np
import pytest
from PIL import Image

from mmjax.data.tasks import Vqa
from mmjax.evaluation import in_context, tasks, vqa
from mmjax.evaluation.stemming import Stemmer

PAIRS = [
  ("riding horses", "ride horse"),
  ("Christmas", "christmas"),
  ("glasses", "glasses"),
  ("run", "run"),
  ("surf", "surf"),
  ("puppy", "puppy"),
  ("box", "box"),
  ("las vegas", "las vegas"),
  ("leaves", "leaf"),
  ("leaves", "leaf"),
  ("leaves", "leave"),
  ("hot dogs", "hotdog"),
]


@pytest.mark.parametrize(
  "text, stem",
  [
    ("riding", "ride"),
    ("Riding  Horses", "ride horse"),
    ("horses riding", "horse ride"),
    ("christmas", "christmas"),
    ("glasses", "glasses"),
    ("leaves", "leaf"),  # Twice against once.
    ("running", "run"),
    ("surfing", "surf"),
    ("puppies", "puppy"),
    ("boxes", "box"),
    ("vegas", "vegas"),
    ("dogs", "dogs"),  # Its only pair says nothing about words.
    ("king", "king"),
    ("bus", "bus"),
    ("ing", "ing"),
    ("été", "été"),
    ("", ""),
  ],
)
def test_stems(text, stem):
  assert Stemmer(PAIRS)(text) == stem


def test_what_teaches_nothing():
  for pairs in ([], [("hot dogs", "hotdog")], [("", "")]):
    with pytest.raises(ValueError, match="raw_answer"):
      Stemmer(pairs)


def files(folder, raw=True):
  """Two questions in OK-VQA's format; the first is answered by a participle."""
  answers = [
    [("riding", "ride")] * 7 + [("horses", "horse")] * 3,
    [("cat", "cat")] * 10,
  ]
  rows = [
    [dict(answer=a, **({"raw_answer": r} if raw else {})) for r, a in given]
    for given in answers
  ]
  (folder / "a.json").write_text(
    json.dumps(
      {
        "annotations": [
          {"question_id": i, "answers": given} for i, given in enumerate(rows)
        ]
      }
    )
  )
  (folder / "q.json").write_text(
    json.dumps(
      {
        "questions": [
          {"question_id": i, "image_id": 1, "question": "what?"}
          for i in range(2)
        ]
      }
    )
  )
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "1.png")
  read = Vqa(
    str(folder / "q.json"),
    str(folder),
    str(folder / "a.json"),
    file="{image_id}.png",
  )
  return [read[i] for i in range(2)]


def evaluate(queries, said):
  (result,) = in_context.evaluate(
    tasks.TASKS["okvqa"],
    queries,
    queries,
    generate=lambda documents: said[: len(documents)],
    protocol=in_context.Protocol(shots=(1,)),
  )
  return result


def test_okvqa_is_scored_with_its_stems(tmp_path):
  queries = files(tmp_path)
  result = evaluate(queries, [" Riding", " cats"])
  assert result.score == 100
  assert result.records[0]["prediction"] == "Riding"
  assert vqa.accuracy("Riding", result.records[0]["answers"]) == 0


def test_other_annotations_say_so(tmp_path):
  with pytest.raises(ValueError, match="raw_answers"):
    evaluate(files(tmp_path, raw=False), ["a", "b"])
