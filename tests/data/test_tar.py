import gzip
import io
import json
import lzma
import os
import pickle
import tarfile

import pytest

from mmjax.data import tar
from mmjax.data.document import BadSample
from mmjax.data.reader import Reader
from tests.data.mutations import damaged


def write(path, entries, format=tarfile.GNU_FORMAT):
  """A tar of name to bytes, or of ready TarInfos with bytes."""
  with tarfile.open(path, "w", format=format) as file:
    for entry, data in entries:
      info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
      info.size = len(data)
      file.addfile(info, io.BytesIO(data))
  return path


def contents(path):
  with Reader(path) as reader:
    return {m.name: reader.read(m.offset, m.size) for m in tar.scan(path)}


@pytest.mark.parametrize(
  "format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]
)
def test_scan_equals_tarfile(tmp_path, format):
  entries = [("a.txt", b"one"), ("d/b.bin", b"x" * 513), ("empty", b"")]
  if format != tarfile.USTAR_FORMAT:
    entries += [("long/" + "n" * 200 + ".txt", b"two"), ("ä.txt", b"3")]
  else:
    entries += [("p" * 90 + "/" + "n" * 90, b"two")]
  path = write(tmp_path / "a.tar", entries, format)
  assert contents(path) == dict(entries)


def test_directories_are_passed_over(tmp_path):
  folder = tarfile.TarInfo("d")
  folder.type = tarfile.DIRTYPE
  path = write(tmp_path / "a.tar", [(folder, b""), ("d/a", b"1")])
  assert contents(path) == {"d/a": b"1"}


def special(kind, name="evil", link="/etc/passwd"):
  info = tarfile.TarInfo(name)
  info.type, info.linkname = kind, link
  return info


