import base64
import io
import struct
import zipfile

import numpy as np
import pytest

from mmjax.data import points
from mmjax.data.document import MAX_BYTES, BadSample
from mmjax.data.meshes.mesh import Mesh
from tests.data import shapes
from tests.data.shapes import (
  BIG,
  BOX,
  BOXES,
  CLOUDS,
  LITTLE,
  TRIANGLES,
  VERTICES,
  corners,
  glb,
  npy,
  npz,
  ply,
)
from tests.data.shapes import text as lines
from tests.hostile.watched import watched


@pytest.mark.parametrize("kind", BOXES)
def test_a_box_is_read(kind):
  np.testing.assert_array_equal(corners(points.read(BOXES[kind])), BOX)


@pytest.mark.parametrize("kind", CLOUDS)
def test_a_cloud_keeps_its_points(kind):
  mesh = points.read(CLOUDS[kind])
  assert not len(mesh.triangles)
  np.testing.assert_array_equal(mesh.vertices, VERTICES)


@pytest.mark.parametrize(
  "data, said",
  [
    (b"1,2,3\n4,5\n", "line 2: b'4 5'"),
    (b"1,2,3\n4,5,x\n", "line 2: b'4 5 x'"),
    (b"1 2 inf\n" * 5, "not finite"),
    (b"1 2 3\n", "has 1 points"),
    (b"1 2 3\n" * 9, "in one place"),
  ],
)
def test_damaged_lines_of_numbers(data, said):
  with pytest.raises(BadSample, match=said):
    points.decode(data)


@pytest.mark.parametrize(
  "values, version",
  [
    (np.asfortranarray(VERTICES), (1, 0)),
    (VERTICES.astype(">f8"), (2, 0)),
    (VERTICES.astype(np.float16), None),
    (VERTICES.astype(np.int64), None),
    (np.hstack([VERTICES, np.full((8, 3), np.nan)]), None),
  ],
)
def test_arrays_of_other_kinds(values, version):
  data = npy(values, version)
  np.testing.assert_array_equal(points.read(data).vertices, VERTICES)


def test_obj_as_programs_write_it():
  data = (
    b"\xef\xbb\xbf# made by hand\r\nmtllib /etc/passwd\r\no box\r\n"
    b"v 0 0 0 1.0\r\nv 1 0 0 0.5 0.5 0.5\r\nv 1 1 \\\r\n 0\r\nv 0 1 0\r\n"
    b"vt 0 0\r\nvn 0 0 1\r\nusemtl shiny\r\ns off\r\ng a b\r\n"
    b"f 1/1/1 2/1/1 3/1/1\r\nf -4//1 -2 4/1\r\n"
    b"v 0 0 5\r\nv 1 0 5\r\nv 1 1 5\r\nf -3 -2 -1\r\nl 1 2\r\nf 1 2\r\n"
  )
  with watched() as seen:
    mesh = points.read(data)
  assert not seen.forbidden
  np.testing.assert_array_equal(
    mesh.triangles, [[0, 1, 2], [0, 2, 3], [4, 5, 6]]
  )
  np.testing.assert_array_equal(mesh.vertices[2], (1, 1, 0))


@pytest.mark.parametrize("form", ["ascii", LITTLE, BIG])
def test_ply_with_faces_of_several_sizes_and_more_elements(form):
  head = lines(
    *("ply", f"format {form} 1.0", "comment caf\xc5", "obj_info x"),
    *("element note 2", "property list uchar short words", "property int8 n"),
    *("element vertex 5", "property uchar red", "property double z"),
    *("property float32 y", "property float x"),
    *("element face 3", "property uchar flag"),
    *("property list ushort uint vertex_index", "property list char float uv"),
    *("element edge 1", "property int a", "end_header"),
  )
  square = ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0.5, 2, 0))
  faces = ((0, 1, 2), (0, 2, 3), (0, 1, 2, 4, 3))
  if form == "ascii":
    body = lines(
      *("3 7 8 9 -1", "0 5"),
      *(f"255 {z} {y} {x}" for x, y, z in square),
      *(f"1 {len(f)} {' '.join(map(str, f))} 1 0.5" for f in faces),
      "4",
    )
  else:
    order = "<" if form == LITTLE else ">"
    body = struct.pack(f"{order}B3hbBb", 3, 7, 8, 9, -1, 0, 5)
    for x, y, z in square:
      body += struct.pack(f"{order}Bdff", 255, z, y, x)
    for f in faces:
      form = f"{order}BH{len(f)}Ibf"
      body += struct.pack(form, 1, len(f), *f, 1, 0.5)
    body += struct.pack(f"{order}i", 4)
  mesh = points.read(head + body)
  np.testing.assert_array_equal(mesh.vertices, square)
  expected = [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 2, 4], [0, 4, 3]]
  np.testing.assert_array_equal(mesh.triangles, expected)


