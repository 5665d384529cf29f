import numpy as np
import pytest

from mmjax.data.batching import (
  Clip,
  Slots,
  empty,
  occupancy,
  pack,
  pad,
  stack,
  trim,
)
from mmjax.text.prompts import Written

SLOTS = {"image": Slots(count=2, frames=2, shape=(2, 3, 3), keys=True)}


def written(tokens, weights=None, index=None, media=()):
  n = len(tokens)
  return Written(
    np.array(tokens, np.int32),
    np.array(weights or [1] * n, np.float32),
    np.array(index or [0] * n, np.int32),
    tuple(media),
  )


def frames(count, value):
  return np.full((count, 2, 3, 3), value, np.uint8)


def clips(key, *values):
  return [Clip(x, key=key + i) for i, x in enumerate(values)]


def first():
  doc = written([5, 6, 7], [0, 0, 1], [0, 1, 1], (0,))
  return pad(doc, clips(40, frames(2, 9)), ["image"], 5, SLOTS)


def second():
  doc = written([8, 9], [0, 1], [1, 2], (0, 1))
  made = clips(41, frames(1, 3), frames(1, 4))
  return pad(doc, made, ["image"] * 2, 5, SLOTS)


def test_pad_table():
  example = first()
  assert example["tokens"].tolist() == [5, 6, 7, 0, 0]
  assert example["targets"].tolist() == [6, 7, 0, 0, 0]
  assert example["weights"].tolist() == [0, 1, 0, 0, 0]
  assert example["positions"].tolist() == [0, 1, 2, 0, 0]
  assert example["segments"].tolist() == [1, 1, 1, 0, 0]
  media = example["media"]["image"]
  assert media["index"].tolist() == [0, 1, 1, 0, 0]
  assert media["mask"].tolist() == [[True, True], [False, False]]
  assert media["values"].shape == (2, 2, 2, 3, 3)
  assert (media["values"][0] == 9).all() and not media["values"][1].any()
  assert media["keys"].tolist() == [40, -1]


def test_shorter_clips_are_masked():
  media = second()["media"]["image"]
  assert media["mask"].tolist() == [[True, False], [True, False]]


def test_pack_table():
  slots = {"image": Slots(count=4, frames=2, shape=(2, 3, 3), keys=True)}
  row, dropped = pack([first(), second()], 6, slots)
  assert dropped == 0
  assert row["tokens"].tolist() == [5, 6, 7, 8, 9, 0]
  assert row["targets"].tolist() == [6, 7, 0, 9, 0, 0]
  assert row["weights"].tolist() == [0, 1, 0, 1, 0, 0]
  assert row["positions"].tolist() == [0, 1, 2, 0, 1, 0]
  assert row["segments"].tolist() == [1, 1, 1, 2, 2, 0]
  media = row["media"]["image"]
  assert media["index"].tolist() == [0, 1, 1, 2, 3, 0]
  assert media["keys"].tolist() == [40, 41, 42, -1]
  assert media["values"][:, 0, 0, 0, 0].tolist() == [9, 3, 4, 0]
  assert media["mask"].any(1).tolist() == [True, True, True, False]


def test_a_row_may_be_filled_to_the_last_token_and_slot():
  slots = {"image": Slots(count=3, frames=2, shape=(2, 3, 3), keys=True)}
  row, dropped = pack([first(), second(), empty(5, SLOTS)], 5, slots)
  assert dropped == 0 and row["segments"].tolist() == [1, 1, 1, 2, 2]
  assert row["media"]["image"]["mask"].any(1).all()


def test_packing_leaves_out_empty_examples_and_keeps_the_sums():
  slots = {"image": Slots(count=4, frames=2, shape=(2, 3, 3), keys=True)}
  row, _ = pack([first(), empty(5, SLOTS), second()], 10, slots)
  assert row["segments"].max() == 2
  parts = [first(), second()]
  for key in ("weights", "tokens", "targets"):
    assert row[key].sum() == sum(p[key].sum() for p in parts)


