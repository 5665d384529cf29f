"""A tar shard with good and hostile members, through training."""

import tarfile

import pytest

from mmjax.cli import main as cli
from mmjax.data import build, tar
from mmjax.text.tokenizer import drawn
from tests.data.pictures import encode, photo
from tests.data.test_tar import special, write

CONFIG = "configs/contrastive/tiny.py"
BAD = {
  "a symbolic link, 1.png": (special(tarfile.SYMTYPE, "1.png"), b""),
  "a hard link, 2.png": (special(tarfile.LNKTYPE, "2.png"), b""),
  "a pipe, 3.png": (special(tarfile.FIFOTYPE, "3.png"), b""),
  "a file with an unsafe name, ../4.png": ("../4.png", encode(photo())),
  "a file with an unsafe name, /5.png": ("/5.png", encode(photo())),
}


@pytest.fixture(params=["scanned", "indexed"])
def shard(request, tmp_path):
  members = []
  for i, member in enumerate(BAD.values()):
    members += [(f"good{i}.png", encode(photo(seed=i)))]
    members += [(f"good{i}.txt", b"a cat"), member]
    members += [(f"{i + 1}.txt", b"a cat")] * (i < 3)
  path = write(tmp_path / "a.tar", members)
  if request.param == "indexed":
    tar.write_index(path)
  return path


def datasets(path, batch: int) -> dict:
  return dict(
    pairs=dict(
      source=dict(name="tar", paths=[str(path)]),
      format=dict(name="pairs"),
      prompt=dict(name="caption", length=8),
      transforms=[dict(name="square", size=16)],
      batch=batch,
    )
  )


def test_good_records_are_read_and_bad_ones_are_counted(shard, caplog):
  count = 2 * len(BAD)
  config = dict(datasets=datasets(shard, count), max_bad_fraction=0.5)
  with build.batches(config, drawn()) as batches:
    batch = next(batches)["pairs"]
    assert batches.seen == {"pairs": count}
    assert batches.bad == {"pairs": len(BAD)}
  assert batch["media"]["image"]["mask"].sum() == len(BAD)
  assert (batch["segments"].sum(axis=1) > 0).sum() == len(BAD)
  for what in BAD:
    assert caplog.text.count(f"a.tar holds {what};") == 1


def test_a_run_without_a_budget_stops_at_the_first(shard, tmp_path, capsys):
  ask = ["train", "--config", CONFIG, "--workdir", str(tmp_path / "run")]
  ask += [f"--config.data.datasets={datasets(shard, 10)}"]
  assert cli.main([*ask, "--config.data.max_bad_fraction=0.0"]) == 1
  said = capsys.readouterr().err.splitlines()
  assert "5 of 10 samples of 'pairs' are bad" in said[-1]
  assert "a.tar holds a" in said[-1]
