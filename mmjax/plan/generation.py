"""The two programs of generation: reading prompts, and the next token."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.data import build as data
from mmjax.generation import sample
from mmjax.plan.program import Job, Program
from mmjax.sharding import BATCH
from mmjax.typing import PyTree


def generation(job: Job) -> list[Program]:
  """Prefill and decode, of the prompts of the config's evaluation.

  `config.evaluate` says how long they are, how many media they have and how
  many are answered at once (`prompt.length`, `prompt.media`,
  `model.batch_size`, `model.max_new_tokens`), else the first data set and the
  defaults of evaluation.model.Model, which fills a batch up to what the
  devices divide, too. Parameters lie as in training.
  """
  settings = job.config.get("evaluate", {})
  fields = settings.get("model", {})
  parts = math.prod(job.mesh.shape[axis] for axis in BATCH)
  rows = -(-fields.get("batch_size", 32) // parts) * parts
  batch = _prompts(job, settings.get("prompt", {}), rows)
  size = batch["tokens"].shape[1] + fields.get("max_new_tokens", 10)
  prefill = _prefill(job, batch, size)
  return [prefill, _decode(job, prefill, rows)]


def _prompts(
  job: Job, changes: Mapping[str, Any], rows: int
) -> dict[str, PyTree]:
  """Shapes of a batch of prompts, over the devices."""
  first = next(iter(job.config["data"]["datasets"].values()))
  entry = {
    k: v for k, v in first.items() if k != "fill" and not k.startswith("pack")
  }
  entry |= {"prompt": dict(first["prompt"]) | dict(changes), "batch": rows}
  return job.placed(data.abstract_batch(entry))


def _prefill(job: Job, batch: PyTree, size: int) -> Program:
  state, _ = job.state
  return Program(
    name="prefill",
    function=functools.partial(_run_prefill, job.recipe.module, size=size),
    arguments=(state.params, batch),
    options={},
    tokens=math.prod(batch["tokens"].shape),
    media=sum(math.prod(m["mask"].shape) for m in batch["media"].values()),
    key=f"prefill {size} {job.key(batch)}",
  )


def _run_prefill(module, params, batch, size):
  return sample.prefill(module, params, batch, size)


def _decode(job: Job, prefill: Program, rows: int) -> Program:
  """One token for every row, from the state that prefill leaves."""
  _, left = jax.eval_shape(prefill.function, *prefill.arguments)
  tokens = jax.ShapeDtypeStruct(
    (rows, 1), jnp.int32, sharding=NamedSharding(job.mesh, P(BATCH))
  )
  return Program(
    name="decode",
    function=functools.partial(_run_decode, job.recipe.module),
    arguments=(prefill.arguments[0], tokens, _by_rows(left, rows, job.mesh)),
    options=dict(donate_argnums=2),
    tokens=rows,
    media=0,
    key=f"decode {prefill.key}",
  )


def _run_decode(module, params, tokens, state):
  return sample.apply(module, params, "decode", tokens, state)


def _by_rows(state: PyTree, rows: int, mesh: Any) -> PyTree:
  """The state's arrays, each cut over the devices by the rows of the batch.

  Caches lead with their layers, [layers B ...]; other arrays with the rows.
  """

  def one(x):
    # Layers may be as many as rows; then the second dim is the rows'.
    places = [i for i in (1, 0) if x.shape[i : i + 1] == (rows,)]
    place = places[0] if places else None
    spec = P() if place is None else P(*(None,) * place, BATCH)
    sharding = NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  return jax.tree.map(one, state)