HOSTILE = {
  "symlink": special(tarfile.SYMTYPE),
  "hard_link": special(tarfile.LNKTYPE),
  "character": special(tarfile.CHRTYPE),
  "block": special(tarfile.BLKTYPE),
  "fifo": special(tarfile.FIFOTYPE),
  "sparse": special(tarfile.GNUTYPE_SPARSE),
  "unknown": special(b"Z"),
  "absolute": "/etc/cron.d/evil",
  "parent": "../evil",
  "inner_parent": "a/../../evil",
  "backslash": "..\\evil",
  "drive": "c:evil",
  "folder": special(tarfile.DIRTYPE, "../evil"),
  "long_link": special(tarfile.SYMTYPE, link="x" * 300),
  "long_name": special(tarfile.SYMTYPE, "n/" * 100 + "evil"),
  "long_parent": "n/" * 100 + "../evil",
}
FORMATS = [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_members_have_no_place(tmp_path, name, format):
  entries = [("good.txt", b"1"), (HOSTILE[name], b""), ("more.txt", b"22")]
  path = write(tmp_path / "a.tar", entries, format)
  good, bad, more = tar.scan(path)
  assert [good.name, more.name] == ["good.txt", "more.txt"]
  assert not good.problem and not more.problem and more.size == 2
  assert bad.problem and (bad.offset, bad.size) == (0, 0)
  assert "evil" in str(bad) and len(str(bad)) < 200
  tar.write_index(path)
  assert tar.read_index(path) == [good, bad, more]
  assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.tar.index.json"]


@pytest.mark.parametrize("format", FORMATS)
def test_hostile_members_keep_safe_names_alone(tmp_path, format):
  long = "n/" * 100 + "a.jpg"
  up = "n/" * 150 + "../" * 200 + "\x1b[31ma.jpg"
  entries = [(special(tarfile.SYMTYPE, long), b""), (up, b"1"), (".", b"1")]
  link, file, dot = tar.scan(write(tmp_path / "a.tar", entries, format))
  assert (link.name, link.problem) == (long, "a symbolic link")
  assert not link.unsafe and file.unsafe and dot.unsafe
  assert len(file.name) <= tar.SHOWN and file.name.isprintable()
  assert file.name.endswith("\\x1b[31ma.jpg")
  assert file.problem == dot.problem == "a file with an unsafe name"


def summed(block):
  """With a right checksum."""
  block = bytearray(block)
  block[148:156] = b" " * 8
  block[148:156] = b"%06o\0 " % sum(block)
  return bytes(block)


def header(name=b"a.txt", size=b"00000000003", kind=b"0"):
  """A raw header block with a right checksum."""
  block = bytearray(512)
  block[: len(name)] = name
  block[124 : 124 + len(size)] = size
  block[156:157] = kind
  return summed(block)


def sparse_header(more=1):
  """A sparse file whose map goes on in the next block."""
  block = bytearray(header(b"a.jpg", kind=b"S"))
  block[482] = more
  return summed(block)


@pytest.mark.parametrize(
  "data",
  [
    b"\x80" * 700,
    b"pipe:touch evil" + b"\0" * 600,
    header()[:300],
    header() + b"ab",
    header(size=b"77777777777"),
    header(size=b"\x80" + b"\xff" * 11),
    header(size=b"-0000000001"),
    header(size=b"zzz"),
    header(kind=b"x", size=b"77777777777"),
    header(kind=b"x", size=b"00000000010") + b"99 a=b\0\0".ljust(512, b"\0"),
    header(kind=b"L", size=b"77777777777"),
    header(kind=b"?"),
    header(kind=b"S", size=b"77777777777"),
    sparse_header(),
    sparse_header() + b"\1" * 512,
    header(kind=b"2") + b"abc".ljust(512, b"\0"),
    (header() + b"abc").ljust(1024, b"\0") + b"garbage".ljust(512),
  ],
)
def test_damaged_archives_are_errors(tmp_path, data):
  path = tmp_path / "a.tar"
  path.write_bytes(data)
  with pytest.raises(tar.BadTar, match=r"a\.tar"):
    tar.scan(path)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_damaged_archives_never_lead_astray(tmp_path, format):
  entries = [("a.txt", b"1"), ("ä" * 90 + ".txt", b"22"), ("d/b", b"x" * 600)]
  path = write(tmp_path / "a.tar", entries, format)
  sound, refused = path.read_bytes(), 0
  for data in damaged(sound.rstrip(b"\0") + b"\0" * 1024, 300):
    path.write_bytes(repaired(data))
    try:
      for member in tar.scan(path):
        assert tar.safe_name(member.name) or member.unsafe
        assert member.offset + member.size <= len(data)
    except tar.BadTar:
      refused += 1
  assert 50 < refused < 300


def repaired(data):
  """With right checksums, so that damage gets past them."""
  out = bytearray(data)
  for at in range(0, len(out) - 511, 512):
    if out[at + 257 : at + 262] == b"ustar":
      out[at : at + 512] = summed(out[at : at + 512])
  return bytes(out)


def test_sizes_of_hostile_members_are_those_of_tar(tmp_path):
  """Links have no bytes, whatever they say; a sparse file's map may be long."""
  data = b"abc".ljust(512, b"\0")
  maps = bytes(504) + b"\1" + bytes(7) + bytes(512)
  path = tmp_path / "a.tar"
  path.write_bytes(
    header(b"l.jpg", b"77777777777", b"2")
    + header(b"d", b"00000001000", b"5")
    + (sparse_header() + maps + data)
    + (header(b"z.jpg", kind=b"Z") + data)
    + (header(b"b.jpg") + data + bytes(1024))
  )
  found = tar.scan(path)
  with tarfile.open(path) as file:
    names = [m.name for m in file if not m.isdir()]
  assert [m.name for m in found] == names
  assert names == ["l.jpg", "a.jpg", "z.jpg", "b.jpg"]
  assert [bool(m.problem) for m in found] == [True, True, True, False]
  assert contents(path)["b.jpg"] == b"abc"


def test_pax_sparse_and_size(tmp_path):
  sparse = tarfile.TarInfo("GNUSparseFile.1/s")
  sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "s.jpg"}
  entries = [(sparse, b"1"), ("a", b"22")]
  path = write(tmp_path / "s.tar", entries, tarfile.PAX_FORMAT)
  bad, good = tar.scan(path)
  assert str(bad) == "a sparse file, s.jpg" and (bad.offset, bad.size) == (0, 0)
  assert (good.name, good.size, good.problem) == ("a", 2, "")
  lying = tarfile.TarInfo("s")
  lying.pax_headers = {"size": "99999999999999999999"}
  path = write(tmp_path / "l.tar", [(lying, b"1")], tarfile.PAX_FORMAT)
  with pytest.raises(tar.BadTar):
    tar.scan(path)


