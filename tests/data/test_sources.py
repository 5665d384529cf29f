import io
import json
import os
import pickle
import struct
import tarfile
from concurrent import futures

import numpy as np
import pytest

from mmjax.data import sources, tar, tf_example
from mmjax.data.document import BadSample
from mmjax.data.paths import below
from mmjax.data.sources import ArrayRecord, Folder, Jsonl, Parquet, Tar
from tests.data.pictures import encode
from tests.data.test_tar import HOSTILE, special, write


def everything(source):
  return [source[i] for i in range(len(source))]


def test_jsonl_reads_any_line_of_several_files(tmp_path):
  (tmp_path / "a.jsonl").write_text('{"x": 1}\n\n{"x": "ä"}\n')
  (tmp_path / "b.jsonl").write_text('{"x": 3}')
  source = Jsonl(str(tmp_path / "*.jsonl"))
  assert [r["x"] for r in everything(source)] == [1, "ä", 3]
  assert len({r["__key__"] for r in everything(source)}) == 3
  with pytest.raises(IndexError):
    source[3]


def test_jsonl_lines_across_pieces(tmp_path, monkeypatch):
  path = tmp_path / "a.jsonl"
  records = [{"x": "y" * n} for n in range(60)]
  path.write_text("\r\n \n".join(map(json.dumps, records)) + "\n\n")
  monkeypatch.setattr(sources, "CHUNK", 7)
  source = Jsonl(str(path))
  assert [r["x"] for r in everything(source)] == [r["x"] for r in records]


def test_records_have_a_cap(tmp_path, monkeypatch):
  (tmp_path / "a.jsonl").write_text('{"x": "' + "y" * 100 + '"}')
  path = write(tmp_path / "a.tar", [("1.txt", b"x" * 100)])
  monkeypatch.setattr(sources, "MAX_RECORD", 50)
  for source in (Jsonl(str(tmp_path / "a.jsonl")), Tar(str(path))):
    with pytest.raises(BadSample, match="the cap is 50"):
      source[0]


@pytest.mark.parametrize(
  "line", ["{", "[1]", "nan", "\xff", "[" * 100_000, '{"a": 1} x']
)
def test_bad_json_names_file_and_place(tmp_path, line):
  path = tmp_path / "a.jsonl"
  path.write_bytes(b'{"x": 1}\n' + line.encode("latin-1") + b"\n")
  source = Jsonl(str(path))
  assert source[0]["x"] == 1
  with pytest.raises(BadSample, match=r"a\.jsonl@9"):
    source[1]


@pytest.mark.parametrize(
  "path", ["pipe:touch evil", "https://localhost/a.tar", "/nowhere/*.tar"]
)
def test_nothing_is_run_or_fetched(tmp_path, monkeypatch, path):
  monkeypatch.chdir(tmp_path)
  for make in (Jsonl, Tar, Parquet, ArrayRecord):
    with pytest.raises(ValueError, match="No file matches"):
      make(path)
  assert not os.listdir(tmp_path)


def test_tar_groups_members_by_key(tmp_path):
  write(
    tmp_path / "a.tar",
    [
      ("s/1.jpg", b"J1"),
      ("s/1.txt", b"T1"),
      ("s/1.pkl", b"evil"),
      ("s/1.seg.PNG", b"P1"),
      ("2.jpg", b"J2"),
    ],
  )
  write(tmp_path / "b.tar", [("3.JPG", b"J3")])
  source = Tar([str(tmp_path / "a.tar"), str(tmp_path / "b.tar")])
  assert everything(source) == [
    {"__key__": "a.tar/s/1", "jpg": b"J1", "txt": b"T1"},
    {"__key__": "a.tar/2", "jpg": b"J2"},
    {"__key__": "b.tar/3", "jpg": b"J3"},
  ]


def test_two_members_of_one_name_are_a_bad_sample(tmp_path):
  path = write(tmp_path / "a.tar", [("1.txt", b"a"), ("1.TXT", b"b")])
  with pytest.raises(BadSample, match=r"a\.tar/1 has two \.txt"):
    Tar(str(path))[0]


def test_damaged_shard_is_an_error_or_a_named_skip(tmp_path, caplog):
  write(tmp_path / "a.tar", [("1.txt", b"1")])
  (tmp_path / "b.tar").write_bytes(b"x" * 700)
  pattern = str(tmp_path / "*.tar")
  with pytest.raises(ValueError, match=r"b\.tar has no tar header"):
    Tar(pattern)
  source = Tar(pattern, on_bad_shard="skip")
  assert "b.tar" in caplog.text
  assert len(source) == 2 and source[0]["txt"]
  with pytest.raises(BadSample, match=r"skipped: .*b\.tar"):
    source[1]
  assert len(source.problems) == 1


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_member_makes_its_own_record_bad(tmp_path, name):
  entries = [("1.txt", b"1"), (HOSTILE[name], b""), ("2.txt", b"2")]
  source = Tar(str(write(tmp_path / "a.tar", entries)))
  assert len(source) == 3
  assert (source[0]["txt"], source[2]["txt"]) == (b"1", b"2")
  with pytest.raises(BadSample, match=r"a\.tar holds an? .*evil/?; only plain"):
    source[1]
  assert len(source.problems) == 1


