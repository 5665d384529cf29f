import numpy as np
import pytest

from mmjax.data.document import BadSample, Document, Filtered, Media, Text
from mmjax.data.filters import OneTurn, Pictures
from tests.data.pictures import encode, photo


def document(*pictures):
  media = [Media("image", p) for p in pictures]
  return Document((Text("a"), *media, Text("b")), "doc")


@pytest.mark.parametrize(
  ("height", "width", "kept"),
  [(64, 64, 1), (63, 64, 0), (64, 192, 1), (64, 193, 0), (193, 64, 0)],
)
def test_size_and_aspect(height, width, kept):
  filtered = Pictures(min_images=0)(document(encode(photo(height, width))))
  assert len(filtered.media) == kept
  assert filtered.text == "ab"


def test_plain_pictures():
  plain = np.full((70, 70, 3), 9, np.uint8)
  assert not Pictures(min_images=0)(document(plain)).media
  assert Pictures(plain=True)(document(plain)).media
  almost = plain.copy()
  almost[3, 3, 1] = 10
  assert Pictures()(document(almost)).media


def test_what_is_left_has_to_be_enough():
  with pytest.raises(Filtered, match="0 of 1 pictures left of 1"):
    Pictures()(document(photo(8, 8)))


def test_damaged_pictures_and_clips():
  with pytest.raises(BadSample, match="doc:"):
    Pictures()(document(b"no picture"))
  clip = Document((Media("video", b"x"), Text("a")), "clip")
  assert Pictures()(clip) == clip


@pytest.mark.parametrize("shape", [(5,), (1, 80, 80, 3), ()])
def test_arrays_of_another_shape_are_bad_samples(shape):
  array = np.zeros(shape, np.uint8)
  with pytest.raises(BadSample, match="expected .height, width, 3."):
    Pictures()(Document((Media("image", array),)))


def test_one_answer_of_a_conversation_is_learned():
  picture = Media("image", b"x")
  turns = [("is it big?", "no"), ("is it red?\n", "yes"), ("why?", "paint")]
  segments = [picture]
  for question, answer in turns:
    segments += [Text(question), Text(answer, target=True)]
  seen = {}
  for i in range(20):
    one = OneTurn()(Document(tuple(segments), f"chat{i}"))
    assert one == OneTurn()(Document(tuple(segments), f"chat{i}"))
    assert one.media == (picture,) and len(one.segments) == 3
    seen[one.segments[2].text] = one.segments[1].text
    assert one.segments[2].target and not one.segments[1].target
  assert seen == {
    "no": "is it big?",
    "yes": "is it big? no is it red?",
    "paint": "is it big? no is it red? yes why?",
  }
  with pytest.raises(BadSample, match="chat has no answer"):
    OneTurn()(Document((picture, Text("what?")), "chat"))
