"""3D shapes that are damaged or lie: named, and nothing else happens."""

import contextlib

import numpy as np
import pytest

from mmjax.data import points
from mmjax.data.document import BadSample
from mmjax.data.meshes import glb as glb_files
from mmjax.data.meshes import mesh as meshes
from mmjax.data.meshes import obj as obj_files
from tests.data import shapes
from tests.data.mutations import damaged, spoiled
from tests.data.shapes import BIG, BOXES, LITTLE, VERTICES, glb, npy, obj, ply
from tests.data.shapes import text as lines
from tests.hostile.watched import watched


def nodes(*entries, roots=(0,)):
  return glb(nodes=list(entries), scenes=[{"nodes": list(roots)}])


def accessor(number=0, **changes):
  found = shapes.document()["accessors"]
  found[number] |= changes
  return glb(accessors=found)


def poisoned(value):
  out = VERTICES.copy()
  out[5, 1] = value
  return out


MANY = 4_000_000_000
VIEWS = shapes.document()["bufferViews"]
PRIMITIVE = {"attributes": {"POSITION": 0}, "indices": 1}
THREE = ("v 0 0 0", "v 1 0 0", "v 0 1 0")
# What it is, and what its error says.
HOSTILE = {
  "nothing": (b"", "0 bytes"),
  "text": (b"no shape at all", "line 1 begins with b'no'"),
  "bytes": (b"\x1f\x8b\0\0", "begin with"),
  "glTF as text": (b'{"asset": {}}', "line 1 begins with"),
  "a pickle": (npy(np.array([{}] * 4, object)), "array of object"),
  "a row": (npy(np.zeros(3)), r"shape \[3\]"),
  "two columns": (npy(np.zeros((9, 2))), r"shape \[9, 2\]"),
  "no rows": (npy(np.zeros((0, 3))), r"shape \[0, 3\]"),
  "complex": (npy(np.zeros((9, 3), complex)), "complex128"),
  "records": (npy(np.zeros(9, "f4,f4")), "expected numbers"),
  "cut array": (npy(VERTICES)[:-1], "96 bytes, 95 are there"),
  "array of billions": (
    npy(VERTICES).replace(b"(8, 3)", b"(9000000000, 3)"),
    "108000000000 bytes",
  ),
  "array header": (npy(VERTICES).replace(b"{", b"(" * 70), "no sound header"),
  "array version": (b"\x93NUMPY\x09\0\0\0", "no sound header"),
  "three points": (npy(np.eye(3)), "3 points, the least is 4"),
  "one place": (npy(np.full((9, 3), 0.1)), "in one place"),
  "nan": (npy(poisoned(np.nan)), "1 points that are not finite"),
  "infinite": (ply(LITTLE, poisoned(np.inf)), "1 points that are not finite"),
  "too large": (npy(VERTICES.astype(float) * 1e300), "not finite"),
  "nan in a mesh": (lines(*THREE, "v nan 0 0", "f 1 2 3"), "not finite"),
  "obj of no area": (lines(*THREE, "f 1 1 2"), "1 triangles, all .* no area"),
  "obj in a line": (lines("v 0 0 0", "v 1 1 1", "v 2 2 2", "f 1 2 3"), "area"),
  "obj corner": (lines(*THREE, "f 1 2 4"), "the first is 3, counted from 0"),
  "obj corner 0": (lines(*THREE, "f 0 1 2"), "line 4: b'f 0 1 2'"),
  "obj corner -4": (lines(*THREE, "f -4 1 2"), "line 4: b'f -4 1 2'"),
  "obj large corner": (lines(*THREE, f"f 1 2 {10**30}"), "line 4"),
  "obj word": (lines("v 0 zero 0"), "line 1: b'v 0 zero 0'"),
  "obj short": (lines("v 0 0"), "line 1: b'v 0 0'"),
  "obj command": (lines(*THREE, "csh rm -rf /"), "line 4 begins with b'csh'"),
  "obj call": (lines(*THREE, "call /etc/passwd"), "begins with b'call'"),
  "obj faces only": (lines("f 1 2 3"), "none of its 0 vertices"),
  "obj comment": (b"# nothing\n", "0 points"),
  "ply": (b"ply\n", "without end_header"),
  "ply without format": (b"ply\nend_header\n", "says no format"),
  "ply format": (
    b"ply\nformat binary 1.0\nend_header\n",
    "the line b'format binary 1.0'",
  ),
  "ply type": (shapes.ply_header(axis="string"), "b'property string x'"),
  "ply property first": (
    b"ply\nformat ascii 1.0\nproperty int x\nend_header\n",
    "b'property int x'",
  ),
  "ply negative": (shapes.ply_header(vertices=-8), "b'element vertex -8'"),
  "ply of billions": (shapes.ply_header(vertices=MANY), f"{MANY} rows"),
  "ply of many": (
    shapes.ply_header(LITTLE, 4_000_000),
    "ends within the 4000000 rows of 'vertex'",
  ),
  "ply text of many": (
    shapes.ply_header(vertices=4_000_000),
    "ends after 0 of 4000000 rows of 'vertex'",
  ),
  "ply of many faces": (
    ply(LITTLE).replace(b"face 6", b"face 4000000"),
    "ends within the 4000000 rows of 'face'",
  ),
  "ply of billions of faces": (
    ply(BIG).replace(b"face 6", b"face %d" % MANY),
    f"{MANY} rows of 'face'",
  ),
  "ply twice": (shapes.ply_header(more=["element vertex 9"]), "vertex 9"),
  "ply without vertices": (
    b"ply\nformat ascii 1.0\nend_header\n",
    "without the element vertex",
  ),
  "ply without z": (ply().replace(b" z\n", b" w\n"), r"\['x', 'y', 'w'\]"),
  "ply corners": (ply().replace(b"vertex_indices", b"x"), "without a list"),
  "ply faces of nothing": (
    ply().replace(b"property list", b"comment"),
    "without a list",
  ),
  "ply format last": (
    ply().replace(b"format", b"comment"),
    "the line b'property float x'",
  ),
  "ply fractions": (
    ply().replace(b"uchar int", b"uchar float"),
    "without a list",
  ),
  "ply length": (ply().replace(b"uchar int", b"float int"), "list float int"),
  "ply strips": (
    shapes.ply_header(
      vertices=0,
      faces=None,
      more=["element tristrips 1", "property list int int vertex_indices"],
    ),
    "strips",
  ),
  "ply cut text": (ply()[:-20], "ends after 4 of 6 rows"),
  "ply cut": (ply(LITTLE)[:-1], "ends within the 6 rows of 'face'"),
  "ply corner": (ply(faces=((0, 1, 8),)), "the first is 8"),
  "ply corner -1": (ply(LITTLE, faces=((0, 1, -1),)), "the first is -1"),
  "ply list": (
    ply().replace(b"4 0 1 3 2", b"9999999 0 1 3 2"),
    "b'9999999 0 1 3 2' is no row",
  ),
  "ply negative list": (
    ply(LITTLE, faces=((0,) * 200,)).replace(b"uchar int", b"char int"),
    "list of -56 values",
  ),
  "ply long list": (
    shapes.ply_header(LITTLE, 0, 1).replace(b"uchar int", b"uint int")
    + b"\xff\xff\xff\xff",
    "ends within the 1 rows",
  ),
  "glb": (b"glTF", "cut after 4 bytes"),
  "glb version": (b"glTF\1\0\0\0\x0c\0\0\0", "version 1"),
  "glb without JSON": (b"glTF\2\0\0\0\x0c\0\0\0", "without JSON"),
  "glb cut": (glb()[:-1], "bytes, expected 2 and its"),
  "glb chunk": (
    glb()[:12] + b"\xff\xff\xff\xff" + glb()[16:],
    "a chunk of 4294967295 bytes",
  ),
  "glb JSON": (shapes.pack(b"{no"), "JSON that cannot be read"),
  "glb deep JSON": (shapes.pack(b"[" * 100_000), "JSON that cannot be read"),
  "glb list": (shapes.pack(b"[]"), "no object"),
  "glb of nothing": (shapes.pack({}), "no triangles and no points"),
  "glb file": (
    glb(buffers=[{"byteLength": 168, "uri": "/etc/passwd"}]),
    "buffer at '/etc/passwd'",
  ),
  "glb host": (
    glb(buffers=[{"byteLength": 168, "uri": "http://127.0.0.1:9/x.bin"}]),
    "buffer at 'http://127.0.0.1:9/x.bin'",
  ),
  "glb base64": (
    glb(buffers=[{"byteLength": 168, "uri": "data:;base64,?"}]),
    "no base64",
  ),
  "glb buffer": (glb(buffers=[{"byteLength": 10**9}]), "1000000000 bytes"),
  "glb buffer 1": (
    glb(
      buffers=[{"byteLength": 168}] * 2,
      bufferViews=[{**VIEWS[0], "buffer": 1}, VIEWS[1]],
    ),
    "buffer 1 without bytes",
  ),
  "glb view": (
    glb(bufferViews=[{"buffer": 0, "byteLength": 169}, VIEWS[1]]),
    "view of 169 bytes",
  ),
  "glb overlap": (
    glb(bufferViews=[{**VIEWS[0], "byteStride": 4}, VIEWS[1]]),
    "8 times 12 bytes, 4 apart",
  ),
  "glb count": (accessor(count=9), "accessor 0 of 9 times 12 bytes"),
  "glb of billions": (accessor(count=MANY), f"{MANY} values in accessor 0"),
  "glb offset": (accessor(byteOffset=1), "accessor 0 of 8 times"),
  "glb type": (accessor(type="VEC4"), "type 'VEC4'"),
  "glb component": (accessor(componentType=5130), "component 5130"),
  "glb signed": (accessor(1, componentType=5122), "expected unsigned"),
  "glb sparse": (accessor(sparse={}), "accessor 0 sparse"),
  "glb corner": (accessor(1, byteOffset=-1), "byteOffset -1"),
  "glb corner 257": (
    accessor(1, componentType=5121, count=35),
    "triangles of 35 corners",
  ),
  "glb draco": (
    glb(extensionsRequired=["KHR_draco_mesh_compression"]),
    "requires the extension 'KHR_draco_mesh_compression'",
  ),
  "glb compressed": (
    glb(accessors=[{"componentType": 5126, "count": MANY, "type": "VEC3"}] * 2),
    "compressed",
  ),
  "glb mode": (
    glb(meshes=[{"primitives": [{**PRIMITIVE, "mode": 7}]}]),
    "mode 7",
  ),
  "glb circle": (
    nodes({"mesh": 0, "children": [1]}, {"children": [0]}),
    "node 0 in a circle",
  ),
  "glb all in a circle": (
    glb(nodes=[{"mesh": 0, "children": [0]}], scenes=[]),
    "no triangles and no points",
  ),
  "glb doubling": (
    nodes(*({"children": [i + 1] * 2} for i in range(40)), {"mesh": 0}),
    "in a circle or in two places",
  ),
  "glb many nodes": (nodes({"children": [0] * 60_000}), "60001 nodes"),
  "glb node": (nodes({"children": ["0"]}), "1 nodes, and names '0'"),
  "glb node 1e9": (nodes(roots=(10**9,)), "0 nodes, and names 1000000000"),
  "glb numbers": (nodes({"scale": [1, 2]}), "scale as a list of 2"),
  "glb nan": (nodes({"mesh": 0, "scale": [1, 2, np.nan]}), "scale"),
  "glb rotation": (nodes({"rotation": [0] * 4}), r"rotation \[0.0, 0.0"),
  "glb tiny rotation": (
    nodes({"rotation": [1e-200, 0, 0, 0]}),
    r"rotation \[1e-200, .* of length 1",
  ),
  "glb overflow": (
    nodes(
      *({"scale": [1e37] * 3, "children": [i + 1]} for i in range(30)),
      {"mesh": 0},
    ),
    "8 points that are not finite",
  ),
  "glb flat": (nodes({"mesh": 0, "scale": [1, 0, 0]}), "no area"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_named_errors(name):
  data, message = HOSTILE[name]
  with watched() as seen:
    with pytest.raises(BadSample, match="the_shape") as error:
      points.decode(data, name="the_shape")
    error.match(message)
  assert not seen.forbidden and not seen.written
  assert seen.grown < 100 * 2**20


@pytest.mark.parametrize("kind", ["npy", *BOXES])
def test_damaged_files_are_read_or_named(kind):
  for data in damaged({**BOXES, "npy": npy(VERTICES)}[kind], 400):
    try:
      out = points.decode(data, 16)
    except BadSample:
      continue
    assert out.shape == (16, 3) and np.isfinite(out).all()


def test_spoiled_documents_are_read_or_named():
  for _, document in spoiled(
    shapes.document(nodes=[{"mesh": 0, "scale": [1, 1, 1]}])
  ):
    try:
      data = shapes.pack(document, shapes.BINARY)
    except ValueError:  # json writes no number of 400 digits
      continue
    with contextlib.suppress(BadSample):
      points.decode(data, 16)


def test_caps(monkeypatch):
  monkeypatch.setattr(meshes, "MAX_TRIANGLES", 11)
  for kind in ("obj", "ply", "little", "glb"):
    with pytest.raises(BadSample, match="12 triangles, the cap is 11"):
      points.decode(BOXES[kind])
  monkeypatch.setattr(meshes, "MAX_VERTICES", 7)
  for kind in ("ply", "glb"):
    with pytest.raises(BadSample, match="8 .*, the cap is 7"):
      points.decode(BOXES[kind])
  monkeypatch.setattr(meshes, "MAX_LINE", 5)
  for kind in ("ply", "obj"):
    with pytest.raises(BadSample, match="bytes, the cap is 5|the cap is 7"):
      points.decode(BOXES[kind])
  monkeypatch.setattr(obj_files, "MAX_LINES", 9)
  with pytest.raises(BadSample, match="14 lines, the cap is 9"):
    points.decode(obj())
  monkeypatch.setitem(points.MAX_BYTES, "points", 9)
  with pytest.raises(BadSample, match="the cap is 9"):
    points.decode(obj())


def test_a_mesh_in_many_places(monkeypatch):
  monkeypatch.setattr(meshes, "MAX_TRIANGLES", 30)
  with pytest.raises(BadSample, match="36 triangles, the cap is 30"):
    points.decode(nodes(*[{"mesh": 0}] * 5, roots=range(5)))


def test_vertices_that_are_read_again_and_again(monkeypatch):
  # A part of no triangles, which adds nothing to what is kept.
  accessors = shapes.document()["accessors"]
  accessors[1]["count"] = 0
  parts = [{"primitives": [PRIMITIVE] * 9}]
  monkeypatch.setattr(glb_files, "MAX_VALUES", 40)
  with pytest.raises(BadSample, match="48 values to read, the cap is 40"):
    points.decode(glb(accessors=accessors, meshes=parts))
