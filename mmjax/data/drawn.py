"""The drawn image set: 1,852 named things in three styles.

What ships lies in `assets/drawn/`: see NOTICE.md there for its origin.
`episodes.py` makes documents of it.
"""

import dataclasses
import functools
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmjax.data import tar
from mmjax.data.reader import Reader
from mmjax.typing import UInt8

ASSETS = Path(__file__).parent / "assets" / "drawn"
STYLES = ("noto", "fluent", "twemoji")
SIZE = 64


@dataclasses.dataclass(frozen=True)
class Concept:
  """A thing that is drawn in every style.

  Attributes:
    id: its code points, `1f600` or `1f3c3-200d-2640-fe0f`.
    name: "grinning face".
    category: one of 9, "smileys and emotion".
    subcategory: one of 97, "face smiling".
    split: "train" or "held_out", the same in all styles.
  """

  id: str
  name: str
  category: str
  subcategory: str
  split: str


@functools.cache
def concepts(split: str | None = None) -> tuple[Concept, ...]:
  """All concepts, or those of one split, in Unicode's order."""
  if split not in (None, "train", "held_out"):
    raise ValueError(f"split is {split!r}, expected 'train' or 'held_out'.")
  lines = (ASSETS / "concepts.jsonl").read_text().splitlines()
  every = tuple(Concept(**json.loads(line)) for line in lines)
  return tuple(c for c in every if split in (None, c.split))


@functools.cache
def words() -> tuple[str, ...]:
  """Forty made-up words of two syllables; none is an English word."""
  return tuple((ASSETS / "words.txt").read_text().split())


def key(concept: Concept, style: str) -> int:
  """The row of a picture in `table()`."""
  row = _rows()[concept.id]
  return STYLES.index(style) * len(_rows()) + row


def blank_key() -> int:
  """The row of the white picture in `table()`."""
  return len(STYLES) * len(_rows())


@functools.cache
def table() -> UInt8[np.ndarray, "key 64 64 3"]:
  """All pictures in the order of their keys, and a white one at the end.

  A frozen encoder needs to see each of these only once.
  """
  flat = images().reshape(-1, SIZE, SIZE, 3)
  return np.concatenate([flat, np.full_like(flat[:1], 255)])


@functools.cache
def _rows() -> dict[str, int]:
  return {c.id: i for i, c in enumerate(concepts())}


@functools.cache
def _members() -> dict[str, bytes]:
  path = ASSETS / "images.tar"
  with Reader(path) as reader:
    return {m.name: reader.read(m.offset, m.size) for m in tar.members(path)}


def encoded(concept: Concept, style: str) -> bytes:
  """The picture as it is stored, a WebP file."""
  if style not in STYLES:
    raise ValueError(f"style is {style!r}, expected one of {STYLES}.")
  return _members()[f"{style}/{concept.id}.webp"]


@functools.cache
def image(concept: Concept, style: str) -> UInt8[np.ndarray, "64 64 3"]:
  """The picture, decoded; read-only, because it is kept."""
  with Image.open(io.BytesIO(encoded(concept, style))) as picture:
    pixels = np.array(picture.convert("RGB"))
  pixels.setflags(write=False)
  return pixels


def images(
  split: str | None = None,
) -> UInt8[np.ndarray, "style concept 64 64 3"]:
  """All pictures of a split, in the order of STYLES and `concepts(split)`."""
  chosen = concepts(split)
  return np.stack([[image(c, style) for c in chosen] for style in STYLES])
