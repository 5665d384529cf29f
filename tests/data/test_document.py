import numpy as np
import pytest

from mmjax.data.document import (
  MAX_BYTES,
  BadSample,
  Document,
  File,
  Media,
  Text,
  join,
)


def vqa(answer=" a cat"):
  return Document(
    (Media("image", b"abc"), Text("What?"), Text(answer, target=True)),
    id="x/1",
    metadata={"answers": ["a cat"]},
  )


def test_query_leaves_the_last_answer_out():
  query = vqa().query()
  assert query.segments == vqa().segments[:2]
  assert query.metadata == vqa().metadata


def test_query_leaves_out_all_pieces_of_the_last_answer():
  said = (Text(" a", target=True), Text(" cat", target=True), Text("\n"))
  whole = Document((*vqa().query().segments, *said))
  assert whole.query().segments == vqa().query().segments


def test_query_of_an_answer_alone_is_an_error():
  with pytest.raises(ValueError, match="nothing before"):
    Document((Text("yes", target=True),), id="x").query()


def test_join_ends_a_chunk_after_each_support_example():
  joined = join([vqa(), vqa(), vqa()], id="j")
  ends = [s.end for s in joined.segments if isinstance(s, Text)]
  assert ends == [False, True, False, True, False, False]
  assert joined.id == "j" and len(joined.media) == 3


def test_unknown_kind():
  with pytest.raises(ValueError, match="'smell'"):
    Media("smell", b"")


def test_print_shows_what_is_learned():
  text = str(vqa())
  assert "  * ' a cat'" in text and "<image 3 bytes>" in text
  array = Media("image", np.zeros((2, 2, 3), np.uint8), "a")
  assert str(array) == "<image a uint8[2, 2, 3]>"


def test_file_is_read_when_asked_for_and_capped(tmp_path, monkeypatch):
  path = tmp_path / "a.bin"
  media = Media("image", File(str(path)))
  with pytest.raises(BadSample, match=r"a\.bin"):
    media.load()
  path.write_bytes(b"1234")
  assert media.load() == b"1234"
  monkeypatch.setitem(MAX_BYTES, "image", 3)
  with pytest.raises(BadSample, match="4 bytes, the cap is 3"):
    media.load()
