"""What is known of a picture in words: captions, and boxes of things.

  Picture("000000033471", "000000033471.jpg",
          ("A dog on a sofa.", "A brown dog sleeps."),
          (Box("dog", (0.25, 0.5, 0.75, 0.9)),)).context(boxes=True)

  A dog on a sofa.
  A brown dog sleeps.

  dog: [0.250, 0.500, 0.750, 0.900]

Read from COCO's official files, or from a jsonl with a picture a line:

  {"id": 1, "image": "a.jpg", "captions": ["A dog."],
   "boxes": [{"category": "dog", "box": [0.25, 0.5, 0.75, 0.9]}]}
"""

import collections
import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.annotations import Field, load

log = logging.getLogger(__name__)

Corners = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Box:
  """A thing and its place.

  Attributes:
    category: what it is.
    corners: left, top, right, bottom; in [0, 1] of the width and height.
  """

  category: str
  corners: Corners

  def __str__(self) -> str:
    return f"{self.category}: [{', '.join(f'{x:.3f}' for x in self.corners)}]"


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture in words.

  Attributes:
    id: unique in its data set.
    image: its file, as the data set that is made will name it.
    captions: a line each, at least one.
    boxes: may be none.
  """

  id: str
  image: str
  captions: tuple[str, ...]
  boxes: tuple[Box, ...] = ()

  def context(self, boxes: bool) -> str:
    """Its captions, then an empty line and its boxes where they are wanted."""
    lines = list(self.captions)
    if boxes and self.boxes:
      lines += ["", *map(str, self.boxes)]
    return "\n".join(lines)


def read(captions: str, instances: str | None = None) -> list[Picture]:
  """The pictures of a jsonl, or of COCO's files.

  Args:
    captions: COCO's `captions_*.json`, or a `.jsonl` with boxes in it.
    instances: COCO's `instances_*.json` of the same pictures.

  Raises:
    ValueError: when a file is missing, is another one, or has no picture.
  """
  # COCO's training files take half a minute.
  log.info("Reading %s.", " and ".join(filter(None, (captions, instances))))
  if not captions.endswith(".jsonl"):
    found = _coco(captions, instances)
  elif instances is None:
    found = [from_row(row, captions) for row in load(captions).rows()]
  else:
    raise ValueError(
      f"{captions} is a jsonl, whose rows hold their boxes; leave out "
      f"{instances}."
    )
  counts = collections.Counter(picture.id for picture in found)
  if twice := [key for key, count in counts.items() if count > 1]:
    raise ValueError(f"{captions} has the ids {twice[:3]} more than once.")
  kept = [picture for picture in found if picture.captions]
  if not kept:
    raise ValueError(f"{captions} has no picture with a caption.")
  _tell(captions, len(found) - len(kept), "pictures without a caption")
  return kept


def from_row(row: Field, path: str) -> Picture:
  """A picture of a jsonl; `path` is for messages."""
  boxes = []
  for part in row.rows("boxes", default=[]):
    corners = tuple(part.numbers("box", 4))
    if not _sound(corners) or not all(0 <= x <= 1 for x in corners):
      raise ValueError(
        f"{path}: the box {list(corners)} of {row.id('id')} is none; expected "
        "[left, top, right, bottom] in [0, 1] of the width and height."
      )
    boxes.append(Box(_line(part.text("category")), corners))
  captions = _lines(row.texts("captions"))
  return Picture(str(row.id("id")), row.text("image"), captions, tuple(boxes))


def _coco(captions: str, instances: str | None) -> list[Picture]:
  """Joins by image; ids are the files' names, as in LLaVA-Instruct."""
  content = load(captions)
  texts = collections.defaultdict(list)
  for row in content.rows("annotations"):
    texts[row.id("image_id")].append(row.text("caption"))
  images = content.rows("images")
  boxes: Mapping[Any, Sequence[Box]] = {}
  if instances is not None:
    boxes = _coco_boxes(instances, images)
    if not any(row.id("id") in boxes for row in images):
      raise ValueError(
        f"{instances} has no box of the pictures of {captions}. Are they of "
        "the same split?"
      )
  return [
    Picture(
      Path(row.text("file_name")).stem,
      row.text("file_name"),
      _lines(texts[row.id("id")]),
      tuple(boxes.get(row.id("id"), ())),
    )
    for row in images
  ]


def _coco_boxes(
  path: str, images: Sequence[Field]
) -> dict[int | str, list[Box]]:
  """Boxes by image. Crowds are left out: their box is of no single thing."""
  content = load(path)
  names = {row.id("id"): row.text("name") for row in content.rows("categories")}
  sizes = {
    row.id("id"): (row.number("width"), row.number("height")) for row in images
  }
  found, empty = collections.defaultdict(list), 0
  for row in content.rows("annotations"):
    key, category = row.id("image_id"), row.id("category_id")
    if category not in names:
      raise ValueError(f"{path} has no category {category!r}.")
    if key not in sizes or row.id("iscrowd", default=0):
      continue
    corners = _relative(tuple(row.numbers("bbox", 4)), sizes[key])
    if _sound(corners):
      found[key].append(Box(_line(names[category]), corners))
    else:
      empty += 1
  _tell(path, empty, "boxes without an area in their picture")
  return found


def _relative(box: Corners, size: tuple[float, float]) -> Corners:
  """[x, y, width, height] in pixels to corners in [0, 1]."""
  x, y, width, height = box
  ends = (x, y, x + width, y + height)
  scales = [max(scale, 1) for scale in (*size, *size)]
  return tuple(min(max(a / b, 0.0), 1.0) for a, b in zip(ends, scales))


def _sound(corners: Corners) -> bool:
  left, top, right, bottom = corners
  return left < right and top < bottom


def _line(text: str) -> str:
  """A caption or name is one line: the next line is the next one."""
  return " ".join(text.split())


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
  return tuple(line for line in map(_line, texts) if line)


def _tell(path: str, count: int, what: str) -> None:
  if count:
    log.warning("%s: %d %s are left out.", path, count, what)
