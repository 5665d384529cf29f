import dataclasses
import pickle

import numpy as np
import pytest

from mmjax.data.batching import Slots
from mmjax.data.document import BadSample, Document, Filtered, Media, Text
from mmjax.data.encoder import Encoder
from mmjax.data.image import Flip, Square
from mmjax.data.readers import Pictures
from mmjax.data.stream import Packed, Stream
from mmjax.text.prompts import Flamingo
from tests.data.pictures import encode, hostile, photo
from tests.text.words import words


class Numbers:
  """Documents whose only word is their number; some are out of order."""

  def __init__(self, count, bad=(), filtered=(), payload=None):
    self.count, self.bad, self.filtered = count, bad, filtered
    self.payload = payload

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    if index in self.bad:
      raise BadSample(f"number {index} is broken")
    if index in self.filtered:
      raise Filtered(f"number {index}")
    picture = self.payload
    if picture is None:
      picture = np.full((8, 8, 3), index, np.uint8)
    return Document(
      (Media("image", picture), Text("a", target=True)), str(index)
    )


def encoder(transforms=(), **slots):
  prompt = Flamingo(words(), length=8, media=1, image_as_text=False)
  return Encoder(prompt, reads(transforms, **slots))


def reads(transforms=(), **fields):
  return {"image": Pictures(transforms or [Square(8)], **fields)}


def number(example):
  return int(example["media"]["image"]["values"][0, 0, 0, 0, 0])


def test_every_epoch_has_every_record_in_another_order():
  stream = Stream(Numbers(50), encoder(), seed=1)
  epochs = [[stream.record(e * 50 + i) for i in range(50)] for e in range(3)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(50))
  assert epochs[0] != epochs[1] != epochs[2] != list(range(50))
  assert number(stream[7]) == epochs[0][7]


def test_order_depends_on_seed_and_name_only():
  def order(**kwargs):
    stream = Stream(Numbers(40), encoder(), **kwargs)
    return [stream.record(i) for i in range(40)]

  assert order(seed=1) == order(seed=1)
  assert order(seed=1) != order(seed=2)
  assert order(seed=1, name="a") != order(seed=1, name="b")
  assert order(shuffle=False) == list(range(40))


def test_samples_are_a_pure_function_of_their_number():
  stream = Stream(Numbers(9), encoder([Square(8), Flip()]), seed=3)
  again = pickle.loads(pickle.dumps(stream))
  for p in (17, 3, 17, 0):
    for key in ("tokens", "weights"):
      np.testing.assert_array_equal(stream[p][key], again[p][key])
    assert number(stream[p]) == number(again[p])


def test_a_bad_sample_counts_for_nothing_and_is_named():
  stream = Stream(Numbers(10, bad=(4,)), encoder(), shuffle=False, name="set")
  example = stream[4]
  assert not example["segments"].any() and not example["weights"].any()
  assert not example["media"]["image"]["mask"].any()
  skipped = example["skipped"]
  assert skipped["bad"] == 1 and skipped["samples"] == 1
  assert str(skipped["why"]) == "set record 4: number 4 is broken"
  assert stream[5]["skipped"]["bad"] == 0 and stream[14]["skipped"]["bad"] == 1


@pytest.mark.parametrize("name", sorted(hostile()))
def test_hostile_pictures_are_bad_samples(name):
  documents = Numbers(3, payload=hostile()[name])
  example = Stream(documents, encoder([Square(8)]))[0]
  assert example["skipped"]["bad"] == 1 and not example["segments"].any()


@pytest.mark.parametrize(
  "payload",
  [
    np.full((8, 8, 3), np.nan, np.float32),
    np.zeros((8, 8), np.uint8),
    np.zeros((0, 8, 3), np.uint8),
    np.zeros((8, 8, 4), np.uint8),
  ],
)
def test_hostile_arrays_are_bad_samples(payload):
  example = Stream(Numbers(3, payload=payload), encoder())[0]
  assert example["skipped"]["bad"] == 1


def test_a_document_that_the_prompt_refuses_is_a_bad_sample():
  prompt = Flamingo(words(), length=3, media=1, overflow="error")
  made = Encoder(prompt, reads())
  example = Stream(Numbers(3), made)[0]
  assert "tokens, 3 fit" in str(example["skipped"]["why"])


class Asked:
  """One document: a question and its answer, of a word each."""

  def __len__(self):
    return 1

  def __getitem__(self, index):
    return Document((Text("a b c d"), Text("e", target=True)), "asked")


@pytest.mark.parametrize(("length", "bad"), [(8, 0), (4, 1)])
def test_a_document_whose_answer_is_cut_away_is_a_bad_sample(length, bad):
  prompt = Flamingo(words(), length=length, media=1, overflow="truncate")
  made = Encoder(prompt, reads())
  example = Stream(Asked(), made, name="set")[0]
  assert example["skipped"]["bad"] == bad
  assert example["weights"].any() == (not bad)
  if bad:
    why = str(example["skipped"]["why"])
    assert "Nothing in document 'asked' is learned" in why


def test_filtered_records_give_way_to_others():
  gone = set(range(0, 20, 2))
  stream = Stream(Numbers(20, filtered=gone), encoder(), shuffle=False, seed=5)
  examples = [stream[p] for p in range(40)]
  assert all(number(e) % 2 for e in examples)
  assert all(e["segments"].any() for e in examples)
  assert sum(int(e["skipped"]["filtered"]) for e in examples) >= 20
  assert [number(stream[p]) for p in range(40)] == [number(e) for e in examples]


