import jax
import numpy as np
import pytest

from benchmarks.flamingo_table3 import PAPER, parameters, prepare, shrink
from configs.flamingo import (
  ablations,
  baseline_3b,
  flamingo_9b,
  flamingo_80b,
  open_flamingo,
)
from mmjax import tree
from mmjax.cli import configs
from mmjax.data import build as data
from mmjax.training.state import trainable_mask

ENCODER, RESAMPLER = 435_286_116, 193_628_160


def counts(config):
  params = parameters(config)
  trainable_mask(params, config.train.trainable)  # Every pattern matches.
  return {name: tree.count(part) for name, part in params.items()}


@pytest.mark.parametrize(
  "make, depth, blocks, width, total",
  [
    (baseline_3b.get_config, 24, 24, 2048, 3.2110e9),
    (flamingo_9b.get_config, 40, 10, 4096, 11.50e9),
    (lambda: flamingo_9b.get_config("table5"), 32, 8, 4096, 9.3499e9),
    (flamingo_80b.get_config, 80, 12, 8192, 80.348e9),
  ],
  ids=["3b", "9b", "9b_table5", "80b"],
)
def test_flamingo_counts(make, depth, blocks, width, total):
  found = counts(make())
  assert found["encoder"] == ENCODER
  assert found["resampler"] == RESAMPLER
  # Matrices, and scale and offset of three norms, and two gates.
  assert found["blocks"] == blocks * (12 * width**2 + 6 * width + 2)
  assert found["media_project"] == 1536 * width
  # 13 D^2 a layer with two norms and two position biases; the last norm; the
  # row of <EOC>.
  layer = 13 * width**2 + 4 * width
  assert found["lm"] == depth * layer + (32_000 + 2) * width
  assert sum(found.values()) == pytest.approx(total, rel=0.002)


@pytest.mark.parametrize(
  "size, block, blocks, trainable",
  [
    ("3B", 36_708_354, 24, 944_019_504),
    ("3B-I", 36_708_354, 24, 944_019_504),
    ("4B", 56_109_058, 16, 960_763_936),
    ("4B-I", 56_109_058, 16, 960_763_936),
    ("9B", 139_476_994, 8, 1_178_834_960),
  ],
)
def test_open_flamingo_counts(size, block, blocks, trainable):
  config = open_flamingo.get_config(size)
  found = counts(config)
  assert found["resampler"] == 63_019_008
  assert found["blocks"] == blocks * block
  assert found["resampler"] + found["blocks"] == trainable
  mask = trainable_mask(parameters(config), config.train.trainable)
  rows = [path for path in mask if path.endswith("extra")]
  assert rows and {mask[path] for path in rows} == {not size.startswith("4B")}


@pytest.mark.parametrize("row", ablations.ABLATIONS)
def test_ablation_counts(row):
  total = sum(counts(ablations.make(row)).values())
  assert total == pytest.approx(PAPER[row][0] * 1e9, abs=0.06e9)


def test_a_row_changes_only_what_it_names():
  base = baseline_3b.get_config().to_json()
  assert ablations.make("(v) every 4th").to_json() != base
  assert ablations.make().to_json() == base
  with pytest.raises(KeyError):
    ablations.apply(
      baseline_3b.get_config(), {"data.datasets.x": ablations.REMOVED}
    )


def test_missing_data_are_named(monkeypatch, tmp_path):
  monkeypatch.delenv("MMJAX_DATA", raising=False)
  config = configs.load("configs/flamingo/baseline_3b.py")
  source = config.data.datasets.m3w.source
  with pytest.raises(ValueError, match=r"\$MMJAX_DATA/m3w"):
    data.documents(
      data.plain(source), data.plain(config.data.datasets.m3w.format)
    )


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["baseline", "open_flamingo"])
def test_one_small_layer_trains(kind):
  if kind == "baseline":
    config = baseline_3b.get_config()
    config.data.datasets = {"m3w": config.data.datasets.m3w}
  else:
    config = open_flamingo.get_config("3B")
    config.data.datasets = {"mmc4": config.data.datasets.mmc4}
  config.model.lm.num_layers = config.model.resampler.depth = 1
  small = shrink(config)
  encoder = small["model"]["encoder"]
  if kind == "baseline":
    encoder["depths"] = (1, 1, 1, 1)
  else:
    encoder["num_layers"] = 1
  for dataset in small["data"]["datasets"].values():
    dataset["batch"] = 2
  step, state, (batches,) = prepare(small)
  before = jax.tree.map(np.array, state.trainable)
  for _ in range(2):  # The learning rate of the first step is 0.
    state, metrics = step(state, batches)
  assert int(state.skipped) == 0
  assert np.isfinite(float(metrics["grad_norm"][0]))
  gates = ("attention_gate", "mlp_gate")
  for gate in gates:
    assert np.abs(state.trainable["blocks"][gate]).max() > 0
    assert np.all(before["blocks"][gate] == 0)
