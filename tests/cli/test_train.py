"""Runs that meet another config, data that end or spoil, and damaged files."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs.contrastive.tiny import get_config
from mmjax.checkpoints import load_trainable
from mmjax.cli import main
from mmjax.training.metrics import read_jsonl
from tests.data.pictures import encode, photo


def config_of(folder):
  """Two towers of a layer, on a folder of pictures."""
  config = get_config()
  config.model.media.update(width=8, num_layers=1, num_heads=2, image_size=16)
  config.model.text.update(width=8, num_heads=2)
  config.model.width = 8
  pairs = config.data.datasets.pairs
  table = str(folder / "table.csv")
  pairs.source = dict(name="folder", folder=str(folder), table=table)
  pairs.format = dict(name="pairs")
  pairs.transforms = [dict(name="square", size=16)]
  pairs.batch = 2
  config.train.plan = dict(steps=2, log_every=1, checkpoint_every=1)
  return config.to_dict()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A folder of pictures, and the directory of a run of two steps."""
  folder = tmp_path_factory.mktemp("pictures")
  rows = ["file,caption"]
  for i in range(8):
    (folder / f"{i}.png").write_bytes(encode(photo(seed=i)))
    rows.append(f"{i}.png,a red kite")
  (folder / "table.csv").write_text("\n".join(rows))
  path = folder / "config.json"
  path.write_text(json.dumps(config_of(folder)))
  workdir = folder / "run"
  assert train(path, workdir) == 0
  return path, workdir


@pytest.fixture
def run(trained, tmp_path):
  """A copy of it."""
  shutil.copytree(trained[1], tmp_path / "run")
  return trained[0], tmp_path / "run"


def train(path, workdir, *changes):
  arguments = ["--config", str(path), "--workdir", str(workdir)]
  return main.main(["train", *arguments, *changes])


def kept(workdir):
  found = (workdir / "checkpoints").glob("*")
  return sorted(int(p.name) for p in found if p.name.isdigit())


def last_line(capsys):
  said = capsys.readouterr().err
  assert "Traceback" not in said
  return said.splitlines()[-1]


def test_a_config_that_does_not_fit_the_run_leaves_it_alone(run, capsys):
  path, workdir = run
  before = (workdir / "config.json").read_text()
  assert train(path, workdir, "--config.model.width=4") == 1
  assert "another model or optimizer" in last_line(capsys)
  assert (workdir / "config.json").read_text() == before
  assert kept(workdir) == [1, 2]


def spoil(path):
  data = bytearray(path.read_bytes())
  for i in range(len(data) // 3, len(data), 97):
    data[i] ^= 16
  path.write_bytes(data)


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_a_run_goes_back_when_its_checkpoint_is_damaged(run, how, caplog):
  path, workdir = run
  state = workdir / "checkpoints" / "2" / "state"
  if how == "missing":
    shutil.rmtree(state)
  for file in state.glob("ocdbt.process_0/d/*"):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2]) if how == "cut" else spoil(file)
  with pytest.raises(ValueError, match="Step 2 .* is damaged.* use step 1"):
    load_trainable(workdir / "checkpoints")
  if how == "flipped":
    whole = load_trainable(path.parent / "run" / "checkpoints")
    assert train(path, workdir) == 0
    assert "GOES BACK TO STEP 1" in caplog.text
    assert kept(workdir) == [1, 2]
    assert (workdir / "checkpoints-damaged" / "2" / "state").is_dir()
    again = load_trainable(workdir / "checkpoints")
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(
  run, capsys
):
  path, workdir = run
  for step in ("1", "2"):
    shutil.rmtree(workdir / "checkpoints" / step / "state")
  assert train(path, workdir) == 1
  assert "Every checkpoint in" in last_line(capsys)
  assert kept(workdir) == [1, 2]


def test_a_config_that_fits_keeps_the_one_before(run, caplog):
  path, workdir = run
  before = (workdir / "config.json").read_text()
  assert train(path, workdir, "--config.train.plan.steps=3") == 0
  assert "config.train.plan.steps" in caplog.text
  assert (workdir / "config-to-step-2.json").read_text() == before
  assert json.loads((workdir / "config.json").read_text()) != before
  assert kept(workdir)[-1] == 3


