"""Safetensors that lie about themselves: one line of error, nothing left."""

import errno
import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from mmjax.cli import main as cli
from mmjax.cli.convert import convert
from mmjax.convert.read import open_weights
from tests.encoders.test_nfnet import reference


def entry(start, end, dtype="F32", shape=(1,)):
  return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def made(header, data=bytes(8), length=None):
  """A file of this header, however false."""
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  size = len(text) if length is None else length
  return struct.pack("<Q", size) + text + data


TWICE = b'{"a": %s, "a": %s}' % (
  json.dumps(entry(0, 4)).encode(),
  json.dumps(entry(4, 8)).encode(),
)
FILES = {
  "empty": b"",
  "a length alone": struct.pack("<Q", 8),
  "a header cut off": made({"a": entry(0, 8, shape=(2,))})[:30],
  "a huge header": made({"a": entry(0, 8, shape=(2,))}, length=2**62),
  "a negative length": struct.pack("<q", -1) + b"{}",
  "no JSON": made(b"{" * 8),
  "deep JSON": made(b"[" * 100_000),
  "no object": made(b"[]      "),
  "no UTF-8": made(b"\xff" * 8),
  "negative offsets": made({"a": entry(-4, 4, shape=(2,))}),
  "offsets that turn back": made({"a": entry(8, 0, shape=(2,))}),
  "offsets beyond the end": made({"a": entry(0, 16, shape=(4,))}),
  "overlapping tensors": made({"a": entry(0, 8, shape=(2,)), "b": entry(4, 8)}),
  "a gap": made({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)),
  "bytes behind the last": made({"a": entry(0, 4)}),
  "a shape that does not fit": made({"a": entry(0, 8, shape=(3,))}),
  "a shape that overflows": made({"a": entry(0, 8, shape=(2**62, 2**62))}),
  "a negative shape": made({"a": entry(0, 8, shape=(-2,))}),
  "an unknown dtype": made({"a": entry(0, 8, "F31", (2,))}),
  "a name twice": made(TWICE),
  "no tensors": made(b"{}      ", b""),
  "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
}


def refused(source, tmp_path, capsys, family="efficientnet_lite0"):
  """What the command says when it refuses; it leaves nothing."""
  target = tmp_path / "jax"
  arguments = ["convert", str(source), str(target), "--to", "jax"]
  assert cli.main([*arguments, "--family", family]) == 1
  said = capsys.readouterr().err
  assert said.count("mmjax convert:") == 1 and "Traceback" not in said
  assert not list(tmp_path.glob("*jax*"))
  return said.removeprefix("mmjax convert: ")


@pytest.mark.parametrize("name", FILES)
def test_files_that_lie(name, tmp_path, capsys):
  path = tmp_path / "w.safetensors"
  path.write_bytes(FILES[name])
  said = refused(path, tmp_path, capsys)
  assert str(path) in said and said.count("\n") == 1, said


@pytest.mark.parametrize(
  "shard",
  ["../out.safetensors", "/etc/passwd", "sub/x.safetensors", "", ".", ".."],
)
def test_an_index_that_points_elsewhere(shard, tmp_path, capsys):
  folder = tmp_path / "hf"
  (folder / "sub").mkdir(parents=True)
  for path in (tmp_path / "out.safetensors", folder / "sub/x.safetensors"):
    save_file({"_fc.weight": np.ones((2, 2), np.float32)}, path)
  index = {"weight_map": {"_fc.weight": shard}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  said = refused(folder, tmp_path, capsys)
  assert "index.json" in said and said.count("\n") == 1, said


def two_shards(tmp_path, second):
  folder = tmp_path / "hf"
  folder.mkdir()
  one = np.ones((2, 2), np.float32)
  save_file({"_fc.weight": one}, folder / "a.safetensors")
  save_file(second, folder / "b.safetensors")
  return folder


def test_a_tensor_in_two_shards(tmp_path, capsys):
  folder = two_shards(tmp_path, {"_fc.weight": np.zeros((2, 2), np.float32)})
  said = refused(folder, tmp_path, capsys)
  assert "both hold '_fc.weight'" in said and said.count("\n") == 1


def test_a_shard_with_what_the_index_does_not_name(tmp_path, capsys):
  folder = two_shards(tmp_path, {"_fc.bias": np.ones(2, np.float32)})
  index = {"weight_map": {"_fc.weight": "b.safetensors"}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  said = refused(folder, tmp_path, capsys)
  assert "b.safetensors holds '_fc.weight'; it does not" in said


def test_a_missing_shard(tmp_path, capsys):
  folder = two_shards(tmp_path, {"_fc.bias": np.ones(2, np.float32)})
  index = {
    "weight_map": {"_fc.weight": "a.safetensors", "_fc.bias": "c.safetensors"}
  }
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  said = refused(folder, tmp_path, capsys)
  assert "names c.safetensors, which is missing" in said


def test_a_folder_in_the_place_of_a_file(tmp_path, capsys):
  folder = tmp_path / "hf"
  (folder / "model.safetensors").mkdir(parents=True)
  said = refused(folder, tmp_path, capsys)
  assert "model.safetensors" in said and said.count("\n") == 1


def test_a_folder_without_weights(tmp_path, capsys):
  (tmp_path / "hf").mkdir()
  said = refused(tmp_path / "hf", tmp_path, capsys)
  assert "holds no .safetensors file" in said and said.count("\n") == 1


def test_weights_of_something_else(tmp_path, capsys):
  save_file({"w": np.ones(3)}, tmp_path / "w.safetensors")
  said = refused(tmp_path / "w.safetensors", tmp_path, capsys)
  assert "No name fits" in said and "['w']" in said and said.count("\n") == 1


@pytest.mark.parametrize(
  "dtype, shape", [("F8_E4M3", (8,)), ("U64", (1,)), ("U16", (4,))]
)
def test_dtypes_that_no_array_of_ours_has(dtype, shape, tmp_path):
  path = tmp_path / "w.safetensors"
  path.write_bytes(made({"a": entry(0, 8, dtype, shape)}))
  with pytest.raises(ValueError, match=f"a is {dtype}; known"):
    open_weights(path).dtype("a")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32])