def test_ply_with_the_line_ends_of_windows():
  head, body = ply(LITTLE).split(b"end_header\n")
  data = head.replace(b"\n", b"\r\n") + b"end_header\r\n" + body
  np.testing.assert_array_equal(corners(points.read(data)), BOX)


def placed(*nodes, **changes):
  """Vertices of the box where nodes put it."""
  changes.setdefault("scenes", [{"nodes": [0]}])
  return points.read(glb(nodes=list(nodes), **changes)).vertices


def test_nodes_place_a_mesh():
  half = np.sqrt(0.5)
  turn = {"rotation": [0, 0, half, half]}  # x to y, y to -x
  np.testing.assert_allclose(
    placed({"mesh": 0, **turn}), VERTICES[:, [1, 0, 2]] * (-1, 1, 1), atol=1e-6
  )
  whole = {"mesh": 0, "translation": [5, 6, 7], "scale": [2, 3, 4], **turn}
  np.testing.assert_allclose(
    placed(whole),
    (VERTICES * (2, 3, 4))[:, [1, 0, 2]] * (-1, 1, 1) + (5, 6, 7),
    atol=1e-5,
  )
  matrix = [0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 5, 6, 7, 1]
  np.testing.assert_allclose(
    placed({"mesh": 0, "matrix": matrix}),
    VERTICES[:, [1, 0, 2]] * (-1, 1, 1) + (5, 6, 7),
  )


def test_nodes_below_nodes():
  found = placed(
    {"translation": [1, 0, 0], "children": [1, 2]},
    {"scale": [2, 2, 2], "children": [3]},
    {"mesh": 0},
    {"mesh": 0, "translation": [0, 0, 1]},
    {"mesh": 0, "translation": [99, 99, 99]},  # in no scene
  )
  expected = (VERTICES + (1, 0, 0), (VERTICES + (0, 0, 1)) * 2 + (1, 0, 0))
  assert len(found) == 16
  one, other = sorted((found[:8], found[8:]), key=lambda x: x.max())
  np.testing.assert_allclose(one, expected[0])
  np.testing.assert_allclose(other, expected[1])


def test_scenes():
  nodes = [{"mesh": 0}, {"mesh": 0, "scale": [2, 2, 2]}]
  two = [{"nodes": [0]}, {"nodes": [1]}]
  found = placed(*nodes, scenes=two, scene=1)
  np.testing.assert_allclose(found, VERTICES * 2)
  # Without scenes, whatever is below nothing.
  nodes[0]["children"] = [1]
  assert len(placed(*nodes, scenes=[])) == 16


def test_parts_of_several_kinds():
  views = shapes.document()["bufferViews"]
  views.append({"buffer": 1, "byteLength": 4})
  accessors = shapes.document()["accessors"]
  accessors.append(
    {"bufferView": 2, "componentType": 5121, "count": 4, "type": "SCALAR"}
  )
  uri = base64.b64encode(bytes([0, 1, 2, 3])).decode()
  part = {"attributes": {"POSITION": 0}}
  primitives = [
    {**part, "indices": 2, "mode": 5},
    {**part, "indices": 2, "mode": 6},
    {**part, "mode": 1},
    {**part, "mode": 0},
  ]
  found = points.read(
    glb(
      meshes=[{"primitives": primitives}],
      bufferViews=views,
      accessors=accessors,
      buffers=[
        {"byteLength": 168},
        {"byteLength": 4, "uri": f"data:application/octet-stream;base64,{uri}"},
      ],
    )
  )
  expected = [[0, 1, 2], [1, 2, 3], [8, 9, 10], [8, 10, 11]]
  np.testing.assert_array_equal(found.triangles, expected)
  assert len(found.vertices) == 16


