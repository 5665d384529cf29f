"""Media of several kinds in one example: slots, frames, lengths and texts."""

import dataclasses

import jax
import numpy as np
import pytest

from mmjax.data import audio, build, points
from mmjax.data.batching import pack, stack, trim
from mmjax.data.document import BadSample, Media
from mmjax.data.readers import READERS, Pictures, Sounds
from tests.data import kinds as k
from tests.data.pictures import photo
from tests.data.test_audio import encode, tone
from tests.data.test_video import clip, seconds_of
from tests.text.words import words


def encoder(**changes):
  prompt = k.PROMPT | changes
  media = {kind: k.MEDIA[kind] for kind in prompt["media"]}
  return build.encoder(words(), prompt, media=media)


def test_every_kind_has_slots_of_its_own():
  made = encoder()
  example = made(k.document(k.sound(), k.image(), k.video(), k.image(1)))
  media = example["media"]
  assert {n: m["values"].shape for n, m in media.items()} == {
    "image": (2, 1, 8, 8, 3),
    "video": (3, 1, 8, 8, 3),
    "audio": (2, 1, 15 * 160 + 400),
    "points": (1, 1, 16, 3),
  }
  used = {n: m["mask"][:, 0].tolist() for n, m in media.items()}
  assert used == {
    "image": [True, True],
    "video": [True] * 3,
    "audio": [True] * 2,
    "points": [False],
  }
  np.testing.assert_array_equal(media["image"]["values"][1, 0], photo(8, 8, 1))
  assert media["video"]["values"][:, 0, 0, 0, 0].tolist() == [0, 5, 10]
  # 0.2 seconds: 3200 samples, of which the second segment has what is behind
  # the first 16 windows' steps.
  assert media["audio"]["lengths"].tolist() == [[2800], [640]]
  assert "lengths" not in media["image"]
  places = np.stack([m["index"] for m in media.values()])
  assert ((places > 0).sum(axis=0) <= 1).all(), "no place is of two media"
  # Cue, two tokens of each segment; then as many of each other frame.
  assert media["audio"]["index"].tolist()[:6] == [0, 0, 1, 1, 2, 2]
  assert media["image"]["index"].tolist()[6:16] == [1, 1, *[0] * 6, 2, 2]
  assert media["video"]["index"].tolist()[8:14] == [1, 1, 2, 2, 3, 3]


def test_shorter_media_fill_their_frames():
  made = encoder(media={"video": 1, "audio": 1})
  media = made(k.document(k.video(1), k.sound(0.01)))["media"]
  assert media["video"]["values"][:, 0, 0, 0, 0].tolist() == [0, 0, 0]
  assert media["audio"]["lengths"].tolist() == [[400], [0]]
  assert media["audio"]["mask"].all() and media["video"]["mask"].all()
  long = made(k.document(k.video(30), k.sound(2.0)))["media"]
  assert long["video"]["values"][:, 0, 0, 0, 0].tolist() == [0, 50, 100]
  assert long["audio"]["lengths"].tolist() == [[2800], [2800]]


def test_frames_are_spread_over_a_whole_clip():
  reader = Pictures((), frames=4, fps=None)
  media = Media("video", clip(seconds=4), "clip")
  found = reader.read(media, "clip", ()).values
  assert seconds_of(found) == [0, 1, 2, 3]
  part = dataclasses.replace(media, metadata={"start": 1.0, "end": 3.0})
  found = reader.read(part, "clip", ()).values
  assert seconds_of(found) == [1, 1, 2, 2]
  beyond = dataclasses.replace(media, metadata={"start": 9.0})
  with pytest.raises(BadSample, match="no time between 9.0"):
    reader.read(beyond, "clip", ())


def test_frames_of_an_array_are_those_of_a_file():
  reader = Pictures((), frames=3, fps=1.0)
  pixels = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1).repeat(3, 3)

  def found(kind="video", count=40, **metadata):
    media = Media(kind, pixels[:count], "x", metadata=metadata)
    return reader.read(media, "x", ()).values[:, 0, 0, 0].tolist()

  assert found(fps=10) == [0, 10, 20] and found(fps=10, count=15) == [0, 10]
  assert found(count=3) == [0, 1, 2] and found("image", 1) == [0]
  assert found(fps=10, start=1.0) == [10, 20, 30]
  assert found(fps=10, start=1.0, end=2.5) == [10, 20]
  for kind, metadata, message in (
    ("video", {}, "has 40 frames, .* a second .*fps=None"),
    ("video", dict(start=1.0), "none has a time"),
    ("video", dict(fps=10, start=9.0), "no frame between 9.0 and None"),
    ("video", dict(fps=0), "has 0 frames a second"),
    ("image", {}, "an image of 40 frames"),
  ):
    with pytest.raises(BadSample, match=message):
      found(kind, **metadata)


