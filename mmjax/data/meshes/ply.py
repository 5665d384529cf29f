"""Polygon files (PLY): vertices, and faces of any number of corners.

ply                                      elements come in this order
format binary_little_endian 1.0
element vertex 8
property float x
...
element face 6
property list uchar int vertex_indices   a count, then so many numbers
end_header
"""

import dataclasses
import struct
from array import array
from collections.abc import Iterator

import numpy as np

from mmjax.data.document import BadSample
from mmjax.data.meshes import mesh
from mmjax.data.meshes.mesh import Mesh
from mmjax.typing import Float, Int

MAX_HEADER = 2**16
# Values and lists that are looked at one by one.
MAX_WALKED = 5_000_000
# Some files name types by their bits, others by C's names.
TYPES = {
  **dict.fromkeys(("char", "int8"), "i1"),
  **dict.fromkeys(("uchar", "uint8"), "u1"),
  **dict.fromkeys(("short", "int16"), "i2"),
  **dict.fromkeys(("ushort", "uint16"), "u2"),
  **dict.fromkeys(("int", "int32"), "i4"),
  **dict.fromkeys(("uint", "uint32"), "u4"),
  **dict.fromkeys(("float", "float32"), "f4"),
  **dict.fromkeys(("double", "float64"), "f8"),
}
ORDERS = {
  "ascii": "",
  "binary_little_endian": "<",
  "binary_big_endian": ">",
}
CORNERS = ("vertex_indices", "vertex_index")
# Lengths of all rows' lists, and what these hold.
Lists = tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "_"]]


@dataclasses.dataclass(frozen=True)
class Property:
  """A value, or a list of them with its length before it.

  Attributes:
    length: the type of that length; None for a single value.
  """

  name: str
  dtype: np.dtype
  length: np.dtype | None = None


@dataclasses.dataclass
class Element:
  """So many rows of the same properties."""

  name: str
  count: int
  properties: list[Property] = dataclasses.field(default_factory=list)

  @property
  def has_lists(self) -> bool:
    return any(p.length is not None for p in self.properties)

  def index(self, *names: str) -> int:
    """Which property is the first of these names, or -1."""
    found = [p.name for p in self.properties]
    return next((found.index(n) for n in names if n in found), -1)


def read(data: bytes, name: str) -> Mesh:
  """The mesh, or without faces the cloud."""
  elements, order, start = _header(data, name)
  body = (_Binary if order else _Ascii)(data, start, order, name)
  vertices = faces = None
  for element in elements:
    if element.name == "vertex":
      vertices = body.values(element, _coordinates(element, name))
    elif element.name == "face" and element.count:
      faces = body.lists(element, _corners(element, name))
    elif element.name == "tristrips" and element.count:
      raise BadSample(f"{name} has strips of triangles, expected faces.")
    elif element.has_lists:
      body.lists(element, -1)
    else:
      body.values(element, [])
  if vertices is None:
    raise BadSample(f"{name} is a PLY without the element vertex.")
  if faces is None:
    return Mesh(vertices, np.zeros((0, 3), np.int64))
  return mesh.polygons(vertices, *faces, name)


def _coordinates(element: Element, name: str) -> list[int]:
  found = [element.index(axis) for axis in "xyz"]
  if -1 in found or element.has_lists:
    raise BadSample(
      f"{name} has vertices of {[p.name for p in element.properties]!r:.200}, "
      "expected the values x, y and z among them, and no list."
    )
  return found


def _corners(element: Element, name: str) -> int:
  found = element.index(*CORNERS)
  wanted = element.properties[found] if found >= 0 else None
  if not wanted or wanted.length is None or wanted.dtype.kind == "f":
    raise BadSample(
      f"{name} has faces without a list {CORNERS[0]} of integers."
    )
  return found


