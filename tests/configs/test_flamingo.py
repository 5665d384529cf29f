import contextlib

import jax
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from benchmarks import flamingo_fit
from benchmarks.flamingo_costs import parameters
from benchmarks.flamingo_small import prepare, shrink
from benchmarks.flamingo_table3 import PAPER
from configs.flamingo import (
  ablations,
  baseline_3b,
  flamingo_9b,
  flamingo_80b,
  open_flamingo,
)
from mmjax import tree
from mmjax.cli import configs
from mmjax.config import build
from mmjax.data import build as data
from mmjax.data.document import Filtered
from mmjax.data.formats import FORMATS
from mmjax.text.tokenizer import drawn as drawn_tokenizer
from mmjax.training.state import trainable_mask
from tests.data.test_formats import mmc4

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


def test_open_flamingo_leaves_out_half_of_the_documents_with_one_image():
  named = open_flamingo.get_config().data.datasets.mmc4.format
  read, kept = build(FORMATS, data.plain(named)), 0
  for i in range(200):
    with contextlib.suppress(Filtered):
      read(mmc4([[0.1, 0.9, 0.1]]) | {"__key__": f"d{i}"})
      kept += 1
  assert 75 < kept < 125


@pytest.mark.parametrize("row", ablations.ABLATIONS)
def test_ablation_counts(row):
  total = sum(counts(ablations.make(row)).values())
  assert total == pytest.approx(PAPER[row][0] * 1e9, abs=0.06e9)


def test_rows_are_those_of_the_paper():
  assert set(PAPER) == {"baseline", *ablations.ABLATIONS}


@pytest.mark.parametrize(
  "row, part",
  [
    ("(viii) LM trained", "lm"),
    ("T10 (v) vision trained", "encoder"),
    ("T10 (vi) co-trained LM", "lm"),
  ],
)
def test_random_and_pretrained_differ_by_init_alone(row, part):
  random = ablations.make(f"{row}, random").to_dict()
  pretrained = ablations.make(f"{row}, pretrained").to_dict()
  assert (
    pretrained["init"].pop(part)
    == baseline_3b.get_config().init[part].to_dict()
  )
  if "co-trained" in row:  # The paper lowers the pretrained one's rate.
    scale = pretrained["train"]["optimizer"].pop("lr_scale")
    rates = tree.match(parameters(baseline_3b.get_config()), scale)
    assert {rates[k] for k in rates if k.startswith("lm/layers")} == {0.1}
    assert rates["lm/embedding/extra"] == rates["blocks/mlp_gate"] == 1
  assert random == pretrained


@pytest.mark.parametrize("row", [None, *ablations.ABLATIONS])
def test_parts_to_load_are_there(row):
  config = ablations.make(row)
  assert set(config.init) <= set(parameters(config))
  assert all(source.name == "converted" for source in config.init.values())


def test_text_alone_is_read_and_sees_no_medium(tmp_path):
  rows = pyarrow.table({"images": [[None]], "texts": [["Plain text."]]})
  parquet.write_table(rows, tmp_path / "a.parquet")
  entry = ablations.make("T10 (vi) co-trained LM, random").data.datasets
  entry = data.plain(entry.massivetext)
  source = {**entry["source"], "paths": [str(tmp_path / "a.parquet")]}
  example = data.dataset(
    {**entry, "batch": 1, "source": source},
    drawn_tokenizer(),
    0,
    "massivetext",
  ).stream[0]
  assert not example["skipped"]["bad"], example["skipped"]["why"]
  image = example["media"]["image"]
  assert image["mask"].shape == (0, 1) and not image["index"].any()
  assert example["weights"].any()


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
    encoder["depths"] = (1,) * len(encoder["widths"])
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


def test_prices_are_found_again():
  costs = flamingo_fit.HYPOTHESES[flamingo_fit.BEST]
  rows = [
    flamingo_fit.Row(0.5 * a + 0.1 * b, dict(zip(costs, (a, b))))
    for a, b in ((2.0, 5.0), (1.0, 5.0), (2.0, 1.0), (3.0, 8.0))
  ]
  prices, errors = flamingo_fit.fit(rows, costs)
  np.testing.assert_allclose(prices, (0.5, 0.1), rtol=1e-6)
  np.testing.assert_allclose(errors, 0, atol=1e-6)
  # More chips share the operations and nothing else.
  more = flamingo_fit.Row(0, rows[0].features, chips=4)
  assert flamingo_fit.predict(more, costs, prices) == pytest.approx(1.0 + 2.0)
