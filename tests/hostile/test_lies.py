"""Small files that promise much, or lie about what they hold."""

import io
import json
import struct
import wave
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmjax.convert.read import open_weights
from mmjax.data import audio, image, parquet
from mmjax.data.document import BadSample
from mmjax.data.sources import Jsonl, Parquet
from tests.data.pictures import encode, photo
from tests.hostile.watched import watched

MEMORY = 200 * 2**20
# 32 MiB in 32 kB.
MUCH = zlib.compress(bytes(2**25), 9)


def chunk(kind: bytes, data: bytes) -> bytes:
  body = kind + data
  size, check = len(data), zlib.crc32(body)
  return struct.pack(">I", size) + body + struct.pack(">I", check)


def png(extra: bytes) -> bytes:
  """A picture with another chunk behind its header."""
  whole = encode(photo())
  return whole[:33] + extra + whole[33:]


def jpeg(side: int) -> bytes:
  """Of a few pixels, whose header says more."""
  data = bytearray(encode(photo(), "JPEG"))
  struct.pack_into(">HH", data, data.find(b"\xff\xc0") + 5, side, side)
  return bytes(data)


def gif(screen: int = 0, frame: int = 0) -> bytes:
  data = bytearray(encode(photo(), "GIF"))
  if screen:
    struct.pack_into("<HH", data, 6, screen, screen)
  if frame:
    at = data.find(b",", 13 + 3 * 256)
    struct.pack_into("<HHHH", data, at + 1, frame, frame, frame, frame)
  return bytes(data)


