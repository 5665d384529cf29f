"""Parameters and operations of a Flamingo config at full size, from shapes.

Nothing is allocated: parameters come from `jax.eval_shape`, operations from
the traced training loss and its gradient.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax import flops, tree
from mmjax.data.build import abstract_batch, plain
from mmjax.systems import flamingo
from mmjax.training.state import abstract_params, trainable_mask

# What an operation belongs to, by what stands in its scope; the first counts.
COMPONENTS = {
  "Flamingo.encode": "vision",
  "resampler": "resampler",
  "media_project": "resampler",
  "GatedCrossAttention": "blocks",
  "graft": "blocks",
  "": "lm",
}

# (component, "forward" or "backward") to operations.
Counts = Counter[tuple[str, str]]


def first_shapes(config: Mapping[str, Any]) -> dict[str, Any]:
  """One row of the first data set, enough to initialise a model."""
  dataset = next(iter(config["data"]["datasets"].values()))
  return abstract_batch({**dataset, "batch": 1})


def parameters(config: Mapping[str, Any]) -> dict[str, Any]:
  """Shapes of all parameters of a config."""
  config = plain(config)
  key = json.dumps(config["model"], sort_keys=True)
  # Rows share models, and tracing an NFNet-F6 takes seconds.
  if key not in _traced:
    module = flamingo.build(config["model"])
    _traced[key] = nn.unbox(abstract_params(module, first_shapes(config)))
  return _traced[key]


_traced: dict[str, dict[str, Any]] = {}


def split(config: Mapping[str, Any]) -> tuple[dict, dict]:
  """Shapes of what trains, and of what is frozen."""
  params = parameters(config)
  rules = plain(config)["train"]["trainable"]
  return tree.split(params, trainable_mask(params, rules))


def work(config: Mapping[str, Any]) -> dict[str, Any]:
  """What decides how a row's update computes: equal keys, equal operations."""
  config = plain(config)
  datasets = {
    name: (
      jax.tree.map(lambda s: (str(s.dtype), s.shape), abstract_batch(dataset)),
      dataset["batch"],
    )
    for name, dataset in config["data"]["datasets"].items()
  }
  return {
    "model": config["model"],
    "trainable": config["train"]["trainable"],
    "update": config["data"]["update"],
    "datasets": datasets,
  }


def operations(config: Mapping[str, Any]) -> dict[str, Counts]:
  """Of one batch of each data set, by component and pass."""
  config = plain(config)
  module = flamingo.build(config["model"])
  trainable, frozen = split(config)

  def loss(trainable, frozen, batch):
    merged = tree.merge(trainable, frozen)
    return flamingo.loss(module, merged, batch)["loss"][0]

  found = {}
  for name, dataset in config["data"]["datasets"].items():
    one = abstract_batch({**dataset, "batch": 1})
    key = json.dumps(
      work({**config, "data": {"update": "", "datasets": {"": dataset}}}),
      sort_keys=True,
    )
    if key not in _counted:
      _counted[key] = flops.by_scope(jax.grad(loss), trainable, frozen, one)
    found[name] = Counter()
    for scope, count in _counted[key].items():
      found[name][_belongs(scope)] += dataset["batch"] * count
  return found


_counted: dict[str, Counter[str]] = {}


def _belongs(scope: str) -> tuple[str, str]:
  component = next(n for part, n in COMPONENTS.items() if part in scope)
  return component, "backward" if "transpose(" in scope else "forward"


def total(
  counts: Mapping[str, Counts],
  component: str | None = None,
  direction: str | None = None,
) -> int:
  """Of all data sets together; of one component, of one pass."""
  return sum(
    count
    for counter in counts.values()
    for (of, where), count in counter.items()
    if component in (None, of) and direction in (None, where)
  )


def zeros(shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Arrays of such shapes."""
  return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
