"""Step times of small models with the structure of Flamingo's ablations.

A row is timed against the baseline: both are compiled, then they take turns,
and what counts is the processor's time, so that whatever else the machine
does hardly tells. Rows that change nothing in the data run on the first data
set alone, and so does the baseline that they are compared with: compiling is
what takes long.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.flamingo_costs import (
  first_shapes,
  parameters,
  work,
  zeros,
)
from mmjax import tree
from mmjax.data.build import abstract_batch, plain
from mmjax.sharding import make_mesh
from mmjax.systems import flamingo
from mmjax.training.optimizer import make_optimizer
from mmjax.training.state import init_state
from mmjax.training.step import make_step


def random_batch(shapes: Mapping[str, Any], vocab: int, seed: int) -> dict:
  """A batch of such shapes, each token with a medium that it may see."""
  rng = np.random.default_rng(seed)
  batch = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes)
  text = batch["tokens"].shape
  batch["tokens"] = rng.integers(0, vocab, text, np.int32)
  batch["targets"] = rng.integers(0, vocab, text, np.int32)
  batch["positions"] = np.broadcast_to(np.arange(text[1], dtype=np.int32), text)
  image = batch["media"]["image"]
  shape = image["values"].shape
  image["values"] = rng.integers(0, 256, shape, np.uint8)
  first = min(1, shape[1])  # Without media, tokens see number 0: none.
  index = rng.integers(first, shape[1] + 1, text, np.int32)
  image["index"] = np.sort(index, axis=1)
  return batch


def shrink(config: Any) -> dict[str, Any]:
  """The same structure at small widths, with batches of a few rows."""
  config = plain(config)
  model, lm = config["model"], config["model"]["lm"]
  heads = 4
  lm.update(vocab_size=512, width=128, num_heads=heads, hidden=512)
  lm["num_layers"] = min(lm["num_layers"], 24)
  model["dtype"] = "float32"
  model["xattn"]["media_width"] = 128
  resampler = model["resampler"]
  resampler.update(width=128, num_latents=8, project_input=True)
  if "num_heads" in resampler:
    resampler.update(num_heads=heads, head_dim=32)
  encoder = model["encoder"]
  if encoder["name"] == "nfnet":
    # Two stages of the four: less to compile.
    model["encoder"] = dict(
      name="custom_nfnet",
      depths={"F0": (1, 3), "F6": (7, 21)}[encoder["variant"]],
      widths=(32, 64),
      stem=16,
      group=16,
      features=128,
    )
  else:
    model["encoder"] = dict(
      name="vit", width=64, num_layers=8, num_heads=4, patch=16, image_size=64
    )
  config["train"]["frozen_dtype"] = "float32"
  for dataset in config["data"]["datasets"].values():
    dataset["batch"] = max(dataset["batch"] // 128, 1)
    dataset["prompt"]["length"] //= 4
    dataset["transforms"] = ({"name": "square", "size": 64},)
    if "frames" in dataset:
      dataset["frames"] = 4
  return config


def prepare(config: Mapping[str, Any], loaded: Mapping[str, Any] | None = None):
  """The compiled step of a small config, its state and its batches.

  With round-robin there is one call a data set; so is its list of batches.
  Parameters are drawn but for those in `loaded`.
  """
  module = flamingo.build(config["model"])
  datasets, train = config["data"]["datasets"], config["train"]
  made = {}

  def optimizer(trainable):
    made["tx"], _ = make_optimizer(train["optimizer"], trainable, 1000)
    return made["tx"]

  state, where = init_state(
    module,
    zeros(first_shapes(config)),
    rules=train["trainable"],
    optimizer=optimizer,
    mesh=make_mesh({"data": -1}),
    loaded=loaded,
  )
  weights = {name: d.get("weight", 1.0) for name, d in datasets.items()}
  step = make_step(
    lambda params, batch: flamingo.loss(module, params, batch),
    made["tx"],
    weights,
  )
  vocab = config["model"]["lm"]["vocab_size"]
  batches = {
    name: jax.device_put(random_batch(abstract_batch(d), vocab, i))
    for i, (name, d) in enumerate(datasets.items())
  }
  if config["data"]["update"] == "round_robin":
    rounds = [{name: batch} for name, batch in batches.items()]
  else:
    rounds = [batches]
  # Without the layout of the state, the second call would compile again.
  compiled = jax.jit(step, donate_argnums=0, out_shardings=(where, None))
  return compiled, state, rounds


def pair(config: Any, baseline: Any) -> tuple[dict, dict]:
  """A row and the baseline that it is timed against, both small."""
  row, base = shrink(config), shrink(baseline)
  ours, theirs = work(row), work(base)
  if all(ours[key] == theirs[key] for key in ("datasets", "update")):
    for small in (row, base):
      datasets = small["data"]["datasets"]
      small["data"]["datasets"] = dict([next(iter(datasets.items()))])
  return row, base


def timer(config: Mapping[str, Any]) -> Callable[[], float]:
  """A function that runs one round of a small config and says how long."""
  # Compiling how parameters are drawn would take longer than the step.
  loaded = {
    path: np.full(shape.shape, 0.01, np.float32)
    for path, shape in tree.flatten(parameters(config)).items()
  }
  step, state, rounds = prepare(config, loaded)

  def run():
    nonlocal state
    start = time.process_time()
    for batches in rounds:
      state, _ = step(state, batches)
    jax.block_until_ready(state)
    return time.process_time() - start

  run()  # Compiles.
  return run


def measure(
  rows: Mapping[str, Any], file: Path, repeats: int = 8
) -> dict[str, float]:
  """Seconds of small models over those of the first row's, by row.

  Args:
    rows: configs at full size; the first is the baseline.
    file: gets each ratio when it is known, and what it has is not measured
      again: compiling takes a minute or more a row.
    repeats: turns of each; the shortest counts.
  """
  found = json.loads(file.read_text()) if file.is_file() else {}
  known: dict[str, float] = {}
  timers: dict[str, Callable[[], float]] = {}
  first = next(iter(rows.values()))
  for name, config in rows.items():
    row, base = pair(config, first)
    key, base_key = (json.dumps(work(c), sort_keys=True) for c in (row, base))
    if name not in found and key not in known:
      if base_key not in timers:
        timers[base_key] = timer(base)
      # The baseline against itself shows how much is chance.
      run = timers[key] if key in timers else timer(row)
      times = [(run(), timers[base_key]()) for _ in range(repeats)]
      found[name] = min(t for t, _ in times) / min(t for _, t in times)
      print(f"{name}: {found[name]:.3f}", flush=True)
    known[key] = found.setdefault(name, known.get(key))
    file.write_text(json.dumps(found, indent=2) + "\n")
  return found
