"""Small encoded pictures, sound and hostile ones, for the data tests."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def photo(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
  """A smooth picture, so that JPEG keeps it."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
  image = Image.fromarray(coarse).resize((width, height), Image.BICUBIC)
  return np.asarray(image)


def encode(pixels: np.ndarray, format: str = "PNG", **options) -> bytes:
  data = io.BytesIO()
  Image.fromarray(pixels).save(data, format, **options)
  return data.getvalue()


def png_bomb(width: int = 10_000, height: int = 10_000) -> bytes:
  """A few kilobytes that would become 300 MB."""

  def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return (
      struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    )

  header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
  rows = zlib.compress(b"\0" * (height * (width // 8 + 1)), 9)
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + chunk(b"IDAT", rows)
    + chunk(b"IEND", b"")
  )


def hostile() -> dict[str, bytes]:
  """What may never get through as a picture."""
  jpeg = encode(photo(), "JPEG")
  png = encode(photo(), "PNG")
  return {
    "empty": b"",
    "truncated_jpeg": jpeg[: len(jpeg) // 2],
    "truncated_png": png[: len(png) // 2],
    "header_only": png[:30],
    "bomb": png_bomb(),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>',
    "pdf": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF",
    "pickle": b"cos\nsystem\n(S'true'\ntR.",
    "tiff": encode(photo(), "TIFF"),
    "bmp": encode(photo(), "BMP"),
    "text": b"this is no picture",
    "damaged_png": png[:60] + b"\0" * 40 + png[100:],
  }