def test_a_stack_of_two_dtypes(dtype, tmp_path, capsys):
  """Layers share an array here, and no row is cast without a word."""
  state = reference((3,), (16,), 16, 8, 0, 0).state_dict()
  state["stages.0.2.skipinit_gain"] = torch.ones((), dtype=dtype)
  torch.save(state, tmp_path / "nfnet.pth")
  said = refused(tmp_path / "nfnet.pth", tmp_path, capsys, "nfnet")
  assert "stages.0.2.skipinit_gain is" in said and said.count("\n") == 1


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool])
def test_numbers_that_stand_for_others(dtype, tmp_path, capsys):
  """A quantised checkpoint, even where all its names are known."""
  state = reference((1,), (16,), 16, 8, 0, 0).state_dict()
  save_torch(
    {k: v.to(dtype) for k, v in state.items()}, tmp_path / "w.safetensors"
  )
  said = refused(tmp_path / "w.safetensors", tmp_path, capsys, "nfnet")
  assert "not floating-point" in said and said.count("\n") == 1


def test_eight_bits_of_a_float(tmp_path, capsys):
  state = reference((1,), (16,), 16, 8, 0, 0).state_dict()
  small = {k: v.to(torch.float8_e4m3fn) for k, v in state.items()}
  save_torch(small, tmp_path / "w.safetensors")
  said = refused(tmp_path / "w.safetensors", tmp_path, capsys, "nfnet")
  assert "is F8_E4M3; known" in said and said.count("\n") == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_is_kept_and_told(dtype, tmp_path, caplog):
  state = reference((1, 2), (16, 16), 16, 8, 0, 0).state_dict()
  state = {k: v.to(dtype) for k, v in state.items()}
  state["stages.1.1.conv1.gain"][3] = float("nan")
  state["stem.conv1.bias"][0] = float("-inf")
  torch.save(state, tmp_path / "nfnet.pth")
  convert(tmp_path / "nfnet.pth", tmp_path / "jax", to="jax", family="nfnet")
  assert "2 arrays" in caplog.text
  for name in ("stages_1/rest/narrow/gain [0]", "stem_0/bias"):
    assert name in caplog.text
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  back = load_torch(tmp_path / "back" / "model.safetensors")
  assert torch.equal(back["stem.conv1.bias"], state["stem.conv1.bias"])
  assert back["stages.1.1.conv1.gain"].isnan().sum() == 1


def test_two_models_in_a_folder(tmp_path, capsys):
  folder = two_shards(tmp_path, {"_fc.bias": np.ones(2, np.float32)})
  for name in ("model", "model.fp16"):
    index = {"weight_map": {"_fc.weight": "a.safetensors"}}
    path = folder / f"{name}.safetensors.index.json"
    path.write_text(json.dumps(index))
  said = refused(folder, tmp_path, capsys)
  assert "holds 2 models" in said and said.count("\n") == 1


def test_a_target_that_is_a_link_to_nothing(tmp_path, capsys):
  folder = two_shards(tmp_path, {"_fc.bias": np.ones(2, np.float32)})
  target = tmp_path / "out"
  target.symlink_to(tmp_path / "absent")
  assert cli.main(["convert", str(folder), str(target), "--to", "jax"]) == 1
  assert "is there already" in capsys.readouterr().err
  assert target.is_symlink() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("done", [0, 1, 20])
def test_a_disk_that_fills_up(done, tmp_path, capsys, monkeypatch):
  """After so many writes; nothing that looks whole is left."""
  state = reference((1,), (16,), 16, 8, 0, 0).state_dict()
  torch.save(state, tmp_path / "nfnet.pth")
  write, writes = os.pwrite, iter(range(done))

  def full(*arguments):
    if next(writes, None) is None:
      raise OSError(errno.ENOSPC, "No space left on device")
    return write(*arguments)

  monkeypatch.setattr(os, "pwrite", full)
  said = refused(tmp_path / "nfnet.pth", tmp_path, capsys, "nfnet")
  told = f"{tmp_path / 'jax'}: No space left on device\n"
  assert said.endswith(told)


def test_a_shard_with_more_than_the_index_names(tmp_path, capsys):
  both = {"_fc.bias": np.ones(2, np.float32), "more": np.ones(1, np.float32)}
  folder = two_shards(tmp_path, both)
  index = {
    "weight_map": {"_fc.weight": "a.safetensors", "_fc.bias": "b.safetensors"}
  }
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  said = refused(folder, tmp_path, capsys)
  assert "1 tensors" in said and "'more'" in said and said.count("\n") == 1


@pytest.mark.parametrize(
  "file", ["config.json", "model.safetensors.index.json"]
)
def test_one_key_with_two_values(file, tmp_path, capsys):
  folder = two_shards(tmp_path, {"_fc.bias": np.ones(2, np.float32)})
  text = '{"weight_map": {"_fc.weight": "a.safetensors", "_fc.weight": "b"}}'
  (folder / file).write_text(text)
  said = refused(folder, tmp_path, capsys)
  assert file in said and "'_fc.weight' twice" in said