def _header(data: bytes, name: str) -> tuple[list[Element], str, int]:
  """Elements, byte order ("" for text), and where the rows start."""
  newline = next(n for n in (b"\r\n", b"\r", b"\n") if data[3:].startswith(n))
  end = newline + b"end_header" + newline
  head, found, _ = data[:MAX_HEADER].partition(end)
  if not found:
    raise BadSample(
      f"{name} is a PLY without end_header in its first {MAX_HEADER} bytes."
    )
  elements: list[Element] = []
  order = None
  for line in head.split(newline)[1:]:
    try:
      match line.decode("latin-1").split():
        case ["format", form, "1.0"] if order is None:
          order = ORDERS[form]
        case ["element", kind, count]:
          elements.append(_element(elements, kind, int(count), name))
        case ["property", *words]:
          elements[-1].properties.append(_property(words, order))
        case ["comment" | "obj_info", *_] | []:
          pass
        case _:
          raise KeyError(line)
    # An unknown type, a count that is no number, a property of no element, a
    # type before the format.
    except (KeyError, IndexError, TypeError) as error:
      raise _bad_line(line, name) from error
    except ValueError as error:
      if isinstance(error, BadSample):
        raise
      raise _bad_line(line, name) from error
  if order is None:
    raise BadSample(f"{name} is a PLY that says no format.")
  return elements, order, len(head) + len(end)


def _bad_line(line: bytes, name: str) -> BadSample:
  return BadSample(f"{name} is a PLY whose header has the line {line[:60]!r}.")


def _element(
  others: list[Element], kind: str, count: int, name: str
) -> Element:
  mesh.check_count(count, mesh.MAX_VERTICES, f"rows of {kind!r:.40}", name)
  if count < 0 or kind in [e.name for e in others]:
    raise ValueError(count)
  return Element(kind, count)


def _property(words: list[str], order: str | None) -> Property:
  match words:
    case ["list", length, kind, what] if TYPES[length][0] != "f":
      dtypes = (order + TYPES[kind], order + TYPES[length])
      return Property(what, *map(np.dtype, dtypes))
    case [kind, what]:
      return Property(what, np.dtype(order + TYPES[kind]))
  raise KeyError(words[0])


class _Ascii:
  """Rows as lines of text."""

  def __init__(self, data: bytes, at: int, order: str, name: str):
    del order
    self.name = name
    self.lines = mesh.text_lines(data, name, at)

  def values(
    self, element: Element, wanted: list[int]
  ) -> Float[np.ndarray, "rows _"]:
    """Columns of an element without lists."""
    out, width = array("d"), len(element.properties)
    for words in self._rows(element):
      if len(words) != width:
        raise self._bad(element, words)
      try:
        out.extend([float(words[i]) for i in wanted])
      except ValueError as error:
        raise self._bad(element, words) from error
    return np.array(out).reshape(element.count, len(wanted))

  def lists(self, element: Element, wanted: int) -> Lists:
    """A property of an element with lists."""
    sizes, items = array("q"), array("q")
    for words in self._rows(element):
      try:
        at = 0
        for i, p in enumerate(element.properties):
          n = 1
          if p.length is not None:
            n, at = int(words[at]), at + 1
          if not 0 <= n <= len(words) - at:
            raise IndexError(n)
          if i == wanted:
            sizes.append(n)
            items.extend([int(word) for word in words[at : at + n]])
          at += n
        if at != len(words):
          raise IndexError(at)
      except (ValueError, IndexError, OverflowError) as error:
        raise self._bad(element, words) from error
      mesh.check_count(len(items), mesh.MAX_CORNERS, "corners", self.name)
    return np.array(sizes, np.int64), np.array(items, np.int64)

  def _rows(self, element: Element) -> Iterator[list[bytes]]:
    for i in range(element.count):
      _, words = next(self.lines, (0, None))
      if words is None:
        raise BadSample(
          f"{self.name} ends after {i} of {element.count} rows of "
          f"{element.name!r:.40}."
        )
      yield words

  def _bad(self, element: Element, words: list[bytes]) -> BadSample:
    shown = b" ".join(words)[:60]
    return BadSample(
      f"{self.name}: {shown!r} is no row of the element {element.name!r:.40}."
    )


