"""The drawn image set: 1,852 named things in three styles.

What ships lies in `assets/drawn/`: see NOTICE.md there for its origin.
"""

import dataclasses
import functools
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

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


@functools.cache
def _members() -> dict[str, bytes]:
  with tarfile.open(ASSETS / "images.tar") as tar:
    return {m.name: tar.extractfile(m).read() for m in tar}


def encoded(concept: Concept, style: str) -> bytes:
  """The picture as it is stored, a WebP file."""
  if style not in STYLES:
    raise ValueError(f"style is {style!r}, expected one of {STYLES}.")
  return _members()[f"{style}/{concept.id}.webp"]


def image(concept: Concept, style: str) -> UInt8[np.ndarray, "64 64 3"]:
  """The picture, decoded."""
  with Image.open(io.BytesIO(encoded(concept, style))) as picture:
    return np.asarray(picture.convert("RGB"))


def images(
  split: str | None = None,
) -> UInt8[np.ndarray, "style concept 64 64 3"]:
  """All pictures of a split, in the order of STYLES and `concepts(split)`."""
  chosen = concepts(split)
  return np.stack([[image(c, style) for c in chosen] for style in STYLES])
