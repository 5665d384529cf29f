import base64
import json

import numpy as np
import pytest

from mmjax.data.document import BadSample, Document, Filtered, Media, Text
from mmjax.data.formats import (
  MMC4,
  Documents,
  Obelics,
  Pairs,
  VideoText,
)
from mmjax.data.sources import Folder, Jsonl, Parquet, Tar
from tests.data.mutations import spoiled
from tests.data.pictures import encode, photo
from tests.data.test_tar import write

PNG = encode(photo())


def noise(seed):
  """A picture of more than 10 kB."""
  rng = np.random.default_rng(seed)
  return encode(rng.integers(0, 256, (70, 70, 3), np.uint8))


def mmc4(scores, texts=("A dog.", "It runs.", "The end."), images=None):
  images = images or [noise(i) for i in range(len(scores))]
  return {
    "__key__": "doc",
    "url": "https://example.org",
    "text_list": list(texts),
    "similarity_matrix": scores,
    "image_info": [
      {
        "image_name": f"{i}.png",
        "matched_text_index": 0,
        "image_base64": base64.b64encode(data).decode(),
      }
      for i, data in enumerate(images)
    ],
  }


def shape(document):
  return [s.text if isinstance(s, Text) else s.name for s in document.segments]


def test_mmc4_puts_an_image_before_its_sentence():
  document = MMC4()(mmc4([[0.1, 0.3, 0.2]]))
  assert shape(document) == ["A dog.", "0.png", "It runs. The end."]
  assert all(s.target for s in document.segments if isinstance(s, Text))
  assert document.media[0].load() == noise(0)
  assert document.id == "doc"


def test_mmc4_assignments_differ_as_they_should():
  scores = [[0.1, 0.9, 0.3], [0.1, 0.8, 0.5]]
  assert shape(MMC4()(mmc4(scores))) == [
    *("A dog.", "0.png", "It runs.", "1.png", "The end.")
  ]
  assert shape(MMC4(assignment="argmax")(mmc4(scores))) == [
    *("A dog.", "0.png", "1.png", "It runs. The end.")
  ]
  both = MMC4(assignment="matched", min_similarity=0.0)(mmc4(scores))
  assert shape(both) == ["0.png", "1.png", "A dog. It runs. The end."]


def test_mmc4_images_follow_the_order_of_their_sentences():
  document = MMC4()(mmc4([[0.1, 0.1, 0.9], [0.9, 0.1, 0.1]]))
  assert shape(document) == ["1.png", "A dog. It runs.", "0.png", "The end."]
  first = MMC4(max_images=1)(mmc4([[0.1, 0.1, 0.9], [0.9, 0.1, 0.1]]))
  assert [m.name for m in first.media] == ["1.png"]


def test_mmc4_filters():
  with pytest.raises(Filtered, match="0 of 1"):
    MMC4()(mmc4([[0.1, 0.23, 0.1]]))
  small = mmc4([[0.1, 0.9, 0.1]], images=[PNG])
  assert len(PNG) // 1000 <= 10
  with pytest.raises(Filtered):
    MMC4()(small)
  assert len(MMC4(min_kilobytes=0)(small).media) == 1
  # More than ten whole kilobytes, and a similarity of 0.24 or more.
  with pytest.raises(Filtered):
    MMC4()(mmc4([[0.1, 0.24, 0.1]], images=[bytes(10_999)]))
  edge = mmc4([[0.1, 0.24, 0.1]], images=[bytes(11_000)])
  assert len(MMC4()(edge).media) == 1
  with pytest.raises(Filtered, match="one image"):
    MMC4(keep_single=0.0)(mmc4([[0.1, 0.9, 0.1]]))
  with pytest.raises(Filtered, match="1 of 2"):
    MMC4(min_images=2)(mmc4([[0.1, 0.9, 0.1]]))


def test_mmc4_keeps_a_share_of_single_images():
  kept = 0
  for i in range(400):
    try:
      record = mmc4([[0.1, 0.9, 0.1]], images=[PNG]) | {"__key__": f"d{i}"}
      MMC4(keep_single=0.5, min_kilobytes=0)(record)
      kept += 1
    except Filtered:
      pass
  assert 150 < kept < 250


@pytest.mark.parametrize(
  "change",
  [
    {"text_list": None},
    {"text_list": [1, 2, 3]},
    {"similarity_matrix": [[0.1]]},
    {"similarity_matrix": [[0.1], [0.9], [0.2]]},
    {"similarity_matrix": [0.1, 0.9, 0.2]},
    {"similarity_matrix": [["a", "b", "c"]]},
    {"similarity_matrix": [[float("nan")] * 3]},
    {"similarity_matrix": [[0.1, 0.2], [0.3]]},
    {"image_info": [7]},
    {"image_info": [{"image_name": "0.png"}]},
    {"image_info": [{"image_base64": "not base64!"}]},
    {"image_info": [{"image_base64": 3}]},
  ],
)
def test_mmc4_bad_records_are_named(change):
  with pytest.raises(BadSample, match="doc"):
    MMC4()(mmc4([[0.1, 0.9, 0.1]]) | change)


