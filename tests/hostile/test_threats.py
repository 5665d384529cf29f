"""Every threat that mmjax has an answer to, through the commands of a user.

Each is a clear error, or a sample that is skipped and named; no program is
run, nothing is unpickled, no network is asked, nothing is written but where
it belongs, and memory stays bounded. The guard itself is tested first.
"""

import io
import json
import os
import pickle
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmjax.cli import main as cli
from tests.data.pictures import encode, hostile, photo, png_bomb
from tests.hostile.watched import watched

MEMORY = 300 * 2**20
CONFIG = "configs/contrastive/tiny.py"
LLAMA = dict(
  architectures=["LlamaForCausalLM"],
  model_type="llama",
  hidden_size=8,
  intermediate_size=8,
  num_hidden_layers=1,
  num_attention_heads=1,
  vocab_size=8,
)


class Evil:
  """Unpickled, it would make a file."""

  def __init__(self, path: Path):
    self.path = path

  def __reduce__(self):
    return os.system, (f"touch {self.path}",)


def test_the_guard_sees(tmp_path):
  with watched() as seen:
    subprocess.run(["true"])
    pickle.loads(pickle.dumps(Evil(tmp_path / "made")))
    (tmp_path / "written").write_text("x")
    block = bytearray(64 * 2**20)
    block[:: 2**12] = b"x" * (2**14)
  assert any("Popen" in event for event in seen.forbidden)
  assert any("find_class" in event for event in seen.forbidden)
  assert tmp_path / "written" in seen.written
  with watched() as seen:
    json.loads("{}")
  assert not seen.forbidden and not seen.written


def run(arguments, capsys, allowed=()):
  """The exit code and words of a command that was watched."""
  capsys.readouterr()
  with watched() as seen:
    code = cli.main(list(map(str, arguments)))
  said = capsys.readouterr()
  assert not seen.forbidden, seen.forbidden
  outside = [
    path
    for path in seen.written
    if not any(path.is_relative_to(place) for place in allowed)
    # What Python and JAX keep for themselves.
    and "__pycache__" not in path.parts
    and "mmjax-jit" not in str(path)
    and path.parts[:2] != ("/", "dev")
  ]
  assert not outside, outside
  assert seen.grown < MEMORY, seen.grown
  return code, said.out + said.err


