"""A box in each format that 3D shapes are read from, for tests.

Its sides are 1, 2 and 3 long, so that its faces have three areas.
"""

import io
import json
import struct

import numpy as np

from mmjax.data.meshes.mesh import Mesh

LITTLE, BIG = "binary_little_endian", "binary_big_endian"
VERTICES = np.array(
  [[x, y, z] for x in (0, 1) for y in (0, 2) for z in (0, 3)], np.float32
)
FACES = (
  *((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1)),
  *((2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)),
)
TRIANGLES = np.array(
  [t for a, b, c, d in FACES for t in ((a, b, c), (a, c, d))]
)


def npy(values, version=None) -> bytes:
  data = io.BytesIO()
  np.lib.format.write_array(data, np.asarray(values), version=version)
  return data.getvalue()


def npz(packed=True, **arrays) -> bytes:
  data = io.BytesIO()
  (np.savez_compressed if packed else np.savez)(data, **arrays)
  return data.getvalue()


def text(*lines: str) -> bytes:
  return ("\n".join(lines) + "\n").encode()


def obj(vertices=VERTICES, faces=FACES) -> bytes:
  return text(
    *(f"v {x} {y} {z}" for x, y, z in vertices),
    *("f " + " ".join(str(i + 1) for i in face) for face in faces),
  )


def ply_header(
  form="ascii", vertices=8, faces=6, axis="float", more=()
) -> bytes:
  """Up to the rows; `faces` of None leaves that element out."""
  last = [f"element face {faces}", "property list uchar int vertex_indices"]
  return text(
    *("ply", f"format {form} 1.0", "comment a box"),
    f"element vertex {vertices}",
    *(f"property {axis} {name}" for name in "xyz"),
    *(*more, *(last if faces is not None else ()), "end_header"),
  )


def ply(form="ascii", vertices=VERTICES, faces=FACES) -> bytes:
  head = ply_header(form, len(vertices), None if faces is None else len(faces))
  faces = faces or ()
  if form == "ascii":
    return head + text(
      *(f"{x} {y} {z}" for x, y, z in vertices),
      *(" ".join(map(str, (len(face), *face))) for face in faces),
    )
  order = "<" if "little" in form else ">"
  rows = (struct.pack(f"{order}B{len(f)}i", len(f), *f) for f in faces)
  return head + vertices.astype(f"{order}f4").tobytes() + b"".join(rows)


def pack(document: dict | bytes, binary: bytes = b"") -> bytes:
  """A binary glTF of a document and the bytes behind it."""
  if isinstance(document, dict):
    document = json.dumps(document).encode()
  document += b" " * (-len(document) % 4)
  binary += b"\0" * (-len(binary) % 4)
  body = struct.pack("<II", len(document), 0x4E4F534A) + document
  if binary:
    body += struct.pack("<II", len(binary), 0x004E4942) + binary
  return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


BINARY = VERTICES.astype("<f4").tobytes() + TRIANGLES.astype("<u2").tobytes()


def document(**changes) -> dict:
  """Of the box in BINARY, on one node; with entries put instead of others."""
  return {
    "asset": {"version": "2.0"},
    "buffers": [{"byteLength": 168}],
    "bufferViews": [
      {"buffer": 0, "byteLength": 96},
      {"buffer": 0, "byteOffset": 96, "byteLength": 72},
    ],
    "accessors": [
      {"bufferView": 0, "componentType": 5126, "count": 8, "type": "VEC3"},
      {"bufferView": 1, "componentType": 5123, "count": 36, "type": "SCALAR"},
    ],
    "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
    "nodes": [{"mesh": 0}],
    "scenes": [{"nodes": [0]}],
    "scene": 0,
  } | changes


def glb(**changes) -> bytes:
  return pack(document(**changes), BINARY)


BOXES = {
  "obj": obj(),
  "ply": ply(),
  "little": ply(LITTLE),
  "big": ply(BIG),
  "glb": glb(),
}
CLOUDS = {
  "npy": npy(VERTICES),
  "npz": npz(arr_0=VERTICES, colours=VERTICES),
  "npz of one": npz(packed=False, points=VERTICES),
  "ply": ply(faces=None),
  "little": ply(LITTLE, faces=None),
  "big": ply(BIG, faces=None),
  "obj": obj(faces=()),
  "commas": b"".join(b"%g,%g,%g,0,0,1\n" % tuple(v) for v in VERTICES),
  "blanks": b"".join(b"%g %g %g\n" % tuple(v) for v in VERTICES),
  "glb": glb(
    meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]}]
  ),
}


def corners(mesh: Mesh) -> np.ndarray:
  """Of all triangles, in one order."""
  found = mesh.vertices[mesh.triangles]
  return np.array(sorted(map(tuple, found.reshape(-1, 9).round(5))))


BOX = corners(Mesh(VERTICES.astype(np.float64), TRIANGLES))