@pytest.mark.parametrize("indexed", [False, True])
def test_hostile_members_are_grouped_by_their_key(tmp_path, indexed):
  entries = [
    ("s/1.txt", b"T1"),
    (special(tarfile.SYMTYPE, "s/1.jpg"), b""),
    ("2.jpg", b"J2"),
    (special(tarfile.LNKTYPE, "2.pkl"), b""),
    (special(tarfile.FIFOTYPE, "2.txt"), b""),
    ("3.jpg", b"J3"),
    ("../3.jpg", b"up"),
    ("../3.txt", b"up"),
    (special(tarfile.SYMTYPE, "/3.jpg"), b""),
    ("3.txt", b"T3"),
  ]
  path = write(tmp_path / "a.tar", entries)
  if indexed:
    tar.write_index(path)
  source = Tar(str(path))
  reasons = []
  for i in (0, 1, 3, 4, 5):
    with pytest.raises(BadSample) as error:
      source[i]
    reasons.append(str(error.value))
  assert reasons == source.problems
  assert reasons == [
    f"a.tar holds {what}; only plain files are read."
    for what in (
      "a symbolic link, s/1.jpg",
      "a hard link, 2.pkl",
      "a file with an unsafe name, ../3.jpg",
      "a file with an unsafe name, ../3.txt",
      "a symbolic link with an unsafe name, /3.jpg",
    )
  ]
  assert len(source) == 6
  assert source[2] == {"__key__": "a.tar/3", "jpg": b"J3", "txt": b"T3"}


def test_tar_that_shrinks_is_a_bad_sample(tmp_path):
  path = write(tmp_path / "a.tar", [("1.txt", b"x" * 3000)])
  source = Tar(str(path))
  path.write_bytes(path.read_bytes()[:1000])
  with pytest.raises(BadSample, match=r"a\.tar ends"):
    source[0]


def test_threads_and_pickles(tmp_path):
  entries = [(f"{i}.txt", str(i).encode() * 100) for i in range(200)]
  source = Tar(str(write(tmp_path / "a.tar", entries)))
  copy = pickle.loads(pickle.dumps(source))
  with futures.ThreadPoolExecutor(8) as pool:
    texts = list(pool.map(lambda i: copy[i]["txt"], range(200)))
  assert texts == [data for _, data in entries]


def varint(n):
  n &= 2**64 - 1
  out = b""
  while n > 127:
    out, n = out + bytes([n & 127 | 128]), n >> 7
  return out + bytes([n])


def message(*fields):
  return b"".join(
    varint(number << 3 | 2) + varint(len(data)) + data
    for number, data in fields
  )


def tf_record(**features):
  entries = []
  for key, values in features.items():
    if isinstance(values[0], bytes):
      value = message((1, message(*[(1, v) for v in values])))
    elif isinstance(values[0], float):
      packed = b"".join(struct.pack("<f", v) for v in values)
      value = message((2, message((1, packed))))
    else:
      value = message((3, message((1, b"".join(map(varint, values))))))
    entries.append((1, message((1, key.encode()), (2, value))))
  return message((1, message(*entries)))


def test_tf_example():
  data = tf_record(image=[b"J"], n=[-3], xs=[1.5, -2.0], names=[b"a", b"b"])
  assert tf_example.parse(data) == {
    "image": b"J",
    "n": -3,
    "xs": [1.5, -2.0],
    "names": [b"a", b"b"],
  }


@pytest.mark.parametrize(
  "data",
  [
    b"",
    b"\xff" * 30,
    tf_record(a=[b"x" * 50])[:20],
    b"\x0a\xff\xff\xff\xff\x0f",
    message((1, message((1, b"\x08" + varint(2**60) + b"\x12\0")))),
    b"not a message at all",
  ],
)
def test_bad_tf_example(data):
  with pytest.raises(BadSample, match="r7"):
    tf_example.parse(data, "r7")


def test_array_record(tmp_path):
  module = pytest.importorskip("array_record.python.array_record_module")
  path = str(tmp_path / "a.array_record")
  writer = module.ArrayRecordWriter(path, "group_size:1")
  for i in range(3):
    writer.write(json.dumps({"i": i}).encode())
  writer.close()
  source = ArrayRecord(path)
  assert [r["i"] for r in everything(source)] == [0, 1, 2]
  with pytest.raises(BadSample, match="record 1"):
    ArrayRecord(path, codec="tf_example")[1]
  with pytest.raises(ValueError, match="'pickle'"):
    ArrayRecord(path, codec="pickle")