class _Binary:
  """Rows as bytes, one behind the other."""

  def __init__(self, data: bytes, at: int, order: str, name: str):
    self.data, self.at, self.order, self.name = data, at, order, name

  def values(
    self, element: Element, wanted: list[int]
  ) -> Float[np.ndarray, "rows _"]:
    """Columns of an element without lists."""
    dtype = np.dtype([("", p.dtype) for p in element.properties])
    size = element.count * dtype.itemsize
    if size > len(self.data) - self.at:
      raise self._short(element)
    rows = np.ndarray(element.count, dtype, self.data, self.at)
    self.at += size
    out = np.empty((element.count, len(wanted)))
    for i, column in enumerate(wanted):
      out[:, i] = rows[f"f{column}"]
    return out

  def lists(self, element: Element, wanted: int) -> Lists:
    """A property of an element with lists."""
    if not element.count:
      return np.empty(0, np.int64), np.empty(0, np.int64)
    alike = self._alike(element, wanted)
    return self._one_by_one(element, wanted) if alike is None else alike

  def _alike(self, element: Element, wanted: int) -> Lists | None:
    """All at once, where all rows have lists as long as those of the first."""
    spans, end = self._row(element, self.at)
    size = element.count * (end - self.at)
    if size > len(self.data) - self.at:
      return None
    fields = []
    for i, p in enumerate(element.properties):
      if p.length is not None:
        fields.append((f"length {i}", p.length))
      fields.append((f"{i}", p.dtype, (spans[i][1],)))
    rows = np.ndarray(element.count, np.dtype(fields), self.data, self.at)
    for i, p in enumerate(element.properties):
      if p.length is not None and (rows[f"length {i}"] != spans[i][1]).any():
        return None
    self.at += size
    if wanted < 0:
      return np.empty(0, np.int64), np.empty(0, np.int64)
    items = rows[f"{wanted}"]
    mesh.check_count(items.size, mesh.MAX_CORNERS, "corners", self.name)
    return (
      np.full(element.count, spans[wanted][1]),
      items.ravel().astype(np.int64),
    )

  def _one_by_one(self, element: Element, wanted: int) -> Lists:
    mesh.check_count(
      element.count * len(element.properties),
      MAX_WALKED,
      f"values in rows of {element.name!r:.40} with lists",
      self.name,
    )
    sizes, items = array("q"), array("q")
    for _ in range(element.count):
      spans, self.at = self._row(element, self.at)
      if wanted >= 0:
        start, n = spans[wanted]
        count = len(items) + n
        mesh.check_count(count, mesh.MAX_CORNERS, "corners", self.name)
        form = f"{self.order}{n}{element.properties[wanted].dtype.char}"
        items.extend(struct.unpack_from(form, self.data, start))
        sizes.append(n)
    return np.array(sizes, np.int64), np.array(items, np.int64)

  def _row(
    self, element: Element, at: int
  ) -> tuple[list[tuple[int, int]], int]:
    """Start and length of each property of a row, and the row's end."""
    spans = []
    for p in element.properties:
      n = 1
      if p.length is not None:
        if at + p.length.itemsize > len(self.data):
          raise self._short(element)
        (n,) = struct.unpack_from(self.order + p.length.char, self.data, at)
        at += p.length.itemsize
      if n < 0:
        raise BadSample(
          f"{self.name} has a list of {n} values in {element.name!r:.40}."
        )
      spans.append((at, n))
      at += n * p.dtype.itemsize
    if at > len(self.data):
      raise self._short(element)
    return spans, at

  def _short(self, element: Element) -> BadSample:
    return BadSample(
      f"{self.name} ends within the {element.count} rows of "
      f"{element.name!r:.40}: it has {len(self.data)} bytes."
    )