PICTURES = {
  "iCCP": png(chunk(b"iCCP", b"x\0\0" + MUCH)),
  "zTXt": png(chunk(b"zTXt", b"x\0\0" + MUCH)),
  "iTXt": png(chunk(b"iTXt", b"x\0\1\0\0\0" + MUCH)),
  "a chunk that is cut": png(struct.pack(">I", 2**31 - 1) + b"tEXt"),
  "a large JPEG": jpeg(65_500),
  "a JPEG of nothing": jpeg(0),
  "a large screen": gif(screen=65_535),
  "a large frame": gif(frame=60_000),
  "an icon": encode(photo(), "ICO"),
  "TIFF behind JPEG": b"\xff\xd8\xff" + encode(photo(), "TIFF"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name):
  assert len(PICTURES[name]) < 100_000
  with watched() as seen, pytest.raises(BadSample, match="^a.png "):
    image.decode(PICTURES[name], "a.png")
  assert seen.grown < MEMORY and not seen.written and not seen.forbidden


def test_sixteen_bits_of_grey():
  """As before, for all values, without eight bytes a pixel."""
  grey = np.arange(2**16, dtype="<u2").reshape(256, 256)
  found = image.decode(encode(grey))
  assert (found == (grey // 257)[..., None]).all()


def sound(rate: int = 16_000, count: int = 100, says: int | None = None):
  data = io.BytesIO()
  with wave.open(data, "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(rate)
    file.writeframes(bytes(2 * count))
  made = bytearray(data.getvalue())
  if says is not None:
    struct.pack_into("<I", made, made.find(b"data") + 4, says)
  return bytes(made)


@pytest.mark.parametrize("rate", [1, 999, 767_999, 2**31 - 1])
def test_a_rate_that_no_sound_has(rate):
  """Between 767,999 and 16,000 the filter would have 15 million taps."""
  with watched() as seen, pytest.raises(BadSample, match="^a.wav "):
    audio.decode(sound(rate), name="a.wav")
  assert seen.grown < MEMORY


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 192_000, 705_600])
def test_rates_that_sounds_have(rate):
  assert len(audio.decode(sound(rate, rate // 10))) == 1_600


def test_a_sound_that_says_it_is_longer():
  assert len(audio.decode(sound(says=2**32 - 16))) == 100


def test_hours_of_silence():
  soundfile = pytest.importorskip("soundfile")
  data = io.BytesIO()
  count = audio.MAX_SAMPLES + 16_000
  with soundfile.SoundFile(data, "w", 16_000, 1, format="FLAC") as file:
    for at in range(0, count, 2**22):
      file.write(np.zeros(min(2**22, count - at), np.float32))
  with watched() as seen, pytest.raises(BadSample, match="a.flac has .* cap"):
    audio.decode(data.getvalue(), name="a.flac")
  assert len(data.getvalue()) < 2**20 and seen.grown < MEMORY


@pytest.mark.parametrize(
  "line",
  [
    b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b"[" * 10**6,
    b'{"a": ' + b"9" * 10**6 + b"}",
    b'{"a": "\xff\xfe"}',
  ],
  ids=["deep", "open", "a long number", "no UTF-8"],
)
def test_json(line, tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_bytes(line + b"\n")
  with (
    watched() as seen,
    pytest.raises(BadSample, match="a.jsonl@0 is no JSON"),
  ):
    Jsonl(str(path))[0]
  assert seen.grown < MEMORY


@pytest.mark.parametrize("at", ["footer", "size of it", "page"])
def test_parquet(at, tmp_path):
  path = tmp_path / "a.parquet"
  pq.write_table(pa.table({"a": ["x" * 100] * 1000}), path)
  data = bytearray(path.read_bytes())
  (size,) = struct.unpack("<I", data[-8:-4])
  if at == "footer":
    data[-8 - size : -8] = bytes(b ^ 0x55 for b in data[-8 - size : -8])
  elif at == "size of it":
    data[-8:-4] = struct.pack("<I", 2**31 - 1)
  else:
    data[4:60] = b"\xff" * 56
  path.write_bytes(data)
  with watched() as seen, pytest.raises((ValueError, BadSample)) as found:
    Parquet(str(path))[0]
  assert "a.parquet" in str(found.value) and seen.grown < MEMORY


@pytest.mark.parametrize(
  "column",
  [
    # Written once, in every row.
    lambda: ["x" * 2**16] * 2**12,
    lambda: [["x" * 2**16] * 4] * 2**10,
    # Packed well.
    lambda: [bytes(2**23) + bytes([i]) for i in range(32)],
  ],
  ids=["one value", "lists of it", "zeros"],
)
def test_parquet_that_unpacks_to_too_much(column, tmp_path, monkeypatch):
  """To 256 MiB, where 16 are allowed."""
  monkeypatch.setattr(parquet, "MAX_GROUP", 2**24)
  path = tmp_path / "a.parquet"
  pq.write_table(pa.table({"a": column()}), path, compression="zstd")
  pa.default_memory_pool().release_unused()
  assert path.stat().st_size < 2**21
  with watched() as seen, pytest.raises(BadSample, match="cap of.*smaller row"):
    Parquet(str(path))[0]
  assert seen.grown < MEMORY


def bent(path, field: int, value: int, member: bytes) -> None:
  """Changes a number in the directory of a zip file."""
  data, at = bytearray(path.read_bytes()), -1
  while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
    (length,) = struct.unpack("<H", data[at + 28 : at + 30])
    if data[at + 46 : at + 46 + length].endswith(member):
      struct.pack_into("<I", data, at + field, value)
  path.write_bytes(data)


# Fields of an entry: bytes 24 are its size, bytes 42 where its header is.
@pytest.mark.parametrize(
  "field, value, member, problem",
  [
    (24, 2**32 - 16, b"data.pkl", "is cut off"),
    (24, 2**31 - 1, b"data/0", "is cut off"),
    (42, 2**31 - 1, b"data/0", "has no header"),
    (42, 0, b"data/0", "share bytes"),
  ],
)
def test_zip_directories(field, value, member, problem, tmp_path):
  path = tmp_path / "a.pth"
  torch.save({"a": torch.ones(4)}, path)
  bent(path, field, value, member)
  with watched() as seen, pytest.raises(ValueError, match=problem) as found:
    open_weights(path)
  assert str(path) in str(found.value) and seen.grown < MEMORY


def test_a_zip_bomb(tmp_path):
  path = tmp_path / "a.pth"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
    file.writestr("archive/data.pkl", bytes(2**28))
  with watched() as seen, pytest.raises(ValueError, match="is compressed"):
    open_weights(path)
  assert seen.grown < MEMORY


def test_a_header_that_is_the_file(tmp_path):
  """The format's own limit is 100 MB; it is told before it is parsed."""
  path = tmp_path / "a.safetensors"
  text = json.dumps({"__metadata__": {"a": "x" * (101 * 10**6)}}).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text)
  del text
  with (
    watched() as seen,
    pytest.raises(ValueError, match="a.safetensors is no"),
  ):
    open_weights(path)
  assert seen.grown < MEMORY


@pytest.mark.parametrize(
  "program",
  [
    # Tuples of themselves, as in "a billion laughs".
    b"X\1\0\0\0a(Ntq\1" + b"(h\1h\1tq\1" * 60 + b"s",
    b"(Ntq\1" + b"(h\1h\1tq\1" * 60 + b"Ns",
    b"X\1\0\0\0aN" + b"\x85" * 100_000 + b"s",
    b"q\0X\1\0\0\0ah\0s",
    b"X\1\0\0\0a\x8b" + struct.pack("<i", -5) + b"s",
    b"X" + struct.pack("<I", 2**31) + b"a",
    b"(" * 10**5,
  ],
  ids=["laughs", "key", "deep", "itself", "negative", "long", "marks"],
)
def test_programs(program, tmp_path):
  path = tmp_path / "a.pth"
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("archive/data.pkl", b"\x80\x02}" + program + b".")
  with watched() as seen, pytest.raises(ValueError) as found:
    open_weights(path)
  assert f"{path} is not read: " in str(found.value)
  assert len(str(found.value)) < 500 and seen.grown < MEMORY