@pytest.mark.parametrize("index", [None, "1", 1.0, True, -1, 3, 10**30])
def test_mmc4_matches_that_are_none(index):
  record = mmc4([[0.1, 0.9, 0.1]])
  read = MMC4(assignment="matched")
  record["image_info"][0]["matched_text_index"] = 1
  assert shape(read(record)) == ["A dog.", "0.png", "It runs. The end."]
  record["image_info"][0]["matched_text_index"] = index
  with pytest.raises(BadSample, match="from 0 to 2"):
    read(record)


@pytest.mark.parametrize("make", [MMC4, Obelics])
def test_a_folder_of_images_has_to_be_there(make, tmp_path):
  with pytest.raises(ValueError, match="no folder of images .*nowhere"):
    make(folder=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("texts", [[], [None], [""], [" ", "\n"]])
def test_a_document_of_nothing_is_bad(texts):
  row = {"__key__": "doc", "images": [None] * len(texts), "texts": texts}
  with pytest.raises(BadSample, match="doc has neither"):
    Documents([row], Obelics())[0]


def test_missing_keys_name_what_is_there():
  record = mmc4([[0.1, 0.9, 0.1]])
  del record["text_list"]
  with pytest.raises(BadSample, match="no 'text_list', only"):
    MMC4()(record)


def test_mmc4_from_tar_jsonl_and_folder(tmp_path):
  record = mmc4([[0.1, 0.9, 0.1]])
  del record["__key__"]
  path = write(tmp_path / "a.tar", [("x.json", json.dumps(record).encode())])
  (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
  from_tar = Documents(Tar(str(path)), MMC4())[0]
  from_jsonl = Documents(Jsonl(str(tmp_path / "a.jsonl")), MMC4())[0]
  assert from_tar.segments == from_jsonl.segments
  (tmp_path / "0.png").write_bytes(noise(0))
  del record["image_info"][0]["image_base64"]
  from_folder = MMC4(folder=str(tmp_path))(record)
  assert from_folder.media[0].load() == noise(0)
  (tmp_path / "0.png").unlink()
  with pytest.raises(Filtered):
    MMC4(folder=str(tmp_path))(record)


def test_obelics_from_parquet(tmp_path):
  pyarrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  row = {
    "images": [None, "https://x.org/a.png", None, "https://x.org/b.png"],
    "texts": ["A dog.", None, "It runs.", None],
  }
  parquet.write_table(
    pyarrow.Table.from_pylist([row]), str(tmp_path / "o.parquet")
  )
  (tmp_path / "1.png").write_bytes(PNG)
  table = tmp_path / "files.jsonl"
  table.write_text('{"url": "https://x.org/a.png", "file": "1.png"}\n')
  source = Parquet(str(tmp_path / "o.parquet"))
  read = Obelics(str(tmp_path), str(table), missing="drop")
  document = Documents(source, read)[0]
  assert shape(document) == ["A dog.", "1.png", "It runs."]
  assert document.media[0].load() == PNG
  with pytest.raises(BadSample, match=r"b\.png"):
    Documents(source, Obelics(str(tmp_path), str(table)))[0]


def test_obelics_keeps_the_first_images_and_all_texts():
  images, texts = [PNG, None] * 3, [None, "A dog."] * 3
  record = {"__key__": "o", "images": images, "texts": texts}
  kinds = [type(s).__name__ for s in Obelics(max_images=2)(record).segments]
  assert kinds == ["Media", "Text", "Media", "Text", "Text"]


def test_obelics_with_bytes_and_bad_rows():
  document = Obelics()(
    {"images": [{"bytes": PNG, "path": None}, None], "texts": [None, "x"]}
  )
  assert document.media[0].load() == PNG and document.text == "x"
  with pytest.raises(BadSample, match="one length"):
    Obelics()({"images": [None], "texts": ["a", "b"]})
  with pytest.raises(BadSample, match="at one place"):
    Obelics()({"images": [PNG], "texts": ["a"]})
  with pytest.raises(BadSample, match="below"):
    Obelics("/tmp")({"images": ["../x"], "texts": [None]})


PAIR = (Media("image", PNG), Text("a cat", target=True))


@pytest.mark.parametrize(
  "record",
  [
    {"jpg": PNG, "txt": b" a cat\n"},
    {"png": PNG, "json": b'{"caption": "a cat"}'},
    {"image": {"bytes": PNG, "path": "x"}, "text": "a cat"},
    {"image/encoded": PNG, "caption": b"a cat"},
    {"image": PNG, "captions": {"text": ["a cat", "cats"]}},
    {"image": PNG, "captions": ["a cat", "cats"]},
  ],
)
def test_pairs_of_many_layouts(record):
  assert Pairs()(record).segments == PAIR


@pytest.mark.parametrize(
  "record",
  [
    {"txt": b"a cat"},
    {"jpg": PNG},
    {"jpg": PNG, "txt": b"  "},
    {"jpg": PNG, "txt": b"\xff\xfe"},
    {"jpg": "not bytes", "txt": b"a"},
    {"jpg": PNG, "json": b"{"},
    {"jpg": PNG, "json": b"[]"},
    {"jpg": PNG, "caption": 3},
    {"jpg": PNG, "caption": []},
  ],
)
def test_bad_pairs_are_named(record):
  with pytest.raises(BadSample, match="rec7"):
    Pairs()({"__key__": "rec7"} | record)


def test_pairs_of_arrays_and_folders(tmp_path):
  array = Pairs()({"image": photo(), "caption": "x"})
  assert isinstance(array.media[0].load(), np.ndarray)
  (tmp_path / "a.png").write_bytes(PNG)
  (tmp_path / "t.csv").write_text("file,caption\na.png,a cat\n")
  source = Folder(str(tmp_path), str(tmp_path / "t.csv"))
  document = Documents(source, Pairs())[0]
  assert document.media[0].load() == PNG and document.text == "a cat"
  assert isinstance(document, Document)


def test_video_text():
  record = {"mp4": b"v", "json": b'{"caption": "a run", "start": 2}'}
  document = VideoText()(record)
  assert document.media == (Media("video", b"v", metadata={"start": 2.0}),)


@pytest.mark.parametrize("missing", [None, "", " "])
def test_a_clip_whose_table_names_no_end(missing):
  record = {"mp4": b"v", "caption": "a run", "start": "2", "end": missing}
  assert VideoText()(record).media[0].metadata == {"start": 2.0}


@pytest.mark.parametrize("value", ["x", [], -1, float("nan"), "nan", "1e999"])
def test_a_clip_whose_end_is_none(value):
  record = {"__key__": "rec7", "mp4": b"v", "txt": b"a", "end": value}
  with pytest.raises(BadSample, match="rec7: start and end are"):
    VideoText()(record)
  # It is no business of a picture's.
  assert Pairs()({"jpg": PNG, "txt": b"a", "end": value}).segments


OBELICS = {"images": ["a", None, "b"], "texts": [None, "t", None]}
PAIR_RECORD = {"jpg": PNG, "captions": {"text": ["a cat"]}, "start": 1}


@pytest.mark.parametrize(
  ("read", "record"),
  [
    (MMC4(), mmc4([[0.1, 0.9, 0.2], [0.3, 0.4, 0.5]])),
    (MMC4(assignment="argmax"), mmc4([[0.1, 0.9, 0.2]])),
    (MMC4(assignment="matched"), mmc4([[0.1, 0.9, 0.2]])),
    (MMC4(folder="/tmp"), mmc4([[0.1, 0.9, 0.2]])),
    (Obelics("/tmp"), OBELICS),
    (Pairs(), PAIR_RECORD),
  ],
)
def test_any_value_of_a_wrong_kind_is_a_bad_sample_or_harmless(read, record):
  outcomes = set()
  for _, changed in spoiled(record):
    try:
      outcomes.add(type(read(changed)))
    except (BadSample, Filtered) as error:
      outcomes.add(type(error))
  assert outcomes >= {Document, BadSample}


def test_unknown_options():
  with pytest.raises(ValueError, match="'best'"):
    MMC4(assignment="best")
  with pytest.raises(ValueError, match="'ignore'"):
    Obelics(missing="ignore")


def test_a_caption_may_be_an_array():
  for text in (np.array("a cat"), np.array([["a cat", "two"]], object)):
    document = Pairs()({"jpg": b"x", "txt": text})
    assert document.text == "a cat"
  with pytest.raises(BadSample, match="expected text"):
    Pairs()({"jpg": b"x", "txt": np.zeros(0)})


def test_a_broken_table_of_urls_is_named(tmp_path):
  path = tmp_path / "files.jsonl"
  for line in ('{"url": "u"}', "no json", '{"url": 3, "file": "a.jpg"}'):
    path.write_text('{"url": "v", "file": "b.jpg"}\n' + line)
    with pytest.raises(ValueError, match="files.jsonl"):
      Obelics(files=str(path))
