"""PyTorch files: what torch writes comes back; what attacks is refused."""

import collections
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from mmjax.convert.opcodes import RefusedFile
from mmjax.convert.packages import check_sha256
from mmjax.convert.torch_file import TorchFile

TENSORS = collections.OrderedDict(
  transposed=torch.arange(6.0).reshape(2, 3).T,
  bfloat16=torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16) / 3),
  half=torch.ones(2, dtype=torch.float16) / 3,
  double=torch.ones(2, dtype=torch.float64) / 3,
  scalar=torch.tensor(3),
  flags=torch.tensor([True, False]),
  bytes=torch.arange(4, dtype=torch.uint8),
  empty=torch.zeros(0, 3),
)
TENSORS["tied"] = TENSORS["transposed"]
TENSORS["slice"] = torch.arange(100.0)[10:20:3]


def write(path, content, zipped=True, protocol=2):
  torch.save(
    content,
    path,
    _use_new_zipfile_serialization=zipped,
    pickle_protocol=protocol,
  )
  return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_writes_comes_back(tmp_path, zipped, protocol):
  file = TorchFile(write(tmp_path / "a.pth", TENSORS, zipped, protocol))
  assert list(file) == list(TENSORS) and len(file) == len(TENSORS)
  for name, tensor in TENSORS.items():
    array = file[name]
    assert file.shape(name) == array.shape == tuple(tensor.shape)
    assert str(array.dtype) == str(tensor.dtype).removeprefix("torch.")
    np.testing.assert_array_equal(
      array.astype(np.float64), tensor.detach().double().numpy()
    )
  assert not file["transposed"].flags.writeable


@pytest.mark.parametrize("zipped", [True, False])
def test_a_module_with_versions(tmp_path, zipped):
  state = torch.nn.BatchNorm1d(4).state_dict()
  file = TorchFile(write(tmp_path / "a.pth", state, zipped))
  assert list(file) == list(state)


class Tree(torch.nn.Module):
  """Tensors under dotted names, as a module that can be scripted."""

  def __init__(self, state):
    super().__init__()
    parts = collections.defaultdict(dict)
    for name, value in state.items():
      first, dot, rest = name.partition(".")
      if dot:
        parts[first][rest] = value
      elif value.is_floating_point():
        self.register_parameter(first, torch.nn.Parameter(value))
      else:
        self.register_buffer(first, value)
    for name, part in parts.items():
      self.add_module(name, Tree(part))

  def forward(self, x):
    return x


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_torch_script_gives_the_names_of_its_state_dict(tmp_path, how):
  """As OpenAI's files of CLIP; what is compiled in them is not looked at."""
  model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 2),
    torch.nn.Sequential(torch.nn.BatchNorm2d(4), torch.nn.GELU()),
    Tree({"a.0.b": torch.ones(3).half(), "size": torch.tensor(224)}),
  ).eval()
  made = (
    torch.jit.script(model)
    if how == "script"
    else torch.jit.trace(model, torch.zeros(1, 3, 4, 4))
  )
  made.save(str(tmp_path / "a.pt"))
  file, state = TorchFile(tmp_path / "a.pt"), model.state_dict()
  assert set(file) == set(state)
  for name, value in state.items():
    assert file[name].tobytes() == value.numpy().tobytes()
    assert str(file[name].dtype) == str(value.dtype).removeprefix("torch.")


def test_objects_that_share_objects_are_refused(tmp_path):
  """Forty of them, each twice in the next, would be 2^40 names."""
  new, name = b"c__torch__\nM\n)\x81", b"X\x01\x00\x00\x00"
  program = new + b"}bq\x00"
  for _ in range(40):
    program += new + b"}(" + name + b"ah\x00" + name + b"bh\x00ubq\x00"
  path = archive(tmp_path / "a.pth", b"\x80\x02" + program + b".")
  with pytest.raises(RefusedFile, match="'[ab]' is there twice"):
    TorchFile(path)


@pytest.mark.parametrize(
  "program",
  [
    b"cos\nsystem\n)\x81}b.",
    b"ccollections\nOrderedDict\n)\x81}b.",
    b"c__torch__\nM\n(K\x01t\x81}b.",
    b"c__torch__\nM\n)R.",
    b"c__torch__\nM\n)\x81]b.",
    b"c__torch__\nM\n)\x81}(K\x01K\x02ub.",
    b"c__torch__\nM\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00ub.",
    b"c__torch__\nM\n)\x81}b.",
    b"c__torch__x\nM\n)\x81}b.",
  ],
)
def test_odd_objects_are_refused(tmp_path, program):
  path = archive(tmp_path / "a.pth", b"\x80\x02" + program)
  with pytest.raises(RefusedFile, match=r"a\.pth is not read"):
    TorchFile(path)


