"""glTF 2.0 in its binary form (.glb): the meshes of a scene.

  "glTF" 2 length | length "JSON" {...} | length "BIN" bytes

The JSON names nodes, which place meshes; their primitives are triangles whose
corners are in accessors, which are typed windows on the bytes:

  scene -> node, child node, ... -> mesh -> primitive -> accessor -> view

Shapes are taken as they are stored: skins, morph targets and animations move
nothing.
"""

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmjax.data.document import BadSample
from mmjax.data.meshes import mesh
from mmjax.data.meshes.mesh import Mesh
from mmjax.typing import Float, Int

# The JSON alone: lists of nothing weigh thirty times as much when read.
MAX_JSON = 16 * 2**20
# Nodes that are passed, and primitives that are placed.
MAX_NODES = MAX_PARTS = 50_000
# Vertices and corners that are read, over and over if a mesh is in many places.
MAX_VALUES = mesh.MAX_VERTICES + mesh.MAX_CORNERS
JSON, BIN = 0x4E4F534A, 0x004E4942
MIN_TURN = 1e-6
COMPONENTS = {
  5120: "<i1",
  5121: "<u1",
  5122: "<i2",
  5123: "<u2",
  5125: "<u4",
  5126: "<f4",
}
WIDTHS = {"SCALAR": 1, "VEC3": 3}
POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6
LINES = (1, 2, 3)
# Extensions that a file may require: they are about looks, or about types of
# numbers that are read anyway.
HARMLESS = (
  "KHR_materials_",
  "KHR_texture_",
  "EXT_texture_",
  "KHR_lights_",
  "KHR_mesh_quantization",
)


def read(data: bytes, name: str) -> Mesh:
  """What the file's scene shows: its triangles, or if it has none its points.

  Of several scenes the one is taken that the file says, or the first. Lines
  are left out. Transforms of nodes are applied.

  Raises:
    BadSample: for damaged files, for geometry that is compressed (Draco,
      meshopt) or in another file, and for nodes that are no tree.
  """
  file = _File(data, name)
  surfaces, clouds, vertices, triangles, parts = [], [], 0, 0, 0
  for node, matrix in file.placed():
    entry = file.item("meshes", node["mesh"])
    for primitive in file.entries(entry, "primitives"):
      parts += 1
      mesh.check_count(parts, MAX_PARTS, "parts", name)
      part = file.primitive(primitive)
      if part is None:
        continue
      vertices += len(part.vertices)
      triangles += len(part.triangles)
      mesh.check_count(vertices, mesh.MAX_VERTICES, "vertices", name)
      mesh.check_count(triangles, mesh.MAX_TRIANGLES, "triangles", name)
      moved = part.vertices @ matrix[:3, :3].T + matrix[:3, 3]
      to = surfaces if len(part.triangles) else clouds
      to.append(Mesh(moved, part.triangles))
  if not surfaces and not clouds:
    raise file.bad("shows no triangles and no points")
  return _join(surfaces or clouds)


def _join(meshes: list[Mesh]) -> Mesh:
  sizes = [len(m.vertices) for m in meshes]
  starts = np.cumsum([0, *sizes[:-1]])
  return Mesh(
    np.concatenate([m.vertices for m in meshes]),
    np.concatenate([m.triangles + at for m, at in zip(meshes, starts)]),
  )


def _shown(value: Any) -> str:
  """For a message: of what may be as large as the file, only its kind."""
  if isinstance(value, list | dict):
    return f"a {type(value).__name__} of {len(value)}"
  return f"{value!r:.80}"


