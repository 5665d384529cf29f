"""CTranslate2's files: what is read, and what is refused."""

import struct

import ml_dtypes
import numpy as np
import pytest

from mmjax.convert.ctranslate2 import CTranslate2

KINDS = [np.float32, np.int8, np.int16, np.int32, np.float16]


def text(value: str) -> bytes:
  return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def variable(name, array, kind, size=None) -> bytes:
  shape = struct.pack(f"<{array.ndim}I", *array.shape)
  size = array.nbytes if size is None else size
  head = text(name) + struct.pack("B", array.ndim) + shape
  return head + struct.pack("<BI", kind, size) + array.tobytes()


def packed(variables, aliases=(), version=6) -> bytes:
  return b"".join(
    [
      struct.pack("<I", version),
      text("WhisperSpec"),
      struct.pack("<2I", 3, len(variables)),
      *variables,
      struct.pack("<I", len(aliases)),
      *(text(a) + text(b) for a, b in aliases),
    ]
  )


def written(folder, data: bytes):
  path = folder / "model.bin"
  path.write_bytes(data)
  return path


W = np.arange(6, dtype=np.float16).reshape(2, 3)


def test_numbers_names_and_aliases(tmp_path):
  arrays = [np.arange(4, dtype=d).reshape(2, 2) for d in KINDS]
  arrays += [np.arange(3).astype(ml_dtypes.bfloat16), np.array(7, np.int16)]
  kinds = [0, 1, 2, 3, 4, 5, 2]
  data = packed(
    [variable(f"v{i}", a, k) for i, (a, k) in enumerate(zip(arrays, kinds))],
    [("other", "v0")],
  )
  found = CTranslate2(written(tmp_path, data))
  assert list(found) == [f"v{i}" for i in range(7)] + ["other"]
  assert found.model == "WhisperSpec" and len(found) == 8
  for i, array in enumerate(arrays):
    value = found[f"v{i}"]
    np.testing.assert_array_equal(value, array)
    assert found.shape(f"v{i}") == value.shape == array.shape
    whole = array.dtype.kind == "i"
    assert value.dtype == (array.dtype if whole else np.float32)
  np.testing.assert_array_equal(found["other"], arrays[0])


@pytest.mark.parametrize(
  "data, message",
  [
    (b"", "is empty"),
    (b"\6", "cut short"),
    (packed([], version=5), "version 5, expected 6"),
    (packed([variable("w", W, 9)]), "unknown kind, 9"),
    (packed([variable("w", W, 4, 11)]), "has 11 bytes, expected 12"),
    (packed([variable("w", W, 4)] * 2), "has w twice"),
    (packed([variable("w", W, 4)], [("a", "v")]), "stands for no 'v'"),
    (packed([variable("w", W, 4)]) + b"x", "1 bytes behind its end"),
    (packed([variable("w", W, 4)])[:-9], "cut short"),
    (
      packed([text("w") + struct.pack("<B4IBI", 4, *[2**31] * 4, 0, 0)]),
      "has 0 bytes, expected",
    ),
    (packed([struct.pack("<H", 2) + b"\xff\0"]), "no text"),
  ],
)
def test_what_is_no_model(data, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    CTranslate2(written(tmp_path, data))