def test_what_does_not_fit():
  def one(values):
    pad(written([1], media=(0,)), clips(0, values), ["image"], 5, SLOTS)

  with pytest.raises(ValueError, match="5 tokens and 3 media do not fit"):
    pack([first(), second()], 5, SLOTS)
  row, dropped = pack([first(), second()], 5, SLOTS, overflow="drop")
  assert dropped == 1 and row["segments"].tolist() == [1, 1, 1, 0, 0]
  with pytest.raises(ValueError, match="'ignore'"):
    pack([], 5, SLOTS, overflow="ignore")
  with pytest.raises(ValueError, match="6 tokens does not fit a row of 5"):
    pad(written(range(6)), [], [], 5, SLOTS)
  with pytest.raises(ValueError, match="3 media does not fit 2"):
    many = written([1], media=(0, 1, 2))
    pad(many, clips(0, *[frames(1, 0)] * 3), ["image"] * 3, 5, SLOTS)
  with pytest.raises(ValueError, match="3 frames, 2 fit"):
    one(frames(3, 0))
  with pytest.raises(ValueError, match=r"float32\[2, 3, 3\]"):
    one(frames(1, 0).astype(np.float32))
  with pytest.raises(ValueError, match=r"uint8\[3, 2, 3\]"):
    one(frames(1, 0).swapaxes(1, 2))


def test_documents_without_tokens_or_media():
  example = pad(written([]), [], [], 3, SLOTS)
  assert not example["segments"].any() and not example["weights"].any()


def test_stack_and_occupancy():
  batch = stack([first(), second()])
  assert batch["tokens"].shape == (2, 5)
  assert batch["media"]["image"]["values"].shape == (2, 2, 2, 2, 3, 3)
  assert occupancy(batch) == 0.5


def test_trim_cuts_what_no_row_uses():
  slots = {"image": Slots(count=6, frames=2, shape=(2, 3, 3), keys=True)}
  doc = written([1] * 5, index=[1] * 5, media=(0,))
  one = pad(doc, clips(7, frames(2, 9)), ["image"], 40, slots)
  many = pad(
    written([2] * 17, index=[3] * 17, media=(0, 1, 2)),
    clips(7, *[frames(1, 1)] * 3),
    ["image"] * 3,
    40,
    slots,
  )
  whole = stack([one, many])
  batch = trim(whole)
  image = batch["media"]["image"]
  assert batch["tokens"].shape == batch["segments"].shape == (2, 32)
  assert image["values"].shape == (2, 4, 2, 2, 3, 3)
  assert image["mask"].shape == (2, 4, 2)
  assert image["keys"].tolist() == [[7, -1, -1, -1], [7, 8, 9, -1]]
  assert image["index"].shape == (2, 32)
  for key in ("tokens", "weights", "segments"):
    assert batch[key].sum() == whole[key].sum()
  short = trim(stack([one]))
  assert short["tokens"].shape == (1, 16)
  assert short["media"]["image"]["mask"].shape == (1, 1, 2)
  # As long as the row itself, where the next power of two is longer.
  full = stack([pad(written([3] * 33), [], [], 40, slots)])
  assert trim(full)["tokens"].shape == (1, 40)
  # Rows of nothing, and rows without room for media.
  assert trim(stack([empty(40, slots)]))["tokens"].shape == (1, 16)
  bare = stack([empty(8, {"image": Slots(count=0, shape=(2, 3, 3))})])
  assert trim(bare)["media"]["image"]["mask"].shape == (1, 0, 1)


def test_keys_in_place_of_values():
  slots = {"image": Slots(count=1, keys=True, values=False)}
  example = pad(written([1], media=(0,)), clips(7, None), ["image"], 2, slots)
  media = example["media"]["image"]
  assert set(media) == {"mask", "index", "keys"}
  assert media["mask"].tolist() == [[True]] and media["keys"].tolist() == [7]


@pytest.mark.parametrize(
  ("field", "value"),
  [("count", -1), ("frames", 0), ("shape", (0, 3)), ("shape", (3, 0))],
)
def test_slots_hold_something(field, value):
  with pytest.raises(ValueError, match="at least one frame"):
    Slots(**{"count": 1, field: value})


def test_text_alone_needs_no_slot():
  example = pad(written([5, 6, 7]), [], [], 4, {"image": Slots(count=0)})
  assert example["media"]["image"]["values"].shape[0] == 0
  assert example["segments"].tolist() == [1, 1, 1, 0]


def test_a_frame_of_what_is_known_by_its_key():
  assert Clip(None, key=7).frame(2).key == 9
  # Without one there is none for any frame.
  assert Clip(None).frame(2).key == Clip(frames(3, 1)).frame(2).key == -1