def test_a_set_that_is_filtered_out_is_bad():
  stream = Stream(Numbers(4, filtered=range(4)), encoder(), attempts=3)
  skipped = stream[0]["skipped"]
  assert skipped["bad"] == 1 and "3 records in a row" in str(skipped["why"])


def test_pictures_are_decoded_and_transformed():
  stream = Stream(
    Numbers(2, payload=encode(photo(40, 60))), encoder([Square(8)])
  )
  expected = Square(8)(photo(40, 60), None)
  values = stream[0]["media"]["image"]["values"]
  np.testing.assert_array_equal(values[0, 0], expected)


def test_all_pictures_of_a_document_share_their_coins():
  picture = photo(8, 8)
  text = Text("a", target=True)
  segments = (Media("image", picture), Media("image", picture), text)
  prompt = Flamingo(words(), length=12, media=2, image_as_text=False)
  made = Encoder(prompt, reads([Square(8), Flip()]))
  outcomes = set()
  for seed in range(10):
    values = made(Document(segments), [seed])["media"]["image"]["values"]
    np.testing.assert_array_equal(values[0], values[1])
    outcomes.add(values.tobytes())
  assert len(outcomes) == 2


def test_all_frames_of_a_clip_share_their_coins():
  clip = np.stack([photo(8, 8)] * 4)
  made = encoder([Square(8), Flip()], frames=4)
  for seed in range(10):
    document = Document((Media("video", clip), Text("a", target=True)))
    frames = made(document, [seed])["media"]["image"]["values"][0]
    np.testing.assert_array_equal(frames, np.stack([frames[0]] * 4))


def test_a_record_gets_new_coins_in_every_epoch():
  made = encoder([Square(8), Flip()])
  stream = Stream(Numbers(20, payload=photo(8, 8)), made, shuffle=False)
  first, second = (
    [number(stream[epoch * 20 + i]) for i in range(20)] for epoch in (0, 1)
  )
  assert stream.record(3) == stream.record(23) == 3
  assert first != second


def test_keys_have_to_be_there():
  document = Numbers(3)[0]
  with pytest.raises(ValueError, match="0: has no 'key'"):
    encoder(keys=True)(document)
  media = dataclasses.replace(document.media[0], metadata={"key": 7})
  keyed = Document((media, *document.segments[1:]))
  example = encoder(keys=True, values=False)(keyed)
  assert example["media"]["image"]["keys"].tolist() == [7]


def test_query_is_not_random_and_has_no_answer():
  made = encoder([Square(8), Flip(1.0)])
  document = Numbers(3, payload=photo(8, 8))[0]
  example = made.query(document.query())
  values = example["media"]["image"]["values"][0, 0]
  np.testing.assert_array_equal(values, photo(8, 8))
  assert int((example["segments"] > 0).sum()) == 2


def test_a_finite_stream_ends():
  stream = Stream(Numbers(5), encoder(), repeat=False)
  assert len(stream) == 5
  with pytest.raises(IndexError):
    stream[5]
  with pytest.raises(ValueError, match="'x' has no records"):
    Stream(Numbers(0), encoder(), name="x")


def test_packed_rows_hold_their_documents_and_notes():
  made = encoder()
  stream = Stream(Numbers(12, bad=(1,)), made, shuffle=False)
  slots = {"image": Slots(3, shape=(8, 8, 3))}
  row = Packed(stream, 3, 24, slots)[0]
  assert row["segments"].max() == 2
  assert row["skipped"]["samples"] == 3 and row["skipped"]["bad"] == 1
  assert "number 1 is broken" in str(row["skipped"]["why"])
  values = Packed(stream, 3, 24, slots)[1]["media"]["image"]["values"]
  assert values[:, 0, 0, 0, 0].tolist() == [3, 4, 5]


def test_every_bad_document_of_a_packed_row_is_named():
  class Long(Numbers):
    def __getitem__(self, index):
      raise BadSample(f"number {index} is broken{'!' * 300}")

  stream = Stream(Long(4), encoder(), shuffle=False)
  packed = Packed(stream, 4, 32, {"image": Slots(4, shape=(8, 8, 3))})
  why = packed[0]["skipped"]["why"]
  lines = str(why).split("\n")
  assert len(lines) == 4
  assert all(f"number {i} is broken" in line for i, line in enumerate(lines))
  assert packed.blank()["skipped"]["why"].dtype == why.dtype


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_rate_is_no_bad_sample(fps):
  with pytest.raises(ValueError, match="fps is"):
    Pictures(fps=fps)


@pytest.mark.parametrize("length", [-1, 0, 1])
def test_a_length_at_which_nothing_is_learned(length):
  prompt = dataclasses.replace(encoder().prompt, length=length)
  with pytest.raises(ValueError, match=f"length is {length}"):
    Encoder(prompt, reads())


def test_a_seed_that_is_none():
  with pytest.raises(ValueError, match="seed is -1"):
    Stream(Numbers(3), encoder(), seed=-1)


def test_a_name_cannot_write_into_the_log():
  class Forged(Numbers):
    def __getitem__(self, index):
      raise BadSample("a\nmmjax: all is well\x1b[2J 猫")

  why = str(Stream(Forged(1), encoder())[0]["skipped"]["why"])
  assert why.endswith(r"a\nmmjax: all is well\x1b[2J 猫")