def test_triangles_without_indices_and_apart_in_the_buffer():
  rows = np.zeros((36, 5), "<f4")
  rows[:, 1:4] = VERTICES[TRIANGLES].reshape(-1, 3)
  found = points.read(
    shapes.pack(
      shapes.document(
        buffers=[{"byteLength": 720}],
        bufferViews=[{"buffer": 0, "byteLength": 720, "byteStride": 20}],
        accessors=[
          {
            **{"bufferView": 0, "componentType": 5126, "type": "VEC3"},
            **{"count": 36, "byteOffset": 4},
          }
        ],
        meshes=[{"primitives": [{"attributes": {"POSITION": 0}}]}],
      ),
      rows.tobytes(),
    )
  )
  np.testing.assert_array_equal(corners(found), BOX)


def test_quantized_vertices():
  values = (VERTICES / 3 * 127).astype("i1")
  found = points.read(
    shapes.pack(
      shapes.document(
        extensionsRequired=["KHR_mesh_quantization"],
        buffers=[{"byteLength": 24}],
        bufferViews=[{"buffer": 0, "byteLength": 24}],
        accessors=[
          {
            **{"bufferView": 0, "componentType": 5120, "type": "VEC3"},
            **{"count": 8, "normalized": True},
          }
        ],
        meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]}],
      ),
      values.tobytes(),
    )
  )
  np.testing.assert_allclose(found.vertices * 3, VERTICES, atol=0.03)


@pytest.mark.parametrize("kind", ["ply", "obj", "glb", "ascii"])
def test_files_of_another_program(kind):
  """As its writer has them, read as its reader does."""
  trimesh = pytest.importorskip("trimesh")
  ball = trimesh.creation.icosphere(2)
  more = {"encoding": "ascii"} if kind == "ascii" else {}
  kind = "ply" if kind == "ascii" else kind
  if kind == "glb":
    scene, turned = trimesh.Scene(), np.diag([1.0, 2, 3, 1])
    turned[:3, 3] = 4, 5, 6
    scene.add_geometry(ball)
    scene.add_geometry(ball, transform=turned)
    ball = scene
  data = ball.export(file_type=kind, **more)
  data = data.encode() if isinstance(data, str) else data
  theirs = trimesh.load(io.BytesIO(data), file_type=kind, process=False)
  theirs = theirs.to_mesh() if hasattr(theirs, "to_mesh") else theirs
  expected = corners(Mesh(np.array(theirs.vertices), np.array(theirs.faces)))
  np.testing.assert_allclose(corners(points.read(data)), expected, atol=2e-5)


def spoiled_lzma() -> bytes:
  data = io.BytesIO()
  with zipfile.ZipFile(data, "w", zipfile.ZIP_LZMA) as archive:
    archive.writestr("arr_0.npy", npy(np.random.default_rng(0).random((99, 3))))
  made = bytearray(data.getvalue())
  made[60:1060] = b"\xff" * 1000
  return bytes(made)


def zipped(**files: bytes) -> bytes:
  data = io.BytesIO()
  with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in files.items():
      archive.writestr(name.replace("__", "."), content)
  return data.getvalue()


def objects() -> bytes:
  data = io.BytesIO()
  np.savez(data, arr_0=np.array([{"x": 1}], object))
  return data.getvalue()


@pytest.mark.parametrize(
  "data, message",
  [
    (npz(a=VERTICES, b=VERTICES), "expected an array arr_0.npy"),
    (zipped(), "is no NumPy array"),
    (zipped(arr_0__npy=b"no array"), "is no NumPy array"),
    (zipped(arr_0__npy=npy(VERTICES)[:-8]), "96 bytes, 88 are there"),
    # Larger than a file may be, out of some ten kB.
    (zipped(arr_0__npy=bytes(MAX_BYTES["points"] + 1)), "at most"),
    (npz(arr_0=VERTICES)[:-30], "no sound archive"),
    (spoiled_lzma(), "no sound archive"),
    (npz(arr_0=VERTICES).replace(b"arr_0", b"arr_1", 1), "no sound archive"),
    (objects(), "expected numbers"),
  ],
)
def test_archives_that_are_none(data, message):
  with pytest.raises(BadSample, match=message):
    points.read(data)
