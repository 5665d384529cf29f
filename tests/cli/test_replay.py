"""The batch of a step, again."""

import numpy as np
import pytest

from mmjax import tree
from mmjax.cli import main
from mmjax.cli.replay import replay
from mmjax.data import build
from mmjax.training.sources import make_tokenizer
from tests.systems.documents import data, write
from tests.training.towers import config as towers


def config(**changes):
  made = towers("", batch=4)
  made.data.datasets.pairs.update(changes)
  return made


def test_it_is_the_batch_of_the_run(tmp_path):
  lines = []
  again = replay(config(), 3, tmp_path / "batch.npz", write=lines.append)
  plain = build.plain(config().data)
  with build.batches(plain, make_tokenizer(dict(name="drawn"))) as batches:
    for _ in range(3):
      batch = next(batches)
    records = batches.records(3)["pairs"]
    assert f"'pairs': {records[0]}, {records[1]}" in batches.describe(3)
  flat, same = tree.flatten(again), tree.flatten(batch)
  saved = np.load(tmp_path / "batch.npz")
  assert flat.keys() == same.keys() == set(saved.files)
  for path, value in same.items():
    np.testing.assert_array_equal(flat[path], value)
    np.testing.assert_array_equal(saved[path], value)
  text = "\n".join(lines)
  assert "step 3, pairs: tokens int32[4, 16]" in text
  for record in records:
    assert f"[{record}] " in text and record.startswith("pairs:")


def test_parts_of_a_mixture_and_of_packed_rows_are_found():
  source = dict(name="drawn", tasks=dict(caption=dict(shots=[0])))
  mixed = config(
    mix=dict(a=dict(source=source, share=1), b=dict(source=source, share=3)),
    pack=2,
  )
  del mixed.data.datasets.pairs.source
  lines = []
  replay(mixed, 1, write=lines.append)
  shown = [line for line in lines if line.startswith("[pairs/")]
  assert len(shown) == 4 * 2
  assert {line.split(":")[0] for line in shown} == {"[pairs/a", "[pairs/b"}


def test_there_is_no_step_0():
  with pytest.raises(ValueError, match="expected 1 or more"):
    replay(config(), 0)


def test_a_step_behind_the_end_of_the_data(tmp_path):
  finite = data(write(tmp_path / "d.jsonl"), batch=4, repeat=False)
  settings = dict(tokenizer=dict(name="drawn"), data=finite)
  assert list(replay(settings, 1, write=lambda line: None)) == ["documents"]
  with pytest.raises(ValueError, match="no step 2: .* ends before it"):
    replay(settings, 2)


def test_a_run_or_a_config_has_to_be_named(capsys, tmp_path):
  assert main.main(["data", "replay", "--step", "1"]) == 1
  assert "--workdir" in capsys.readouterr().err
  arguments = ["--step", "1", "--workdir", str(tmp_path)]
  assert main.main(["data", "replay", *arguments]) == 1
  assert "no config.json" in capsys.readouterr().err