class _File:
  """A file, whose parts are looked up with checks.

  Attributes:
    document: the JSON.
    binary: the bytes behind it.
    buffers: those that were looked up.
    values: how many were read.
  """

  def __init__(self, data: bytes, name: str):
    self.name = name
    chunks = self._chunks(data)
    self.binary = chunks.get(BIN, b"")
    self.buffers: dict[int, bytes] = {}
    self.values = 0
    text = chunks.get(JSON)
    if text is None:
      raise self.bad("is a glTF binary without JSON")
    mesh.check_count(len(text), MAX_JSON, "bytes of JSON", name)
    try:
      self.document = json.loads(text)
    except (ValueError, RecursionError) as error:
      raise self.bad(f"has JSON that cannot be read: {error}") from error
    if not isinstance(self.document, dict):
      raise self.bad("has JSON that is no object")
    for extension in self.entries(self.document, "extensionsRequired"):
      if not isinstance(extension, str) or not extension.startswith(HARMLESS):
        raise self.bad(f"requires the extension {_shown(extension)}")

  def bad(self, what: str) -> BadSample:
    return BadSample(f"{self.name} {what}.")

  def _chunks(self, data: bytes) -> dict[int, bytes]:
    """The first of each kind."""
    if len(data) < 12:
      raise self.bad(f"is cut after {len(data)} bytes")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2 or length > len(data):
      raise self.bad(
        f"says version {version} and {length} bytes, expected 2 and its "
        f"{len(data)}"
      )
    chunks: dict[int, bytes] = {}
    at = 12
    while at + 8 <= length:
      size, kind = struct.unpack_from("<II", data, at)
      at += 8
      if size > length - at:
        raise self.bad(f"has a chunk of {size} bytes where {length - at} are")
      if kind in (JSON, BIN):
        chunks.setdefault(kind, data[at : at + size])
      at += size
    return chunks

  def entries(self, entry: dict, key: str) -> list:
    found = entry.get(key, [])
    if not isinstance(found, list):
      raise self.bad(f"has {key} {_shown(found)}, expected a list")
    return found

  def item(self, key: str, index: Any) -> dict:
    """An entry of a list of the document."""
    found = self.entries(self.document, key)
    if type(index) is not int or not 0 <= index < len(found):
      raise self.bad(f"has {len(found)} {key}, and names {_shown(index)}")
    return self.object(found[index], f"{key} {index}")

  def object(self, entry: Any, what: str) -> dict:
    if not isinstance(entry, dict):
      raise self.bad(f"has {what} as {_shown(entry)}, expected an object")
    return entry

  def whole(self, entry: dict, key: str, default: int | None = None) -> int:
    found = entry.get(key, default)
    if type(found) is not int or not 0 <= found < 2**32:
      raise self.bad(f"has {key} {_shown(found)}, expected a whole number")
    return found

  def numbers(self, node: dict, key: str, default: list[float]) -> np.ndarray:
    found = self.entries(node, key) if key in node else default
    if len(found) != len(default) or not all(
      type(x) in (int, float) and abs(x) < 1e38 for x in found
    ):
      raise self.bad(
        f"has a node with {key} as {_shown(found)}, expected {len(default)} "
        "numbers"
      )
    return np.array(found, np.float64)

  def placed(self) -> Iterator[tuple[dict, Float[np.ndarray, "4 4"]]]:
    """Nodes of the scene that have a mesh, and where they put it."""
    passed: set[int] = set()
    waiting = [(number, np.eye(4)) for number in self._roots()]
    while waiting:
      number, above = waiting.pop()
      node = self.item("nodes", number)
      if number in passed:
        raise self.bad(f"has the node {number} in a circle or in two places")
      passed.add(number)
      matrix = above @ self._transform(node)
      if "mesh" in node:
        yield node, matrix
      children = self.entries(node, "children")
      count = len(passed) + len(waiting) + len(children)
      mesh.check_count(count, MAX_NODES, "nodes", self.name)
      waiting += [(child, matrix) for child in children]

  def _roots(self) -> list:
    if self.entries(self.document, "scenes"):
      scene = self.item("scenes", self.document.get("scene", 0))
      roots = self.entries(scene, "nodes")
    else:
      nodes = self.entries(self.document, "nodes")
      mesh.check_count(len(nodes), MAX_NODES, "nodes", self.name)
      children: list = []
      for i in range(len(nodes)):
        children += self.entries(self.item("nodes", i), "children")
      # Whatever else a list may hold is no number of a node.
      below = {child for child in children if type(child) is int}
      roots = [i for i in range(len(nodes)) if i not in below]
    mesh.check_count(len(roots), MAX_NODES, "nodes", self.name)
    return roots

  def _transform(self, node: dict) -> Float[np.ndarray, "4 4"]:
    """From a node's coordinates to those of the node above."""
    if "matrix" in node:
      # Column by column.
      matrix = self.numbers(node, "matrix", [0.0] * 16)
      return matrix.reshape(4, 4).T
    out = np.eye(4)
    if "rotation" in node:
      turn = self.numbers(node, "rotation", [0.0] * 4)
      # Squares of what is smaller still are no longer exact, or zero.
      if np.abs(turn).max() < MIN_TURN:
        raise self.bad(
          f"has a node with the rotation {turn.tolist()}, expected a "
          "quaternion of length 1"
        )
      # Takes half a second to import, in every process that reads anything.
      from scipy.spatial.transform import Rotation

      out[:3, :3] = Rotation.from_quat(turn).as_matrix()
    out[:3, :3] *= self.numbers(node, "scale", [1.0] * 3)
    out[:3, 3] = self.numbers(node, "translation", [0.0] * 3)
    return out

  def primitive(self, primitive: Any) -> Mesh | None:
    """Triangles, or without any points; None for what is neither."""
    entry = self.object(primitive, "a primitive")
    mode = self.whole(entry, "mode", TRIANGLES)
    if mode in LINES:
      return None
    attributes = self.object(entry.get("attributes"), "attributes")
    vertices = self._positions(attributes.get("POSITION"))
    if "indices" in entry:
      order = self._indices(entry["indices"])
      mesh.check_range(order, len(vertices), self.name)
    else:
      order = np.arange(len(vertices))
    if mode == POINTS:
      return Mesh(vertices[order], np.zeros((0, 3), np.int64))
    triangles = self._triangles(order, mode)
    return Mesh(vertices, triangles) if len(triangles) else None

  def _triangles(
    self, order: Int[np.ndarray, "corners"], mode: int
  ) -> Int[np.ndarray, "triangles 3"]:
    if mode == TRIANGLES:
      if len(order) % 3:
        raise self.bad(f"has triangles of {len(order)} corners together")
      return order.reshape(-1, 3)
    if mode not in (STRIP, FAN):
      raise self.bad(f"has a primitive of mode {mode}, expected 0 to 6")
    second, third = order[1:-1], order[2:]
    first = order[:1].repeat(len(third)) if mode == FAN else order[:-2]
    return np.stack([first, second, third], axis=-1)

  def _positions(self, index: Any) -> Float[np.ndarray, "vertices 3"]:
    found = self._accessor(index, "VEC3", mesh.MAX_VERTICES)
    values = found.astype(np.float64)
    if found.dtype.kind in "iu" and self.item("accessors", index).get(
      "normalized"
    ):
      values = np.maximum(values / np.iinfo(found.dtype).max, -1.0)
    return values

  def _indices(self, index: Any) -> Int[np.ndarray, "corners"]:
    found = self._accessor(index, "SCALAR", mesh.MAX_CORNERS)
    if found.dtype.kind != "u":
      raise self.bad(f"has indices of type {found.dtype}, expected unsigned")
    return found[:, 0].astype(np.int64)

  def _accessor(self, index: Any, kind: str, cap: int) -> np.ndarray:
    """A window on a buffer, [count width]."""
    entry = self.item("accessors", index)
    if "sparse" in entry or "bufferView" not in entry:
      raise self.bad(
        f"has accessor {index} sparse or without bytes of its own (geometry "
        "that is compressed?), which is not read"
      )
    count = self.whole(entry, "count")
    mesh.check_count(count, cap, f"values in accessor {index}", self.name)
    self.values += count
    mesh.check_count(self.values, MAX_VALUES, "values to read", self.name)
    code = self.whole(entry, "componentType")
    if entry.get("type") != kind or code not in COMPONENTS:
      raise self.bad(
        f"has accessor {index} of type {_shown(entry.get('type'))} and "
        f"component {code}, expected {kind} and one of {list(COMPONENTS)}"
      )
    dtype, width = np.dtype(COMPONENTS[code]), WIDTHS[kind]
    view = self.item("bufferViews", entry["bufferView"])
    size = dtype.itemsize * width
    # 0 in the wild stands for none.
    stride = self.whole(view, "byteStride", 0) or size
    start = self.whole(entry, "byteOffset", 0)
    data = self._bytes(view)
    if stride < size or start + stride * (count - 1) + size > len(data):
      raise self.bad(
        f"has accessor {index} of {count} times {size} bytes, {stride} apart "
        f"and from {start} on, in a view of {len(data)}"
      )
    strides = (stride, dtype.itemsize)
    return np.ndarray((count, width), dtype, data, start, strides)

  def _bytes(self, view: dict) -> memoryview:
    """Of a view of a buffer."""
    data = self._buffer(view.get("buffer"))
    start = self.whole(view, "byteOffset", 0)
    size = self.whole(view, "byteLength")
    if start + size > len(data):
      raise self.bad(
        f"has a view of {size} bytes from {start} on, in a buffer of "
        f"{len(data)}"
      )
    return memoryview(data)[start : start + size]

  def _buffer(self, index: Any) -> bytes:
    """Bytes that are inside the file, and never elsewhere."""
    entry = self.item("buffers", index)
    if index in self.buffers:
      return self.buffers[index]
    data, uri = self.binary, entry.get("uri")
    if uri is None and index:
      raise self.bad(f"has buffer {index} without bytes")
    if uri is not None:
      head, mark, text = str(uri).partition(";base64,")
      if not head.startswith("data:") or not mark:
        raise self.bad(
          f"has a buffer at {_shown(uri)}; only those inside a file are read"
        )
      try:
        data = base64.b64decode(text, validate=True)
      except (binascii.Error, ValueError) as error:
        raise self.bad(f"has a buffer that is no base64: {error}") from error
    size = self.whole(entry, "byteLength")
    if size > len(data):
      raise self.bad(f"has a buffer of {size} bytes, {len(data)} are there")
    self.buffers[index] = data[:size]
    return self.buffers[index]
