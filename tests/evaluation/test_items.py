"""Questions about files, asked of stand-ins that see them, or do not."""

import json

import numpy as np
import pytest

from mmjax.data.items import read
from mmjax.evaluation.answers import Likelihoods
from mmjax.evaluation.items import CONTROLS, Setting, evaluate_items
from tests.data.real import item, make_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return make_set(tmp_path_factory.mktemp("sets") / "things")


def category(medium, rows):
  return rows[medium.name].values["category"]


class Sees:
  """Finds the category of what it is shown, and says so."""

  def __init__(self, folder):
    self.rows = {f"things/{row.id}": row for row in read(folder)}
    self.asked = []

  def generate(self, documents):
    raise AssertionError("There are few answers; none is to be written.")

  def score(self, documents, answers):
    self.asked += documents
    table = np.zeros((len(documents), len(answers)))
    for row, document in zip(table, documents):
      known = [category(m, self.rows) for m in document.media]
      right = known[0] if known else answers[0].strip()
      if len(known) == 2:
        (text,) = (s.text for s in document.segments[len(known) :])
        meant = document.media[0 if known[0] in text else 1].kind
        right = {"image": "picture", "points": "3d model"}[meant]
      row[[a.strip() for a in answers].index(right)] = 1
    return Likelihoods(table, table)


def test_what_is_seen_is_lost_with_the_medium(folder):
  model, told = Sees(folder), []
  setting = Setting(folder, ["category"], ["points"])
  results = evaluate_items(
    model.generate,
    model.score,
    setting,
    lambda done, total: told.append((done, total)),
  )
  scores = {r.control: r.score for r in results}
  assert scores["none"] == 100 and set(scores) == set(CONTROLS)
  # Of 4 held-out things of 3 categories no two that are alike change places.
  assert scores["wrong_query"] == 0
  assert 0 < scores["text_only"] < 100
  assert told[-1] == (12, 12)
  assert results[0].records[0]["choices"] == ["bed", "lamp", "vase"]
  assert all(len(d.media) == (i < 8) for i, d in enumerate(model.asked))


def test_two_media_are_asked_about_together(folder):
  model = Sees(folder)
  setting = Setting(folder, ["which"], ["image", "points"], count=40)
  results = evaluate_items(model.generate, model.score, setting)
  scores = {r.control: r.score for r in results}
  assert scores["none"] == 100
  assert scores["wrong_query"] < 75 and scores["text_only"] < 75
  assert all(len(d.media) == 2 for d in model.asked[:80])
  assert {r.task for r in results} == {"which, category"}


def test_every_property_is_asked_by_itself(folder):
  kinds, about = ["image", "points"], ["shape", "category"]
  setting = Setting(folder, ["both", "same"], kinds, about, count=4)
  results = evaluate_items(
    None,
    lambda asked, answers: Likelihoods(*[np.eye(len(asked), 2)] * 2),
    setting,
  )
  assert list(dict.fromkeys(r.task for r in results)) == [
    "both, shape",
    "both, category",
    "same",
  ]
  assert {len(r.records) for r in results} == {4}


def test_answers_are_written_where_there_are_many(tmp_path):
  """A transcript is one of more than can be ranked."""
  folder = tmp_path / "said"
  folder.mkdir()
  rows = [
    item(i, "audio", "word", split, transcript=f"word {i}")
    for i, split in enumerate(["train"] * 40 + ["held_out"] * 3)
  ]
  (folder / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
  setting = Setting(str(folder), ["transcript"], ["audio"])

  def generate(documents):
    return ["Word 41." for _ in documents]

  results = evaluate_items(generate, None, setting)
  assert [round(r.score) for r in results] == [33] * 3
  assert results[0].records[0]["raw"] == "Word 41."


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(questions=["nme"]), "Did you mean 'name'"),
    (dict(questions=["which"]), "question 'which'"),
    (dict(controls=["no_query"]), "control 'no_query'"),
    (dict(about=["size"]), "property 'size'"),
    (dict(count=1), "count is 1"),
  ],
)
def test_wrong_settings_are_told_at_once(change, message):
  given = dict(folders="x", questions=["category"], kinds=["points"])
  with pytest.raises(ValueError, match=message):
    Setting(**given | change)
