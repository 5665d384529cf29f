"""Tables as people write them, and as they should not be."""

import pytest

from mmjax.data.document import BadSample
from mmjax.data.sources import Folder


def folder(tmp_path, text, name="table.csv", encoding="utf-8"):
  path = tmp_path / name
  path.write_bytes(text.encode(encoding))
  return Folder(str(tmp_path), str(path))


@pytest.mark.parametrize(
  "text, caption",
  [
    ("\ufefffile,caption\r\na.jpg,a kite\r\n", "a kite"),
    (
      'file,caption\na.jpg,"a ""red"", flying\nkite"\n',
      'a "red", flying\nkite',
    ),
    ("caption,file\n\na\u2028 kite,a.jpg", "a\u2028 kite"),
    ("file,caption\na.jpg," + "x" * 200_000, "x" * 200_000),
  ],
  ids=["excel", "quotes", "no_line_ends", "long"],
)
def test_tables_as_they_come(tmp_path, text, caption):
  source = folder(tmp_path, text)
  assert len(source) == 1
  assert source[0]["caption"] == caption
  assert source[0]["__key__"] == "a.jpg"


def test_tabs(tmp_path):
  source = folder(tmp_path, "file\tcaption\na.jpg\ta, b\n", "table.tsv")
  assert source[0]["caption"] == "a, b"


@pytest.mark.parametrize("row", ["b.jpg,a kite, red", "b.jpg", ",,,"])
def test_a_row_of_another_length_is_a_bad_sample(tmp_path, row):
  source = folder(tmp_path, f"file,caption\na.jpg,x\n{row}\nc.jpg,z\n")
  assert source[0]["caption"] == "x" and source[2]["caption"] == "z"
  with pytest.raises(BadSample, match=r"table.csv: row 1 has .* the header 2"):
    source[1]


@pytest.mark.parametrize(
  "text, encoding, message",
  [
    ("files,caption\na.jpg,x\n", "utf-8", "no column 'file'.*mean 'files'"),
    ("image,caption\na.jpg,x\n", "utf-8", "Name the one .* `column`"),
    ("", "utf-8", "no column 'file'"),
    ("file;caption\na.jpg;x\n", "utf-8", "parted by ',' in a .csv"),
    ("file,a,a\nx,y,z\n", "utf-8", "two columns of one name"),
    ("file,caption\na.jpg,caf\xe9\n", "latin-1", "no UTF-8 text"),
    ("file,caption\na.jpg,x\n", "utf-16", "no UTF-8 text"),
    ('file,caption\na.jpg,"x\nb.jpg,y\n', "utf-8", "line 3: .* quotes"),
    ('file,caption\na.jpg,"x"y\nb.jpg,y\n', "utf-8", "line 2: .* quotes"),
    ("file,caption\na.jpg," + "x" * 2**21, "utf-8", "field larger"),
  ],
)
def test_a_table_that_cannot_be_read_is_named(
  tmp_path, text, encoding, message
):
  with pytest.raises(ValueError, match=f"table.csv.*{message}"):
    folder(tmp_path, text, encoding=encoding)