def test_updates_that_are_skipped_are_told_and_counted(run, caplog):
  path, workdir = run
  # The next update throws the parameters so far that all after it fail.
  changes = ["--config.train.optimizer.schedule.peak=1e38"]
  plan = {"steps": 6, "log_every": 3, "checkpoint_every": 3}
  assert train(path, workdir, *changes, f"--config.train.plan={plan}") == 0
  assert "Step 6: 3 update(s) skipped" in caplog.text
  assert "step(s) 4, 5, 6: `mmjax data replay`" in caplog.text
  lines = read_jsonl(workdir / "metrics.jsonl")
  assert [line["skipped"] for line in lines] == [0, 0, 0, 3]
  plan |= {"steps": 7, "log_every": 5}  # The last step has a line anyway.
  assert train(path, workdir, *changes, f"--config.train.plan={plan}") == 0
  assert "Step 7: 1 update(s) skipped since the last line, 4 of" in caplog.text


def test_what_comes_is_announced(run, caplog):
  path, workdir = run
  assert train(path, workdir, "--config.train.plan.steps=3") == 0
  assert f"{workdir}: step 3 of 3 is compiled now" in caplog.text
  caplog.clear()
  assert train(path, workdir, "--config.train.plan.steps=3") == 0
  assert "has its 3 steps" in caplog.text
  assert "compiled" not in caplog.text


def test_data_that_end_lose_nothing(run, capsys):
  path, workdir = run
  changes = ["--config.train.plan={'steps': 9, 'checkpoint_every': 100}"]
  pairs = json.loads(path.read_text())["data"]["datasets"]["pairs"]
  changes.append(f"--config.data.datasets.pairs={pairs | {'repeat': False}}")
  assert train(path, workdir, *changes) == 1
  assert "data ended after step 4" in last_line(capsys)
  assert kept(workdir)[-1] == 4


def test_data_that_spoil_lose_nothing(run, capsys, tmp_path):
  path, workdir = run
  pictures = tmp_path / "pictures"
  shutil.copytree(path.parent, pictures, ignore=lambda *_: ["run"])
  config = json.loads(path.read_text())
  pairs = config["data"]["datasets"]["pairs"]
  pairs |= dict(shuffle=False)
  pairs["source"] |= dict(folder=str(pictures))
  (pictures / "6.png").unlink()
  config["data"]["max_bad_fraction"] = 0.0
  config["train"]["plan"] |= dict(steps=9, checkpoint_every=100)
  path = tmp_path / "spoilt.json"
  path.write_text(json.dumps(config))
  assert train(path, workdir) == 1
  assert "6.png" in last_line(capsys)
  assert kept(workdir)[-1] == 3
  # The bad sample is of the step that was not done, and will be met again.
  (file,) = (workdir / "checkpoints" / "3" / "data").glob("metadata")
  counts = json.loads(file.read_text())["data"]
  assert counts["step"] == 3 and counts["seen"] == {"pairs": 6}
  assert counts["bad"] == {"pairs": 0}


def test_a_run_without_an_evaluation_says_so(trained, capsys):
  assert main.main(["evaluate", "--workdir", str(trained[1])]) == 1
  assert "no 'evaluate'" in last_line(capsys)


@pytest.mark.parametrize("name", ["system", "model", "tokenizer", "train"])
def test_a_config_without_a_part_says_so(trained, name, tmp_path, capsys):
  config = json.loads(trained[0].read_text())
  del config[name]
  path = tmp_path / "part.json"
  path.write_text(json.dumps(config))
  assert train(path, tmp_path / "run") == 1
  assert f"no '{name}'" in last_line(capsys)


@pytest.mark.parametrize("field", ["steps", "log_every", "checkpoint_every"])
def test_a_plan_of_nothing(trained, tmp_path, field, capsys):
  change = f"--config.train.plan.{field}=0"
  assert train(trained[0], tmp_path / "run", change) == 1
  assert f"{field}=0" in last_line(capsys)
  assert not (tmp_path / "run").exists()