def test_truncated_archive(tmp_path):
  path = write(tmp_path / "a.tar", [("a", b"x" * 5000), ("b", b"y" * 5000)])
  path.write_bytes(path.read_bytes()[:8000])
  with pytest.raises(tar.BadTar, match="truncated"):
    tar.scan(path)


def test_a_tar_of_the_folder_itself(tmp_path):
  here = tarfile.TarInfo("./")
  here.type = tarfile.DIRTYPE
  entries = [(here, b""), ("./d/a.txt", b"1"), ("12:30.txt", b"2")]
  path = write(tmp_path / "a.tar", entries)
  assert contents(path) == {"d/a.txt": b"1", "12:30.txt": b"2"}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda data: b"", "0 bytes"),
    (lambda data: gzip.compress(data), "gunzip"),
    (lambda data: lzma.compress(data), "unxz"),
    (lambda data: data + data, "behind its end mark at byte 1024"),
    (lambda data: bytes(512) + data[512:], "behind its end mark at byte 0"),
  ],
)
def test_what_other_readers_would_stop_at(tmp_path, change, message):
  path = write(tmp_path / "a.tar", [("a", b"1")])
  path.write_bytes(change(path.read_bytes()))
  with pytest.raises(tar.BadTar, match=message):
    tar.scan(path)


@pytest.mark.parametrize("end", [b"", bytes(2**20 + 512)])
def test_a_shard_that_may_be_cut_off_is_told(tmp_path, end, caplog):
  """Cut between two members, or with room kept for what did not arrive."""
  path = write(tmp_path / "a.tar", [("a", b"1")])
  path.write_bytes(path.read_bytes()[:1024])
  path.write_bytes(path.read_bytes() + end)
  assert [m.name for m in tar.scan(path)] == ["a"]
  assert "may be cut off" in caplog.text and str(path) in caplog.text


def test_index_gives_what_a_scan_gives(tmp_path):
  path = write(tmp_path / "a.tar", [("a", b"1"), ("b/c", b"22")])
  assert tar.read_index(path) is None
  where = tar.write_index(path)
  assert where.name == "a.tar.index.json"
  assert tar.read_index(path) == tar.scan(path) == tar.members(path)
  assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.tar.index.json"]


def test_stale_and_hostile_indexes_are_not_used(tmp_path):
  path = write(tmp_path / "a.tar", [("a", b"1")])
  index = tar.write_index(path)
  good = json.loads(index.read_text())
  for change in (
    {"format": "other"},
    {"format": "mmjax-tar-index-1"},
    {"members": [["../a", 512, 1]]},
    {"members": [["a", 0, 10**12]]},
    {"members": [["a", -1, 1]]},
    {"members": [["a", float("inf"), 1]]},
    {"members": "x"},
    {"members": [["../a", 0, 0, ""]]},
    {"members": [["../a", 0, 0, "a symbolic link"]]},
    {"members": [["a", 512, 1, "a symbolic link"]]},
    {"members": [["a", 0, 1, "a symbolic link"]]},
    {"members": [["a", 0, 0, "a\x1b[31m link"]]},
    {"members": [["\x1b", 0, 0, "a file with an unsafe name"]]},
    {"members": [["../" * 99, 0, 0, "a file with an unsafe name"]]},
    {"members": [["../a", 512, 1, "a file with an unsafe name"]]},
    {"members": [["a", 0, 0, "a pipe", "a pipe"]]},
  ):
    index.write_text(json.dumps(good | change))
    assert tar.read_index(path) is None
  for text in ("{", "[" * 10**5):
    index.write_text(text)
    assert tar.read_index(path) is None
  index.write_text(json.dumps(good))
  write(path, [("a", b"1"), ("b", b"2")])
  assert tar.read_index(path) is None and len(tar.members(path)) == 2


def test_reader_survives_pickling_and_short_files(tmp_path):
  path = tmp_path / "a"
  path.write_bytes(b"0123456789")
  reader = Reader(path)
  assert reader.read(2, 3) == b"234"
  copy = pickle.loads(pickle.dumps(reader))
  assert copy.read(8, 2) == b"89"
  with pytest.raises(BadSample, match="ends 5 bytes before 15"):
    copy.read(8, 7)
  with pytest.raises(ValueError, match="no file"):
    Reader(tmp_path / "b")
