"""The programs that a run compiles, made from its config for any machine.

No array exists: parameters, optimizer state and batches are shapes that know
how they are cut over a mesh.
"""

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax import flops, tree
from mmjax.config import lookup, require
from mmjax.data import build as data
from mmjax.sharding import BATCH
from mmjax.systems import SYSTEMS
from mmjax.training.recipe import Recipe, make_recipe
from mmjax.typing import PyTree


class DoesNotFit(ValueError):
  """A config that cannot run on a machine as it is."""


@dataclasses.dataclass(frozen=True)
class Program:
  """One function that the devices run.

  Attributes:
    name: "train", "train/m3w", "prefill" or "decode".
    function: of `arguments`.
    arguments: shapes with their shardings.
    options: of `jax.jit`.
    tokens: positions of text that a run reads or writes, padding included.
    media: images and frames that it encodes, empty slots included.
    key: of what decides its operations.
  """

  name: str
  function: Callable
  arguments: tuple[PyTree, ...]
  options: Mapping[str, Any]
  tokens: int
  media: int
  key: str

  def lower(self) -> jax.stages.Lowered:
    """The program before the compiler sees it; under the mesh it is for."""
    return jax.jit(self.function, **self.options).lower(*self.arguments)

  def count(self) -> int:
    """Operations of a run on all devices, as traced."""
    if self.key not in _counts:
      with _only_counting():
        _counts[self.key] = flops.count(self.function, *self.arguments)
    return _counts[self.key]

  @property
  def trains(self) -> bool:
    """Whether it is a training step."""
    return self.name.startswith("train")

  @property
  def argument_bytes(self) -> int:
    """On one device."""
    return sum(map(shard_bytes, jax.tree.leaves(self.arguments)))


@contextlib.contextmanager
def _only_counting() -> Iterator[None]:
  """Mutes the dispatcher: what is traced here runs nowhere."""
  dispatcher = logging.getLogger("mmjax.layers.dispatch")
  before, dispatcher.disabled = dispatcher.disabled, True
  try:
    yield
  finally:
    dispatcher.disabled = before


# A search asks for the same model on many meshes.
_counts: dict[str, int] = {}
_residuals: dict[str, int] = {}
_recipes: dict[str, Recipe] = {}


@dataclasses.dataclass(frozen=True)
class Job:
  """A config on a mesh.

  Attributes:
    config: plain.
    recipe: of its training.
    mesh: devices, or their abstract stand-in.
  """

  config: Mapping[str, Any]
  recipe: Recipe
  mesh: Mesh

  @functools.cached_property
  def state(self):
    """The training state's shapes, and its shardings."""
    return self.recipe.abstract_state(self.mesh)

  def training(self) -> list[Program]:
    """The training step; one for each data set that has steps of its own."""
    config = self.config
    system = SYSTEMS[config["system"]]
    weights = {
      name: entry.get("weight", 1.0)
      for name, entry in config["data"]["datasets"].items()
    }
    step = self.recipe.step(
      lambda params, batch: system.loss(self.recipe.module, params, batch),
      weights,
    )
    state, where = self.state
    options = dict(donate_argnums=0, out_shardings=(where, None))
    rounds = data.abstract_batches(config["data"])
    return [
      Program(
        "train" if len(rounds) == 1 else f"train/{'+'.join(batches)}",
        step,
        (state, self.placed(batches)),
        options,
        *_sizes(batches),
        key=self.key(batches),
      )
      for batches in rounds
    ]

  def key(self, batches: PyTree) -> str:
    """Equal for programs of equal operations."""
    config, train = self.config, self.config["train"]
    named = [config["system"], config["model"], train["trainable"]]
    named += [train.get("microbatches", 1), train["optimizer"]]
    return repr((named, jax.tree.map(lambda x: (x.shape, x.dtype), batches)))

  def placed(self, batches: PyTree) -> PyTree:
    """Shapes of batches, cut over the devices as the loop cuts them."""
    sharding = NamedSharding(self.mesh, P(BATCH))
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      batches,
    )


def make_job(config: Mapping[str, Any], mesh: Mesh) -> Job:
  """A config on a mesh.

  Raises:
    ValueError: for a config that `mmjax train` would refuse.
    DoesNotFit: when batches do not divide.
  """
  config = data.plain(config)
  require(config, ("system", "model", "data", "train"))
  system = lookup(SYSTEMS, config["system"], "system")
  batches = data.abstract_batches(config["data"])
  train = config["train"]
  _check_batches(batches, mesh, train.get("microbatches", 1))
  module = system.build(config["model"])
  example = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype),
    next(iter(batches[0].values())),
  )
  key = repr((config["system"], config["model"], train, example))
  if key not in _recipes:
    steps = train.get("plan", {}).get("steps", 1)
    _recipes[key] = make_recipe(train, module, example, steps)
  return Job(config, _recipes[key], mesh)


