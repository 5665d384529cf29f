"""Furniture and other things of Sweet Home 3D: points, and a picture."""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.data import image, points
from mmjax.data.document import BadSample
from mmjax.data.drawn_chat import main_colour
from mmjax.data.real.item import Archive, Item, Package, RealSet

VERSION = "1.8-1"
POINTS = 8192
_FOLDER = "usr/share/sweethome3d/furniture/"
_DOC = "usr/share/doc/sweethome3d-furniture/copyright"
_CATALOG = "PluginFurnitureCatalog.properties"
_ENTRY = re.compile(r"(\w+)#(\d+)\s*=\s*(.*)")
# Height by the larger of width and depth.
_LOW, _TALL = 0.5, 1.5
# Tags that tell where a model is from, and nothing about it.
_ORIGINS = {"Blend Swap", "SCPTS"}


def items(archives: Mapping[str, Archive]) -> Iterator[Item]:
  models = archives["models"]
  for path in models.names(_FOLDER, ".sh3f"):
    catalog = zipfile.ZipFile(io.BytesIO(models.read(path)))
    for entry in entries(catalog.read(_CATALOG)):
      yield from _both(catalog, entry)


def entries(data: bytes) -> list[dict[str, str]]:
  """The things of a catalog, which is a file of Java's properties.

  name#1=Washbasin        ->  [{"name": "Washbasin",
  category#1=Bathroom           "category": "Bathroom"}]
  """
  found: dict[int, dict[str, str]] = {}
  for line in data.decode("latin-1").splitlines():
    if match := _ENTRY.fullmatch(line.strip()):
      key, number, value = match.groups()
      found.setdefault(int(number), {})[key] = _unescaped(value)
  return [found[number] for number in sorted(found)]


def _unescaped(value: str) -> str:
  return re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), value)


def _both(catalog: zipfile.ZipFile, entry: Mapping[str, str]) -> Iterator[Item]:
  tags = [t.strip().lower() for t in entry["tags"].split(",") if t.strip()]
  name, category = entry["name"].lower(), entry["category"].lower()
  key = re.sub(r"[# ]", "-", entry["id"]).lower()
  shared: dict[str, Any] = dict(
    name=name,
    category=category,
    object=entry["id"],
  )
  form = shape(*(float(entry[k]) for k in ("width", "depth", "height")))
  attributes = {
    "shape": form,
    "tags": [t for t in tags if t not in map(str.lower, _ORIGINS)],
    "creator": entry["creator"],
  }
  yield Item(
    id=f"points/{key}",
    file=f"points/{key}.npy",
    kind="points",
    caption=f"a 3d model, {form}, {category}: {name}",
    make=lambda: sampled(catalog, entry),
    attributes=attributes,
    **shared,
  )
  yield Item(
    id=f"image/{key}",
    file=f"image/{key}.png",
    kind="image",
    caption=f"a picture, {category}: {name}",
    make=lambda: catalog.read(entry["icon"].lstrip("/")),
    look=lambda data: {"colour": main_colour(image.decode(data))},
    attributes=attributes,
    **shared,
  )


def shape(width: float, depth: float, height: float) -> str:
  """Of a thing of that size: "tall", "low" or "even"."""
  ratio = height / max(width, depth)
  return "tall" if ratio > _TALL else "low" if ratio < _LOW else "even"


def sampled(catalog: zipfile.ZipFile, entry: Mapping[str, str]) -> bytes:
  """The points of a model, upright: y goes up."""
  name = entry["model"].lstrip("/")
  cloud = points.decode(catalog.read(name), POINTS, name=name)
  if "modelRotation" in entry:
    cloud = cloud @ rotation(entry["modelRotation"], name).T
  data = io.BytesIO()
  np.save(data, cloud.astype(np.float16), allow_pickle=False)
  return data.getvalue()


def rotation(text: str, name: str) -> np.ndarray:
  """A matrix [3 3] of nine numbers, row by row."""
  try:
    return np.array(text.split(), np.float32).reshape(3, 3)
  except ValueError:
    raise BadSample(f"{name}: modelRotation is {text!r:.80}.") from None


FURNITURE = RealSet(
  packages={
    "models": Package(
      *("apt", "sweethome3d-furniture", VERSION),
      f"sweethome3d-furniture_{VERSION}_all.deb",
      "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
    )
  },
  items=items,
  licenses={"models": (_DOC,)},
  notice="""# Furniture

Models and renderings of Sweet Home 3D's catalogs:

| `object` begins with | by | licence |
|---|---|---|
| `Scopia` | Scopia Visual Interfaces Systems, s.l. | CC-BY-3.0 |
| `Kator Legaz` | Andrew Kator and Jennifer Legaz | CC-BY-3.0 US |
| `Reallusion` | Reallusion | CC-BY-3.0 US |
| `Blend Swap CC-BY` | the contributors of Blend Swap | CC-BY-3.0 |
| `Blend Swap CC-0` | Emmanuel Puybaret / eTeks and others | CC0-1.0 |

Catalogs by Emmanuel Puybaret / eTeks. `creator` in `items.jsonl` names the
author of each model. The licences are in `licenses/`.

Of each model 8,192 points of the surface are kept, turned upright, moved to
mean 0 and scaled into the unit sphere, as half-precision numbers. Pictures
are unchanged. Names and categories are in lower case; shapes and the split
are mmjax's.
""",
)