def test_a_part_of_a_sound():
  reader = Sounds(frames=1, bank=16)
  wave = np.arange(1, 16_001, dtype=np.float32)
  given = dict(rate=16_000, start=0.5, end=0.6)
  clip = reader.read(Media("audio", wave, metadata=given), "x", ())
  np.testing.assert_array_equal(clip.values[0, :1600], wave[8000:9600])
  assert clip.lengths.tolist() == [1600]
  encoded = Media("audio", encode(tone()), metadata={"start": 0.6})
  with pytest.raises(BadSample, match="x has no samples"):
    reader.read(encoded, "x", ())
  # What is shorter than a window is heard in one.
  given = dict(rate=16_000, start=0.5, end=0.52)
  clip = reader.read(Media("audio", wave, metadata=given), "x", ())
  assert clip.lengths.tolist() == [400]
  np.testing.assert_array_equal(clip.values[0, :320], wave[8000:8320])
  assert not clip.values[0, 320:].any()
  for payload, rate in ((wave, 8_000), (wave[None], 16_000), (wave, None)):
    media = Media("audio", payload, metadata=dict(rate=rate))
    with pytest.raises(BadSample, match="samples"):
      reader.read(media, "x", ())


def test_points_are_drawn_by_the_seed():
  made = encoder(media={"points": 1})
  document = k.document(k.cloud(count=200))

  def values(*seed):
    return made(document, seed)["media"]["points"]["values"][0, 0]

  np.testing.assert_array_equal(values(1), values(1))
  assert not np.array_equal(values(1), values(2))
  asked = made.query(document.query())["media"]["points"]["values"]
  expected = points.decode(k.cloud(count=200).payload, 16)
  np.testing.assert_array_equal(asked[0, 0], expected)
  assert abs(np.linalg.norm(expected, axis=-1).max() - 1) < 1e-6


def test_what_is_read_with_a_medium_is_the_question():
  made = encoder(media={"video": 1, "audio": 1}, reader_length=4)
  made.prompt.tokenizer.reader = words()
  media = made(k.document(k.video(), k.sound()))["media"]
  ids = made.prompt.tokenizer.encode("a dog")
  bos, eos = made.prompt.tokenizer.bos, made.prompt.tokenizer.eos
  for kind, count in (("video", 3), ("audio", 2)):
    assert media[kind]["text"].tolist() == [[bos, *ids, eos]] * count


def test_rows_of_several_kinds_are_packed():
  made = encoder()
  examples = [
    made(k.document(k.sound(), k.image())),
    made(k.document(k.image(1))),
    made(k.document(k.cloud(), k.sound())),
  ]
  slots = {
    name: dataclasses.replace(own, count=3 * own.count)
    for name, own in made.slots.items()
  }
  row, dropped = pack(examples, 64, slots)
  assert not dropped
  media = row["media"]
  used = {n: int(m["mask"].any(1).sum()) for n, m in media.items()}
  assert used == {"image": 2, "video": 0, "audio": 4, "points": 1}
  np.testing.assert_array_equal(media["image"]["values"][1, 0], photo(8, 8, 1))
  assert media["audio"]["lengths"][:4, 0].tolist() == [2800, 640] * 2
  last = media["audio"]["index"][row["segments"] == 3]
  assert sorted(set(last.tolist())) == [0, 3, 4]
  small = slots | {"audio": made.slots["audio"]}
  with pytest.raises(ValueError, match=r"2 \+ 0 \+ 4 \+ 1 media do not fit"):
    pack(examples, 64, small)
  row, dropped = pack(examples, 64, small, overflow="drop")
  assert dropped == 1 and row["segments"].max() == 2
  batch = trim(stack([row]))
  shapes = {n: m["mask"].shape for n, m in batch["media"].items()}
  assert shapes["image"] == (1, 2, 1) and shapes["audio"] == (1, 2, 1)
  # Nothing encodes a kind that no row has.
  assert shapes["video"][1] == 0