def torch_zip(path: Path, program: bytes) -> None:
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("archive/data.pkl", program)
    file.writestr("archive/version", "3\n")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "w.pt"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_that_runs_a_program(name, zipped, tmp_path, capsys):
  folder = tmp_path / "hf"
  folder.mkdir()
  program = pickle.dumps({"weight": Evil(tmp_path / "made")})
  if zipped:
    torch_zip(folder / name, program)
  else:
    (folder / name).write_bytes(program)
  (folder / "config.json").write_text(json.dumps(LLAMA))
  ask = ["convert", folder / name, tmp_path / "out", "--to", "jax"]
  code, said = run([*ask, "--family", "llama"], capsys)
  assert code == 1 and name in said
  assert not (tmp_path / "made").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  "shard", ["../../../etc/passwd", "/etc/passwd", "a/../../b.safetensors"]
)
def test_an_index_that_leads_out_of_its_folder(shard, tmp_path, capsys):
  folder = tmp_path / "hf"
  folder.mkdir()
  save_file({"x": np.ones(2, np.float32)}, tmp_path / "b.safetensors")
  (folder / "config.json").write_text(json.dumps(LLAMA))
  index = {"weight_map": {"model.embed_tokens.weight": shard}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  code, said = run(["convert", folder, tmp_path / "out", "--to", "jax"], capsys)
  assert code == 1 and "index.json" in said
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_told(value, tmp_path, capsys, caplog):
  """They are kept, as they may be meant, but not in silence."""
  source = tmp_path / "w.safetensors"
  weights = np.ones((2, 2), np.float32)
  weights[0, 0] = value
  save_file({"_fc.weight": weights}, source)
  target = tmp_path / "out"
  ask = ["convert", source, target, "--to", "jax"]
  code, said = run([*ask, "--family", "efficientnet_lite0"], capsys, [tmp_path])
  assert code == 1 or "finite" in said + caplog.text


def inspect(place: Path, capsys, **source) -> tuple[int, str]:
  """`mmjax data inspect` of pairs."""
  datasets = dict(
    pairs=dict(
      source=source,
      format=dict(name="pairs"),
      prompt=dict(name="caption", length=8),
      transforms=[dict(name="square", size=16)],
      batch=2,
    )
  )
  ask = ["--config", CONFIG, f"--config.data.datasets={datasets}"]
  return run(["data", "inspect", "--count", "99", *ask], capsys, [place])


@pytest.mark.parametrize("name", sorted(hostile()))
def test_a_picture_in_a_folder(name, tmp_path, capsys):
  (tmp_path / "a.jpg").write_bytes(hostile()[name])
  (tmp_path / "t.csv").write_text("file,caption\na.jpg,a thing\n")
  table = str(tmp_path / "t.csv")
  folder = dict(name="folder", folder=str(tmp_path), table=table)
  code, said = inspect(tmp_path, capsys, **folder, column="file")
  assert code == 1 and said.count("BAD:") == 1 and "a.jpg" in said


@pytest.mark.parametrize(
  "name",
  [
    "https://example.com/a.jpg",
    "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd",
    "/etc/passwd",
    "../secret.png",
    "a/../../secret.png",
    "a.png\0.jpg",
    "pipe:touch made",
  ],
)
def test_a_table_that_names_another_place(name, tmp_path, capsys):
  folder = tmp_path / "pictures"
  folder.mkdir()
  (tmp_path / "secret.png").write_bytes(encode(photo()))
  rows = [{"file": name, "caption": "a thing"}]
  table = tmp_path / "t.jsonl"
  table.write_text("".join(json.dumps(row) + "\n" for row in rows))
  code, said = inspect(
    *(tmp_path, capsys),
    name="folder",
    folder=str(folder),
    table=str(table),
    column="file",
  )
  assert code == 1 and "BAD:" in said
  assert "60x40" not in said and "root:" not in said


def test_a_link_out_of_the_folder(tmp_path, capsys):
  folder = tmp_path / "pictures"
  folder.mkdir()
  (tmp_path / "secret.png").write_bytes(encode(photo()))
  (folder / "a.png").symlink_to(tmp_path / "secret.png")
  (tmp_path / "t.csv").write_text("file,caption\na.png,a thing\n")
  table = str(tmp_path / "t.csv")
  source = dict(name="folder", folder=str(folder), table=table, column="file")
  code, said = inspect(tmp_path, capsys, **source)
  assert code == 1 and "leads out" in said


def member(name: str, data: bytes = b"", kind=tarfile.REGTYPE, link: str = ""):
  info = tarfile.TarInfo(name)
  info.size, info.type, info.linkname = len(data), kind, link
  return info, data


def shard(path: Path, *members) -> None:
  with tarfile.open(path, "w") as file:
    for info, data in members:
      file.addfile(info, io.BytesIO(data))


GOOD = (member("b.png", encode(photo())), member("b.txt", b"a thing"))


@pytest.mark.parametrize(
  "bad",
  [
    member("../a.png", encode(photo())),
    member("/tmp/a.png", encode(photo())),
    member("a.png", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    member("a.png", kind=tarfile.LNKTYPE, link="b.png"),
    member("a.png", kind=tarfile.CHRTYPE),
    member("a.png", kind=tarfile.FIFOTYPE),
  ],
  ids=["up", "absolute", "symlink", "hard link", "device", "pipe"],
)
def test_a_member_of_a_shard(bad, tmp_path, capsys):
  path = tmp_path / "a.tar"
  shard(path, bad, member("a.txt", b"a thing"), *GOOD)
  code, said = inspect(tmp_path, capsys, name="tar", paths=[str(path)])
  assert code == 1 and f"{bad[0].name}; only plain" in said
  assert "60x40" in said and "root:" not in said


def test_a_pickle_in_a_shard_is_never_read(tmp_path, capsys):
  path = tmp_path / "a.tar"
  evil = pickle.dumps(Evil(tmp_path / "made"))
  objects = io.BytesIO()
  np.save(objects, np.array([Evil(tmp_path / "made")]), allow_pickle=True)
  shard(
    path,
    *(member("b.pkl", evil), member("b.pyd", evil)),
    *(member("b.npy", objects.getvalue()), member("b.pth", evil)),
    *GOOD,
  )
  code, said = inspect(tmp_path, capsys, name="tar", paths=[str(path)])
  assert code == 0 and "60x40" in said
  assert not (tmp_path / "made").exists()


def test_a_bomb_in_a_shard(tmp_path, capsys):
  path = tmp_path / "a.tar"
  shard(path, member("a.png", png_bomb()), member("a.txt", b"x"), *GOOD)
  code, said = inspect(tmp_path, capsys, name="tar", paths=[str(path)])
  assert code == 1 and said.count("BAD:") == 1 and "60x40" in said


@pytest.mark.parametrize("path", ["pipe:touch made", "https://example.com/a"])
def test_a_source_that_is_a_command_or_an_address(path, tmp_path, capsys):
  code, said = inspect(tmp_path, capsys, name="tar", paths=[path])
  assert code == 1 and path in said


def test_a_config_with_an_unknown_key(tmp_path, capsys):
  ask = ["train", "--config", CONFIG, "--workdir", tmp_path / "run"]
  code, said = run([*ask, "--config.train.stepz=3"], capsys)
  assert code == 1 and "stepz" in said
  assert not (tmp_path / "run").exists()


def test_a_saved_config_is_data(tmp_path, capsys):
  """What a run wrote, or somebody changed, is never executed."""
  run_ = tmp_path / "run"
  run_.mkdir()
  made = tmp_path / "made"
  (run_ / "config.json").write_text(f"__import__('os').system('touch {made}')")
  code, said = run(["evaluate", "--workdir", run_], capsys)
  assert code == 1 and "config.json" in said and not made.exists()
