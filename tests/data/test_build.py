import json

import ml_collections
import pytest

from mmjax.data import build
from mmjax.text import tokenizer
from tests.data.pictures import encode, photo
from tests.data.test_tar import write


def drawn(**changes):
  return {
    "source": {"name": "drawn", "tasks": {"bind": {"shots": [1]}}},
    "prompt": {
      "name": "flamingo",
      "length": 48,
      "media": 3,
      "image_as_text": False,
    },
    "transforms": [{"name": "flip"}, {"name": "square", "size": 32}],
    "batch": 4,
  } | changes


def make(**datasets):
  return build.batches({"datasets": datasets}, tokenizer.drawn())


def test_from_a_config_dict():
  config = ml_collections.ConfigDict(
    {"seed": 3, "update": "round_robin", "datasets": {"d": drawn(weight=0.5)}}
  )
  with build.batches(config, tokenizer.drawn()) as iterator:
    batch = next(iterator)["d"]
  assert iterator.weights == {"d": 0.5}
  assert batch["tokens"].shape == (4, 48)
  assert batch["media"]["image"]["values"].shape == (4, 3, 1, 32, 32, 3)
  assert batch["media"]["image"]["index"].max() == 3


def test_tar_of_pairs_with_a_corrupt_one(tmp_path):
  members = []
  for i in range(4):
    data = encode(photo(), "JPEG")
    members.append((f"{i}.jpg", data[:80] if i == 2 else data))
    members.append((f"{i}.json", json.dumps({"caption": "a dog"}).encode()))
  path = str(write(tmp_path / "a.tar", members))
  entry = drawn(source={"name": "tar", "paths": [path]}, batch=4)
  with make(d=entry | {"format": {"name": "pairs"}}) as iterator:
    batch = next(iterator)["d"]
  assert iterator.bad == {"d": 1}
  assert sorted(batch["segments"].max(1)) == [0, 1, 1, 1]


def test_tar_of_videos(tmp_path):
  pytest.importorskip("av")
  from tests.data.test_video import clip

  members = [("a.mp4", clip(seconds=3)), ("a.txt", b"a dog")]
  path = str(write(tmp_path / "a.tar", members))
  entry = drawn(
    source={"name": "tar", "paths": path},
    format={"name": "video_text"},
    transforms=[{"name": "pad_to_square", "size": 16}],
    frames=8,
    batch=1,
  )
  with make(d=entry) as iterator:
    media = next(iterator)["d"]["media"]["image"]
  assert media["values"].shape == (1, 3, 8, 16, 16, 3)
  assert media["mask"].sum() == 3 and media["mask"][0, 0, :3].all()


def test_filter_of_a_format():
  entry = drawn(filter={"name": "pictures", "min_side": 65})
  with make(d=entry | {"batch": 2}) as iterator:
    next(iterator)
  assert iterator.bad == {"d": 2} and iterator.filtered["d"] >= 30


def test_packing_and_keys():
  entry = drawn(pack=3, keys=True, values=False, transforms=[])
  with make(d=entry) as iterator:
    batch = next(iterator)["d"]
  assert batch["tokens"].shape == (4, 144)
  assert batch["segments"].max() == 3
  media = batch["media"]["image"]
  assert set(media) == {"mask", "index", "keys"}
  assert media["keys"].shape == (4, 9) and (media["keys"] >= 0).all()


def test_mix_of_sources():
  entry = drawn()
  source = entry.pop("source")
  entry["mix"] = {
    "bind": {"source": source, "share": 3},
    "name": {
      "source": {"name": "drawn", "tasks": {"caption": {}}},
      "share": 1.0,
    },
  }
  with make(d=entry) as iterator:
    batch = next(iterator)["d"]
  pictures = batch["media"]["image"]["mask"].sum((1, 2))
  assert sorted(pictures.tolist()) == [1, 3, 3, 3]


def test_drawn_documents_follow_the_seed_of_the_data():
  def tokens(entry, seed):
    config = {"seed": seed, "datasets": {"d": entry}}
    with build.batches(config, tokenizer.drawn()) as iterator:
      return next(iterator)["d"]["tokens"].tolist()

  plain = drawn(keys=True, values=False, transforms=[])
  mixed = {k: v for k, v in plain.items() if k != "source"}
  mixed["mix"] = {"bind": {"source": plain["source"], "share": 1}}
  for entry in (plain, mixed):
    assert tokens(entry, 1) == tokens(entry, 1) != tokens(entry, 0)
  # A source may have a seed of its own.
  own = plain | {"source": plain["source"] | {"seed": 1}}
  assert tokens(own, 0) == tokens(plain, 1)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"bach": 3}, "Did you mean 'batch'"),
    ({"source": {"name": "drawm"}}, "Did you mean 'drawn'"),
    ({"format": {"name": "pairs"}}, "takes no format"),
    ({"prompt": {"name": "flamingo", "lenght": 3}}, "Did you mean 'length'"),
    ({"transforms": [{"name": "squar"}]}, "Did you mean 'square'"),
    ({"source": {"name": "jsonl", "paths": __file__}}, "name a format"),
    ({"source": None}, "either 'source' or 'mix'"),
    ({"pack": 0}, "'d': pack is 0"),
    ({"pack": -2}, "pack is -2"),
  ],
)
def test_mistakes_are_named(change, message):
  with pytest.raises(ValueError, match=message):
    make(d=drawn(**change))