def test_a_cut_array_record_is_named(tmp_path):
  module = pytest.importorskip("array_record.python.array_record_module")
  files = [tmp_path / f"{i}.array_record" for i in range(2)]
  paths = list(map(str, files))
  for path in paths:
    writer = module.ArrayRecordWriter(path, "group_size:1")
    writer.write(b'{"i": 1}')
    writer.close()
  assert len(ArrayRecord(paths)) == 2
  data = files[1].read_bytes()
  for cut in (b"", data[: len(data) // 2], b"PK" * 50_000):
    files[1].write_bytes(cut)
    with pytest.raises(ValueError, match="1.array_record is no whole"):
      ArrayRecord(paths)


def test_parquet(tmp_path):
  pyarrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  path = str(tmp_path / "a.parquet")
  table = pyarrow.table({"n": list(range(10)), "t": [["a", None]] * 10})
  parquet.write_table(table, path, row_group_size=3)
  source = pickle.loads(pickle.dumps(Parquet(path)))
  assert [source[i]["n"] for i in (9, 0, 5, 4)] == [9, 0, 5, 4]
  assert source[2]["t"] == ["a", None] and len(source) == 10
  assert set(Parquet(path, columns=("n",))[0]) == {"n", "__key__"}
  bad = tmp_path / "bad.parquet"
  bad.write_bytes(b"PAR1 no")
  with pytest.raises(ValueError, match=r"bad\.parquet"):
    Parquet(str(bad))


def test_parquet_cells_that_python_cannot_hold(tmp_path):
  pyarrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  ends = pyarrow.py_buffer(np.array([0, 1, 3], np.int32))
  data = pyarrow.py_buffer(b"a\xff\xfe")
  columns = {
    "t": pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, ends, data]),
    "d": pyarrow.array([2**62, 0], pyarrow.timestamp("us")),
  }
  path = str(tmp_path / "a.parquet")
  parquet.write_table(pyarrow.table(columns), path)
  for name, row in (("t", 1), ("d", 0)):
    with pytest.raises(BadSample, match=rf"a\.parquet#{row}: "):
      Parquet(path, columns=(name,))[row]
    Parquet(path, columns=(name,))[1 - row]
  with pytest.raises(ValueError, match="no column 'e'"):
    Parquet(path, columns=("d", "e"))


def test_folder_tables(tmp_path):
  (tmp_path / "a.jpg").write_bytes(b"J")
  table = tmp_path / "t.csv"
  table.write_text('file,caption\na.jpg,"a cat, here"\n../x,evil\n,none\n')
  source = Folder(str(tmp_path), str(table))
  assert len(source) == 3 and source[0]["caption"] == "a cat, here"
  assert source[0]["__file__"].read(10) == b"J"
  for i, match in ((1, "does not stay below"), (2, "Row 2 has no 'file'")):
    with pytest.raises(BadSample, match=match):
      source[i]
  lines = tmp_path / "t.jsonl"
  lines.write_text('{"file": "a.jpg"}\n')
  assert Folder(str(tmp_path), str(lines))[0]["__key__"] == "a.jpg"
  with pytest.raises(ValueError, match=r"no \.csv"):
    Folder(str(tmp_path), str(tmp_path / "a.jpg"))
  with pytest.raises(ValueError, match="no folder"):
    Folder(str(tmp_path / "b"), str(table))


def test_links_out_of_a_folder_are_refused(tmp_path):
  inside = tmp_path / "in"
  inside.mkdir()
  (tmp_path / "secret").write_text("x")
  (inside / "link").symlink_to(tmp_path / "secret")
  with pytest.raises(BadSample, match="leads out"):
    sources.below(inside, "link")


def test_tfds_from_disk(tmp_path):
  pytest.importorskip("importlib_resources")  # to write, not to read
  tfds = pytest.importorskip("tensorflow_datasets")

  class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(4, 4, 3)), "n": np.int64}
      )
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for i in range(3):
        png = encode(np.full((4, 4, 3), i, np.uint8))
        yield i, {"image": io.BytesIO(png), "n": i}

  builder = Tiny(data_dir=str(tmp_path), file_format="array_record")
  builder.download_and_prepare()
  source = sources.Tfds(str(builder.data_dir))
  for record in everything(source):
    assert (record["image"] == record["n"]).all()
  assert sorted(int(r["n"]) for r in everything(source)) == [0, 1, 2]
  for folder, split in ((builder.data_dir, "trian"), (tmp_path, "train")):
    with pytest.raises(ValueError, match=f"no split '{split}'"):
      sources.Tfds(str(folder), split)


def test_a_pipe_in_a_folder_does_not_hang(tmp_path):
  os.mkfifo(tmp_path / "a.jpg")
  (tmp_path / "b.jpg").mkdir()
  for name in ("a.jpg", "b.jpg"):
    with pytest.raises(BadSample, match="no plain file"):
      below(tmp_path, name).read(2**20)


def test_members_that_are_left_out_are_named(tmp_path, caplog):
  path = tmp_path / "shard.tar"
  with tarfile.open(path, "w") as file:
    for name in ("a.jpg", "a.txt", "b.v1.jpg", "c.npy"):
      member = tarfile.TarInfo(name)
      member.size = 1
      file.addfile(member, io.BytesIO(b"x"))
  assert len(Tar(str(path))) == 1
  assert "2 members are left out, such as 'b.v1.jpg'" in caplog.text
