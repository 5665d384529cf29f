import json
import tarfile

import numpy as np
import pytest

from mmjax.cli import data
from mmjax.data import tar
from tests.data.pictures import encode, photo
from tests.data.shapes import npy, obj
from tests.data.test_audio import encode as wav
from tests.data.test_audio import tone
from tests.data.test_tar import HOSTILE, special, write


@pytest.fixture
def shard(tmp_path):
  members = [
    ("1.png", encode(photo())),
    ("1.txt", b"a dog"),
    ("2.png", b"no picture"),
    ("2.txt", b"a cat"),
  ]
  return str(write(tmp_path / "a.tar", members))


def lines_of(function, *args, **kwargs):
  lines = []
  result = function(*args, write=lines.append, **kwargs)
  return result, "\n".join(lines)


def test_inspect_shows_documents_and_what_is_bad(shard):
  bad, text = lines_of(data.inspect, shard, format="pairs")
  assert bad == 1
  assert "2 records" in text and "* 'a dog'" in text
  assert "pictures: 60x40" in text
  assert "[1] BAD: a.tar/2 is no JPEG" in text


def test_inspect_shows_records_without_a_format(shard):
  bad, text = lines_of(data.inspect, shard, count=1)
  assert bad == 0 and "png: " in text and "txt: 5 bytes" in text


def test_inspect_a_config():
  source = {"name": "drawn", "tasks": {"bind": {"shots": [1]}}}
  mixed = {"mix": {"x": {"source": source, "share": 1}}}
  config = {"datasets": {"d": {"source": source}, "m": mixed}}
  bad, text = lines_of(data.inspect, config, count=1)
  assert bad == 0 and "d: no end records" in text and "m/x: " in text


def questions(folder, **files):
  """A config of a question about each file, whose name begins with its kind."""
  rows = []
  for name, content in files.items():
    (folder / name).write_bytes(content)
    kind = name.partition("_")[0]
    rows.append({"id": name, kind: name, "question": "what?", "answer": "a"})
  (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
  source = {"name": "jsonl", "paths": str(folder / "a.jsonl")}
  form = {"name": "qa", "folder": str(folder)}
  return {"datasets": {"d": {"source": source, "format": form}}}


def test_inspect_decodes_sounds_and_shapes(tmp_path):
  good = {
    "audio_a": wav(tone(44_100, 2.25), 44_100),
    "points_cloud": npy(np.random.default_rng(0).random((20, 3))),
    "points_box": obj(),
  }
  bad, text = lines_of(data.inspect, questions(tmp_path, **good))
  assert bad == 0 and "sounds: 2.25 s at 44100 Hz" in text
  assert "points: 20 points" in text
  assert "points: 8 vertices, 12 triangles" in text
  spoiled = {
    "audio_text": b"no sound",
    "audio_empty": b"",
    "audio_loud": wav(1e20 * tone()),
    "points_text": b"no shape",
    "points_cut": npy(np.eye(4, 3))[:-8],
    "points_place": npy(np.ones((9, 3))),
  }
  bad, text = lines_of(data.inspect, questions(tmp_path, **spoiled), count=9)
  assert bad == len(spoiled) and all(f" BAD: {x}:" in text for x in spoiled)


def test_inspect_tells_whatever_a_decoder_raises(tmp_path, monkeypatch):
  def fails(*_, **__):
    raise KeyError("x")

  monkeypatch.setattr(data.points, "read", fails)
  config = questions(tmp_path, points_a=obj())
  bad, text = lines_of(data.inspect, config)
  assert bad == 1 and "points_a cannot be read: KeyError: 'x'" in text


def test_inspect_an_unknown_file(tmp_path):
  path = tmp_path / "a.bin"
  path.write_text(json.dumps({}))
  with pytest.raises(ValueError, match=r"none of \.tar"):
    data.inspect(str(path))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(start=-1), "start -1"),
    (dict(count=0), "count is 0"),
    (dict(start=2), "2 records, so there is none from 2 on"),
  ],
)
def test_inspect_with_nothing_to_show(shard, options, message):
  with pytest.raises(ValueError, match=message):
    lines_of(data.inspect, shard, **options)


def test_inspect_a_format_that_would_be_ignored():
  with pytest.raises(ValueError, match="--format is for files"):
    data.inspect({"datasets": {}}, format="pairs")


def test_index_writes_beside_each_shard(shard, tmp_path):
  write(tmp_path / "b.tar", [("x.txt", b"1")])
  written, text = lines_of(data.index, [str(tmp_path / "*.tar")])
  assert [p.name for p in written] == ["a.tar.index.json", "b.tar.index.json"]
  assert "[2/2]" in text and "1 files" in text
  assert len(tar.read_index(shard)) == 4


def test_index_refuses_a_damaged_shard(tmp_path):
  path = tmp_path / "a.tar"
  path.write_bytes(b"x" * 700)
  with pytest.raises(tar.BadTar, match="no tar header"):
    data.index(str(path), write=lambda line: None)
  assert not tar.index_path(path).exists()


def test_index_and_inspect_tell_of_hostile_members(tmp_path):
  links = [(special(tarfile.SYMTYPE, f"{i}.png"), b"") for i in range(12)]
  members = [*links, (HOSTILE["parent"], b"1"), ("a.txt", b"1")]
  path = write(tmp_path / "a.tar", members)
  _, text = lines_of(data.index, str(path))
  assert "1 files\n  members that make their records bad: 13\n" in text
  for said in (text, lines_of(data.inspect, str(path), count=1)[1]):
    assert "are bad in their shards: 13\n" in said or said == text
    lines = [line for line in said.split("\n") if line.startswith("    ")]
    assert len(lines) == data.TOLD + 1 and lines[-1] == "    and 3 more"
    assert "a.tar holds a symbolic link, 9.png" in lines[-2]


def test_inspect_tells_of_hostile_members_below_a_format(tmp_path):
  members = [(HOSTILE["parent"], b"1"), ("a.txt", b"1")]
  path = write(tmp_path / "a.tar", members)
  bad, text = lines_of(data.inspect, str(path), format="pairs", start=1)
  assert bad == 1 and text.count("../evil") == 1
  assert "a file with an unsafe name, ../evil" in text
