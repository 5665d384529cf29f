"""Folders of damaged and hostile files, through the commands of a user."""

import io

import numpy as np
import pytest

from mmjax.cli import main as cli
from mmjax.data import build
from mmjax.text.tokenizer import drawn
from tests.data.pictures import encode, hostile, photo

av = pytest.importorskip("av")
CONFIG = "configs/contrastive/tiny.py"


def sound_only() -> bytes:
  data = io.BytesIO()
  with av.open(data, "w", format="mp4") as file:
    stream = file.add_stream("aac", rate=16_000)
    silence = np.zeros((1, 1024), np.float32)
    frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
    frame.rate = 16_000
    file.mux(stream.encode(frame))
    file.mux(stream.encode())
  return data.getvalue()


def clip(count: int = 4) -> bytes:
  data = io.BytesIO()
  with av.open(data, "w", format="matroska") as file:
    stream = file.add_stream("mpeg4", rate=2)
    stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
    for i in range(count):
      frame = av.VideoFrame.from_ndarray(photo(32, 48, i), format="rgb24")
      file.mux(stream.encode(frame))
    file.mux(stream.encode())
  return data.getvalue()


def fill(folder, files: dict[str, bytes]) -> str:
  """Writes the files and a table that names them and one that is missing."""
  rows = ["file,caption", "missing.jpg,a cat", "../out.jpg,a cat"]
  for name, content in files.items():
    (folder / name).write_bytes(content)
    rows.append(f"{name},a cat")
  table = folder / "table.csv"
  table.write_text("\n".join(rows))
  return str(table)


def dataset(folder, kind="pairs", **more) -> dict:
  """`config.data.datasets` for a folder."""
  return dict(
    pairs=dict(
      source=dict(
        name="folder", folder=str(folder), table=str(folder / "table.csv")
      ),
      format=dict(name=kind),
      prompt=dict(name="caption", length=8),
      transforms=[dict(name="square", size=16)],
      **more,
    )
  )


def inspect(datasets: dict) -> int:
  arguments = ["--config", CONFIG, f"--config.data.datasets={datasets}"]
  return cli.main(["data", "inspect", "--count", "99", *arguments])


@pytest.fixture
def pictures(tmp_path):
  # What it is called plays no part: a PNG may be named .jpg.
  good = {"good.png": encode(photo()), "named.jpg": encode(photo())}
  bad = {f"{name}.jpg": content for name, content in hostile().items()}
  fill(tmp_path, good | bad)
  return tmp_path, len(bad) + 2


def test_inspect_names_every_bad_picture(pictures, capsys):
  folder, bad = pictures
  assert inspect(dataset(folder)) == 1
  said = capsys.readouterr().out
  assert said.count("BAD:") == bad
  assert said.count("pictures: 60x40") == 2


def test_inspect_names_every_bad_clip(tmp_path, capsys):
  whole = clip()
  files = dict(good=whole, sound=sound_only(), none=b"", empty=clip(0))
  files |= dict(cut=whole[:300], picture=encode(photo()))
  fill(tmp_path, {f"{name}.mp4": data for name, data in files.items()})
  assert inspect(dataset(tmp_path, "video_text")) == 1
  said = capsys.readouterr().out
  assert said.count("BAD:") == len(files) - 1 + 2
  assert "good.mp4" in said and "pictures: 2 frames of 48x32" in said


def test_training_counts_them_and_stops_past_the_budget(
  pictures, tmp_path, capsys
):
  folder, bad = pictures
  datasets = dataset(folder, batch=bad + 2)
  config = dict(datasets=datasets, max_bad_fraction=0.5)
  with build.batches(config, drawn()) as batches:
    batch = next(batches)["pairs"]
    assert batches.bad == {"pairs": bad}
  image = batch["media"]["image"]
  assert image["mask"].sum() == 2 == (batch["segments"].sum(axis=1) > 0).sum()
  assert not image["values"][~image["mask"][:, 0, 0]].any()

  arguments = ["--config", CONFIG, "--workdir", str(tmp_path / "run")]
  arguments += [f"--config.data.datasets={datasets}"]
  arguments += ["--config.data.max_bad_fraction=0.0"]
  assert cli.main(["train", *arguments]) == 1
  said = capsys.readouterr().err.splitlines()
  assert "are bad, max_bad_fraction=0.0 allows 0" in said[-1]
  assert not any("Traceback" in line for line in said)
