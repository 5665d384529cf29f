"""The sets of packages: what their items are called, and how they are split."""

import collections

import numpy as np
import pytest

from mmjax.data import audio, drawn, points, video
from mmjax.data.document import BadSample
from mmjax.data.real import furniture, sounds, speech
from mmjax.data.real.item import Archive, Item, split
from mmjax.data.real.sets import SETS
from tests.data.real import CONTENTS, write_tar


def items_of(name, folder, contents=CONTENTS):
  archives = {
    key: Archive(write_tar(folder / f"{key}.tar", files))
    for key, files in contents[name].items()
  }
  return list(SETS[name].items(archives))


def test_spoken_prompts(tmp_path):
  items = {item.id: item for item in items_of("speech", tmp_path)}
  assert [items[i].name for i in ("digits/1", "hello", "beep")] == [
    *("one", "hello world", "beep"),
  ]
  assert items["hello"].attributes["transcript"] == "Hello, world!"
  assert items["hello"].caption == "a woman says: hello world"
  assert items["beep"].caption == "beep"
  assert items["beep"].attributes == {"transcript": "", "voice": "none"}
  assert [items[i].category for i in ("digits/1", "hello", "beep")] == [
    *("numbers and dates", "other prompts", "tones and noises"),
  ]
  # The same words are one concept, whatever the file.
  assert items["conf-hello"].name == items["hello"].name
  assert len(audio.decode(items["hello"].make())) == 8000
  row = items["beep"].row(items["beep"].make(), "train")
  assert row["attributes"]["length"] == "short"


def test_a_prompt_without_transcript(tmp_path):
  files = CONTENTS["speech"]
  wrong = {f"{speech._SOUNDS}new.wav": b""} | files["sounds"]
  with pytest.raises(BadSample, match="new.wav has no transcript"):
    items_of("speech", tmp_path, {"speech": files | {"sounds": wrong}})


@pytest.mark.parametrize(
  ("key", "category", "name", "strength"),
  [
    ("ambi_glass_hum", "ambient", "glass hum", ""),
    ("bass_voxy_hit_c", "bass", "voice like hit bass", ""),
    ("bass_dnb_f", "bass", "drum and bass", ""),
    ("bd_808", "bass drum", "808 bass drum", ""),
    ("drum_bass_soft", "drums", "bass drum", "soft"),
    ("drum_cymbal_open", "drums", "open cymbal", ""),
    ("drum_tom_lo_hard", "drums", "low tom", "hard"),
    ("elec_blip2", "electronic", "electronic blip", ""),
    ("glitch_bass_g", "glitch", "bass glitch", ""),
    ("guit_em9", "guitar", "guitar minor chord", ""),
    ("loop_drone_g_97", "loop", "drone loop", ""),
    ("loop_3d_printer", "loop", "3d printer loop", ""),
    ("mehackit_robot7", "machine", "robot noise", ""),
    ("perc_till", "percussion", "cash till", ""),
    ("sn_dub", "snare drum", "dub snare drum", ""),
    ("tabla_ghe8", "tabla", "tabla ghe", ""),
  ],
)
def test_names_of_sounds(key, category, name, strength):
  found = sounds.described(key)
  assert (found[0], found[1], found[3]) == (category, name, strength)
  assert found[2].endswith(f": {name}")


def test_lengths_of_sounds(tmp_path):
  rows = [item.row(item.make(), "") for item in items_of("sounds", tmp_path)]
  assert [r["attributes"]["length"] for r in rows] == ["short", "long"]
  assert rows[0]["attributes"]["strength"] == "hard"
  assert rows[1]["attributes"]["voice"] == "none"
  assert rows[1]["attributes"]["seconds"] == 3.0


def test_moving_emoji(tmp_path):
  items = items_of("animated", tmp_path)
  # Neither what does not move, nor one thing in several skin tones.
  assert [item.id for item in items] == ["1f3c3", "1f600"]
  known = {c.id: c for c in drawn.concepts()}
  for item in items:
    concept = known[item.id]
    assert (item.name, item.split) == (concept.name, concept.split)
    assert item.object == item.id
  clip = items[0].make()
  found = video.decode(clip, frames=99, fps=25)
  assert found.shape == (5, 32, 32, 3)
  blue = found.reshape(5, -1, 3).mean(axis=1)[:, 2]
  np.testing.assert_allclose(blue, [0, 40, 80, 120, 160], atol=8)
  # One frame each 40 ms.
  assert len(video.decode(clip, frames=99, fps=12.5)) == 3
  assert items[0].row(clip, "")["attributes"]["colour"] in ("black", "blue")


def test_furniture(tmp_path):
  items = items_of("furniture", tmp_path)
  assert [item.id for item in items[:2]] == [
    "points/kator-legaz-door",
    "image/kator-legaz-door",
  ]
  assert {item.object for item in items[:2]} == {"Kator Legaz#door"}
  assert items[2].name == "bill 10€"
  assert [item.attributes["shape"] for item in items[::2]] == ["tall", "low"]
  assert items[0].attributes["tags"] == ["front"]
  row = items[1].row(items[1].make(), "train")
  assert row["attributes"]["colour"] == "red"
  assert row["split"] == "train" and row["category"] == "exterior"
  cloud = points.decode(items[0].make())
  assert cloud.shape == (8192, 3)


def test_models_are_turned_upright(tmp_path):
  turned, plain = (
    points.decode(item.make()) for item in items_of("furniture", tmp_path)[::2]
  )
  # 1 0 0, 0 0 1, 0 -1 0: what was z is y.
  expected = np.stack([plain[:, 0], plain[:, 2], -plain[:, 1]], axis=1)
  np.testing.assert_allclose(turned, expected, atol=2e-3)
  with pytest.raises(BadSample, match="modelRotation is '1 2'"):
    furniture.rotation("1 2", "a.obj")


def thing(name, category):
  return Item(name, name, "image", name, category, "", bytes)


def test_no_name_is_on_both_sides():
  things = [thing(f"a{i}", "a") for i in range(40)]
  things += [thing(f"a{i}", "b") for i in range(30, 90)]
  things += [thing(f"c{i}", "c") for i in range(3)]
  found = split(things)
  assert found.keys() == {t.name for t in things}
  counts = collections.Counter((n[0], s) for n, s in found.items())
  # 15 % of 40 and of the 50 that b alone has; too few of c to take any.
  assert counts == {
    ("a", "held_out"): 6 + 8,
    ("a", "train"): 34 + 42,
    ("c", "train"): 3,
  }
  # The files and their order have no part in it.
  assert split([*things[::-1], things[0]]) == found