def test_a_checkpoint_is_read_by_part(tmp_path):
  path = write(tmp_path / "a.pt", {"model": TENSORS, "epoch": 3})
  with pytest.raises(RefusedFile, match=r"name one of its parts \['model'\]"):
    TorchFile(path)
  with pytest.raises(RefusedFile, match="Did you mean 'model'"):
    TorchFile(path, part="modle")
  assert list(TorchFile(path, part="model")) == list(TENSORS)


def test_plain_values_beside_tensors_are_metadata(tmp_path):
  path = write(tmp_path / "a.pt", {"w": torch.ones(1), "epoch": 3})
  assert TorchFile(path).metadata() == {"epoch": "3"}


class Attack:
  """Makes a file that calls a function when it is unpickled."""

  def __init__(self, function, *arguments):
    self.call = (function, arguments)

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
  "make, name",
  [
    (lambda mark: Attack(os.system, f"touch {mark}"), "posix.system"),
    (lambda mark: {"w": Attack(eval, f"open('{mark}', 'w')")}, "eval"),
    (lambda mark: {"w": {"x": [(Attack(os.mkdir, mark),)]}}, "mkdir"),
    (lambda mark: {"w": torch.nn.Linear(1, 1)}, "nn.modules.linear.Linear"),
    (lambda mark: {"w": torch.ones(1), "x": np.float32(1)}, "numpy"),
  ],
)
def test_nothing_is_called(tmp_path, zipped, make, name):
  mark = str(tmp_path / "mark")
  path = write(tmp_path / "a.pth", make(mark), zipped)
  with pytest.raises(RefusedFile, match=name):
    TorchFile(path)
  assert not os.path.exists(mark)


def push(value):
  """Opcodes that push a plain value."""
  return pickle.dumps(value, 2)[2:-1]


def program(
  count=4, offset=0, shape=(4,), strides=(1,), kind="FloatStorage", key="0"
):
  """A data.pkl with one tensor, as it is or as it should never be."""
  storage = push("storage") + f"ctorch\n{kind}\n".encode() + push(key)
  storage = b"(" + storage + push("cpu") + push(count) + b"tQ"
  tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + push(offset)
  tensor += push(shape) + push(strides) + b"\x89}tR"
  return b"\x80\x02}" + push("w") + tensor + b"s."


def archive(path, data, storage=bytes(16), **others):
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("a/data.pkl", data)
    file.writestr("a/data/0", storage)
    for name, content in others.items():
      file.writestr(f"a/{name}", content)
  return path


def test_the_made_program_is_a_tensor(tmp_path):
  """What the next tests bend is sound when it is not bent."""
  file = TorchFile(archive(tmp_path / "a.pth", program()))
  np.testing.assert_array_equal(file["w"], np.zeros(4, np.float32))


@pytest.mark.parametrize(
  "bent, message",
  [
    (dict(shape=(2**62, 2**62), strides=(1, 1)), "no proper shape"),
    (dict(shape=(0, 2**62), strides=(1, 1)), "no proper shape"),
    (dict(shape=(2**40,), strides=(0,)), "does not fit"),
    (dict(shape=(5,)), "does not fit"),
    (dict(shape=(2,), strides=(4,)), "does not fit"),
    (dict(offset=1), "does not fit"),
    (dict(offset=2**70), "does not fit"),
    (dict(offset=-1), "no natural number"),
    (dict(shape=(-4,)), "no natural number"),
    (dict(strides=(-1,)), "no natural number"),
    (dict(shape=(True,)), "no natural number"),
    (dict(shape=(4, 1)), "no proper shape"),
    (dict(shape=(1,) * 40, strides=(1,) * 40), "no proper shape"),
    (dict(shape="4"), "has a str where a tuple"),
    (dict(count=2**40, shape=(2**40,)), "has 16 bytes for"),
    (dict(count=2, shape=(2,)), "has 16 bytes for 2"),
    (dict(key="../../etc/passwd"), "is missing"),
    (dict(kind="QInt8Storage"), "torch.QInt8Storage"),
  ],
)
def test_bent_tensors_are_refused(tmp_path, bent, message):
  path = archive(tmp_path / "a.pth", program(**bent))
  with pytest.raises(RefusedFile, match=message):
    TorchFile(path)