def test_trim_cuts_what_media_are_read_with():
  prompt = k.PROMPT | dict(reader_length=40)
  tokenizer = words()
  tokenizer.reader = words()
  made = build.encoder(tokenizer, prompt, media=k.MEDIA)
  asked = [k.document(k.image(), question="dog " * n) for n in (3, 20)]
  whole = stack([made(document) for document in asked])["media"]["image"]
  for count, length in ((1, 16), (2, 32)):
    batch = trim(stack([made(document) for document in asked[:count]]))
    text = batch["media"]["image"]["text"]
    assert text.shape[2] == length
    assert (text != 0).sum() == (whole["text"][:count] != 0).sum()


@pytest.mark.parametrize("pack", [{}, dict(pack=2), dict(pack=2, pack_media=9)])
def test_a_plan_knows_the_shapes(pack):
  entry = dict(prompt=k.PROMPT | dict(reader_length=5), media=k.MEDIA, batch=3)
  source = dict(name="drawn_chat", questions=dict(category=1.0))
  given = entry | pack
  found = build.abstract_batch(given)
  tokenizer = words()
  tokenizer.reader = words()
  made = build.dataset(given | dict(source=source), tokenizer, 0, "x").empty
  for key in ("tokens", "media"):
    one, all = (jax.tree.map(lambda x: x.shape, x[key]) for x in (made, found))
    rows = jax.tree.map(lambda shape: (3, *shape), one, is_leaf=_is_shape)
    assert all == rows


def _is_shape(x):
  return isinstance(x, tuple)


def test_keys_stand_in_for_media_and_their_frames():
  media = {
    "image": k.MEDIA["image"] | dict(keys=True, values=False),
    "video": k.MEDIA["video"] | dict(keys=True, values=False),
  }
  prompt = k.PROMPT | dict(media={"image": 1, "video": 1})
  made = build.encoder(words(), prompt, media=media)
  given = [
    dataclasses.replace(m, metadata={"key": key})
    for m, key in ((k.video(), 30), (k.image(), 7))
  ]
  example = made(k.document(*given))["media"]
  assert example["video"]["keys"].tolist() == [30, 31, 32]
  assert example["image"]["keys"].tolist() == [7]
  assert set(example["image"]) == {"mask", "index", "keys"}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(media={"image": 1, "audio": 1}), r"\['audio', 'image'\], read are"),
    (dict(units={"image": 2}), "places for 2 frames of 'image'"),
  ],
)
def test_prompt_and_readers_belong_together(change, message):
  prompt = k.PROMPT | dict(media={"image": 1}) | change
  with pytest.raises(ValueError, match=message):
    build.encoder(words(), prompt, media={"image": k.MEDIA["image"]})


def test_a_config_says_how_pictures_are_read_once():
  with pytest.raises(ValueError, match="give transforms, frames"):
    build.encoder(words(), k.PROMPT, media=k.MEDIA, frames=2)
  with pytest.raises(ValueError, match="Did you mean 'sounds'"):
    media = k.MEDIA | {"audio": dict(name="sound")}
    build.encoder(words(), k.PROMPT, media=media)


@pytest.mark.parametrize("fields", [dict(frames=0), dict(bank=0)])
def test_sounds_have_segments(fields):
  with pytest.raises(ValueError, match="1 or more"):
    READERS["sounds"](**fields)


def test_other_kinds_are_bad_samples():
  made = encoder(media={"image": 1})
  with pytest.raises(BadSample, match="'image'"):
    made(k.document(k.image(), k.image(1)))
  with pytest.raises(BadSample, match="'audio'; read here are"):
    made._entry(k.sound())


def test_whatever_a_decoder_raises_is_a_bad_sample(monkeypatch):
  made = encoder(media={"audio": 1})
  document = k.document(k.sound())

  def fails(error):
    def decode(*_):
      raise error

    monkeypatch.setattr(audio, "decode", decode)
    return made(document)

  with pytest.raises(BadSample, match="doc:tone cannot be read: KeyError: 'x'"):
    fails(KeyError("x"))
  for error in (MemoryError(), ImportError("soundfile"), KeyboardInterrupt()):
    with pytest.raises(type(error)):
      fails(error)


def test_rows_are_not_filled_with_several_kinds():
  entry = dict(prompt=k.PROMPT, media=k.MEDIA, batch=3)
  with pytest.raises(ValueError, match="`fill` counts one kind"):
    build.abstract_batch(entry | dict(fill=dict(length=99, media=9)))
