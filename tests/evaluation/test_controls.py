"""What each control changes, and that it changes nothing else."""

import numpy as np
import pytest

from mmjax.data.document import Document, Media, Text
from mmjax.evaluation import controls


def _document(i, label="x", queries=1):
  images = [Media("image", np.full((2, 2, 3), 10 * i + k)) for k in range(3)]
  return Document(
    (
      images[0],
      Text("one", end=True),
      images[1],
      Text("two", end=True),
      images[2],
      Text("three?"),
    ),
    id=str(i),
    metadata={"label": label, "query_media": queries},
  )


def _values(document):
  return [int(m.payload.flat[0]) for m in document.media]


@pytest.mark.parametrize(
  "change,queries,values",
  [
    (controls.no_query, 1, [10, 11, 255]),
    (controls.no_query, 2, [10, 255, 255]),
    (controls.blank_support, 1, [255, 255, 12]),
    (controls.text_only, 1, []),
  ],
)
def test_changes_media_and_nothing_else(change, queries, values):
  document = _document(1, queries=queries)
  changed = change(document)
  assert _values(changed) == values
  assert changed.text == document.text
  assert (changed.id, changed.metadata) == (document.id, document.metadata)
  assert _values(document) == [10, 11, 12]


def test_wrong_query_is_another_documents():
  for seed in range(5):
    documents = [_document(i) for i in range(7)]
    changed = controls.wrong_query(documents, seed)
    for before, after in zip(documents, changed):
      assert _values(after)[:2] == _values(before)[:2]
      assert _values(after)[2] != _values(before)[2]
      assert after.text == before.text and after.id == before.id
    last = sorted(_values(d)[2] for d in changed)
    assert last == [10 * i + 2 for i in range(7)]


@pytest.mark.parametrize("labels", ["aabb", "aabbc", "abcdefg", "aaabbcd"])
def test_wrong_query_never_has_the_same_label(labels):
  for seed in range(5):
    documents = [_document(i, label) for i, label in enumerate(labels)]
    changed = controls.wrong_query(
      documents, seed, label=lambda d: d.metadata["label"]
    )
    for before, after in zip(documents, changed):
      shown = documents[_values(after)[2] // 10]
      assert shown.metadata["label"] != before.metadata["label"]


def test_wrong_query_says_when_there_is_none():
  with pytest.raises(ValueError, match="3 of 4 queries have the same label"):
    controls.wrong_query(
      [_document(i, label) for i, label in enumerate("aaab")],
      label=lambda d: d.metadata["label"],
    )
  with pytest.raises(ValueError, match="1 of 1"):
    controls.wrong_query([_document(0)])


def test_only_pictures_have_a_known_blank():
  video = Document((Media("video", b"x"), Text("what?")))
  with pytest.raises(ValueError, match="video"):
    controls.no_query(video)
  black = Media("video", np.zeros((1, 2, 2, 3)))
  assert controls.no_query(video, lambda m: black).media == (black,)