@pytest.mark.parametrize(
  "data, message",
  [
    (b"", "damaged"),
    (b"\x80\x02.", "damaged"),
    (b"\x80\x02N.", "holds a NoneType"),
    (b"\x80\x02}.", "no tensors"),
    (b"\x80\x02}", "damaged"),
    (b"\x80\x02t.", "damaged"),
    (b"\x80\x02}]Ns.", "list where a str or int"),
    (b"\x80\x02]NNs.", "dict belongs"),
    (b"\x80\x02h\x07.", "damaged"),
    (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.", "damaged"),
    (b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"x.", "damaged"),
    (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.", "damaged"),
    (b"\x80\x02N)R.", "calls a NoneType"),
    (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls a _Global"),
    (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "damaged"),
    (b"\x80\x02(U\x06modulecos\nsystem\ntQ.", "SHORT_BINSTRING"),
    (b"\x80\x02Ncos\nsystem\n.", "os.system"),
    (b"\x80\x02(ios\nsystem\n.", "INST"),
    (b"\x80\x02NN\x81.", "NEWOBJ"),
    (b"\x80\x02\x82\x01.", "EXT1"),
    (b"\x80\x04" + push("os") + push("system") + b"\x93.", "os.system"),
    (b"\x80\x02)" + b"\x85" * 10**5 + b".", "holds a tuple"),
    (b"\x80\x02" + b"(" * 10**5 + b".", "damaged"),
  ],
)
def test_odd_programs_are_refused(tmp_path, data, message):
  path = archive(tmp_path / "a.pth", data)
  with pytest.raises(RefusedFile, match=message):
    TorchFile(path)


def test_dicts_that_share_dicts_take_no_time(tmp_path):
  """2^60 leaves for whoever walks every path."""
  content = {"w": torch.ones(1)}
  for _ in range(60):
    content = {"a": content, "b": content}
  for zipped in (True, False):
    with pytest.raises(RefusedFile, match="name one of its parts"):
      TorchFile(write(tmp_path / "a.pth", content, zipped))


def test_a_compressed_member_is_refused(tmp_path):
  path = tmp_path / "a.pth"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
    file.writestr("a/data.pkl", program(count=2**22, shape=(2**22,)))
    file.writestr("a/data/0", bytes(2**24))
  with pytest.raises(RefusedFile, match="compressed"):
    TorchFile(path)


def test_big_endian_is_refused(tmp_path):
  path = archive(tmp_path / "a.pth", program(), byteorder=b"big")
  with pytest.raises(RefusedFile, match="little-endian"):
    TorchFile(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path):
  path = archive(tmp_path / "a.pth", program(), **{"data/0": bytes(16)})
  with pytest.raises(RefusedFile, match="one name"):
    TorchFile(path)


@pytest.mark.parametrize(
  "content", [b"", b"\x00" * 100, b"hello", b"\xff\xd8\xff\xe0", b"PK\x03\x04"]
)
def test_other_files_are_refused(tmp_path, content):
  path = tmp_path / "a.pth"
  path.write_bytes(content)
  with pytest.raises(RefusedFile, match="a.pth"):
    TorchFile(path)


def test_a_zip_of_something_else_is_refused(tmp_path):
  path = tmp_path / "a.pth"
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("readme.txt", "hello")
  with pytest.raises(RefusedFile, match="without one data.pkl"):
    TorchFile(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_cut_file_is_refused(tmp_path, zipped):
  whole = write(tmp_path / "a.pth", TENSORS, zipped).read_bytes()
  path = tmp_path / "cut.pth"
  for length in range(1, len(whole), max(1, len(whole) // 200)):
    path.write_bytes(whole[:length])
    with pytest.raises(RefusedFile):
      TorchFile(path)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("zipped", [True, False])
def test_flipped_bytes_never_surprise(tmp_path, zipped):
  """Either the file is refused, or its tensors lie within it."""
  whole = write(tmp_path / "a.pth", TENSORS, zipped).read_bytes()
  random, path = np.random.RandomState(0), tmp_path / "flipped.pth"
  refused = 0
  for _ in range(400):
    flipped = bytearray(whole)
    for at in random.randint(0, len(whole), random.randint(1, 4)):
      flipped[at] = random.randint(256)
    path.write_bytes(flipped)
    try:
      for array in TorchFile(path).values():
        array.copy()
    except RefusedFile:
      refused += 1
  assert 0 < refused < 400


def test_the_older_layout_with_a_huge_count(tmp_path):
  whole = write(tmp_path / "a.pth", {"w": torch.zeros(3)}, False).read_bytes()
  assert whole.endswith(struct.pack("<Q", 3) + bytes(12))
  path = tmp_path / "huge.pth"
  path.write_bytes(whole[:-20] + struct.pack("<Q", 2**61) + bytes(12))
  with pytest.raises(RefusedFile, match="bytes for 3"):
    TorchFile(path)


def test_the_hash_of_a_file_is_checked(tmp_path):
  path = tmp_path / "a"
  path.write_bytes(b"abc")
  check_sha256(
    path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
  )
  with pytest.raises(ValueError, match="sha256"):
    check_sha256(path, "0" * 64)