def _check_batches(
  rounds: list[dict[str, PyTree]], mesh: Mesh, microbatches: int
) -> None:
  """Whether rows divide over the devices, and over micro-batches."""
  parts = math.prod(mesh.shape[axis] for axis in BATCH)
  for name, batch in {k: v for r in rounds for k, v in r.items()}.items():
    rows = batch["tokens"].shape[0]
    need = parts * microbatches
    if rows % need == 0:
      continue
    fits = sorted({max(rows // need, 1) * need, -(-rows // need) * need})
    axes = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in BATCH)
    times = f" in {microbatches} micro-batches" if microbatches > 1 else ""
    raise DoesNotFit(
      f"config.data.datasets.{name}.batch={rows} does not divide over "
      f"{parts} devices ({axes} of config.mesh){times}. What does: a batch of "
      f"{' or '.join(map(str, fits))}, or "
      f"{math.gcd(rows // math.gcd(rows, microbatches), parts)} devices on "
      "these axes and the others on `tensor`."
    )


def _sizes(batches: Mapping[str, PyTree]) -> tuple[int, int]:
  """Tokens and media of a step."""
  tokens = sum(math.prod(b["tokens"].shape) for b in batches.values())
  media = sum(
    math.prod(m["mask"].shape)
    for b in batches.values()
    for m in b["media"].values()
  )
  return tokens, media


def shard_bytes(x: jax.ShapeDtypeStruct) -> int:
  """Bytes of an array on one device."""
  shape = x.sharding.shard_shape(x.shape)
  return math.prod(shape) * np.dtype(x.dtype).itemsize


def residual_bytes(job: Job) -> int:
  """Bytes, on all devices, that the forward pass keeps for the backward one.

  Parameters and batches, which are there anyway, do not count; copies of them
  in another type or shape do, once. Of several data sets and micro-batches,
  the largest.
  """
  most = 0
  for batches in data.abstract_batches(job.config["data"]):
    for batch in batches.values():
      one, two = (_residuals_of(job, batch, rows) for rows in (1, 2))
      rows = batch["tokens"].shape[0] // job.recipe.microbatches
      most = max(most, one + (rows - 1) * (two - one))
  return most


def _residuals_of(job: Job, batch: PyTree, rows: int) -> int:
  part = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), batch
  )
  key = job.key(part)
  if key not in _residuals:
    _residuals[key] = _trace_residuals(job, part)
  return _residuals[key]


def _trace_residuals(job: Job, batch: PyTree) -> int:
  """Bytes that a batch keeps: all that is neither parameter nor batch."""
  system = SYSTEMS[job.config["system"]]

  def residuals(trainable, frozen, batch):
    def loss(trainable):
      params = tree.merge(trainable, frozen)
      return system.loss(job.recipe.module, params, batch)["loss"][0]

    return jax.tree.leaves(jax.vjp(loss, trainable)[1])

  state, _ = job.state
  plain = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
    (state.trainable, state.frozen),
  )
  with _only_counting():
    traced = jax.make_jaxpr(residuals)(*plain, batch).jaxpr
  # A literal is a number in the program, and takes no room of its own.
  kept = {v for v in traced.outvars if not isinstance(v, Literal)}
  new = kept - set(traced.invars)
  return sum(v.aval.size * v.aval.dtype.itemsize for v in new)


def component_table(job: Job) -> list[dict[str, Any]]:
  """Parameters by component and whether they train.

  Returns:
    rows of `component`, `trainable`, `count`, `bytes`, `device_bytes`, and
    `sharding`: the name of a dim to the mesh axis that it is cut over.
  """
  state, _ = job.state
  rows: dict[tuple[str, bool], dict[str, Any]] = {}
  names = tree.flatten(job.recipe.boxed)
  for trains, part in ((True, state.trainable), (False, state.frozen)):
    for path, x in tree.flatten(part).items():
      component = path.split("/")[0]
      row = rows.setdefault(
        (component, trains),
        dict(component=component, trainable=trains, count=0, bytes=0)
        | dict(device_bytes=0, sharding={}),
      )
      row["count"] += x.size
      row["bytes"] += x.size * np.dtype(x.dtype).itemsize
      row["device_bytes"] += shard_bytes(x)
      dims = getattr(names[path], "names", ())
      row["sharding"] |= {
        str(dim): axis
        for dim, axis in zip(dims, x.sharding.spec)
        if axis is not None and job.mesh.shape[axis] > 1
      }
  return sorted(rows.values(), key=lambda row: row["component"])
