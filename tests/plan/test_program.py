"""What a plan compiles is what a run compiles."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from configs.flamingo import baseline_3b, demo, folder
from mmjax import tree
from mmjax.cli import configs
from mmjax.data import build as data
from mmjax.plan import program
from mmjax.sharding import make_mesh
from mmjax.systems import SYSTEMS
from mmjax.training.sources import make_tokenizer
from mmjax.training.state import init_state
from tests.training.child import tiny


@pytest.fixture(scope="module")
def job():
  return program.make_job(data.plain(tiny(2)), make_mesh(dict(data=1)))


def described(tree_):
  return jax.tree.map(lambda x: (x.shape, str(x.dtype), x.sharding), tree_)


def test_the_state_is_that_of_a_run(job):
  config = job.config
  batches = data.abstract_batches(config["data"])[0]
  example = jax.tree.map(
    lambda x: np.zeros((1, *x.shape[1:]), x.dtype), batches["episodes"]
  )
  real, _ = init_state(
    SYSTEMS["flamingo"].build(config["model"]),
    example,
    rules=config["train"]["trainable"],
    optimizer=lambda _: job.recipe.optimizer,
    mesh=job.mesh,
    frozen_dtype=job.recipe.frozen_dtype,
  )
  assert described(job.state[0]) == described(real)


def test_batches_are_those_of_a_run(job):
  config = job.config["data"]
  tokenizer = make_tokenizer(job.config["tokenizer"])
  with data.batches(config, tokenizer) as batches:
    real = next(batches)
  (planned,) = data.abstract_batches(config)
  shapes = lambda t: jax.tree.map(lambda x: (x.shape, x.dtype), t)  # noqa: E731
  assert shapes(planned) == shapes(real)


def test_shapes_need_no_files():
  (found,) = data.abstract_batches(baseline_3b.get_config().data)
  assert found["m3w"]["media"]["image"]["values"].shape == (
    *(256, 5, 1, 320, 320, 3),
  )
  assert found["vtp"]["media"]["image"]["values"].shape == (
    *(64, 1, 8, 320, 320, 3),
  )
  (found,) = data.abstract_batches(folder.get_config().data)
  assert found["pairs"]["tokens"].shape == (16, 48)


def test_round_robin_has_a_step_for_each_data_set():
  config = demo.get_config().data
  config.update = "round_robin"
  found = data.abstract_batches(config)
  assert [list(step) for step in found] == [["episodes"], ["questions"]]


def test_components_count_every_parameter_once(job):
  rows = program.component_table(job)
  assert sum(r["count"] for r in rows) == tree.count(job.recipe.shapes)
  bytes_ = {(r["component"], r["trainable"]): r["bytes"] for r in rows}
  frozen = tree.flatten(nn.unbox(job.recipe.boxed))["encoder/table"]
  assert bytes_["encoder", False] == frozen.size * 2  # float16


def test_argument_bytes(job):
  (step,) = job.training()
  leaves = jax.tree.leaves(step.arguments)
  total = sum(x.size * x.dtype.itemsize for x in leaves)
  assert step.argument_bytes == total
  assert step.tokens == 8 * 24 + 8 * 72
  assert step.media == 8 * 3 + 8 * 9


def test_a_batch_that_does_not_divide():
  config = data.plain(tiny(2))
  config["data"]["datasets"]["questions"]["batch"] = 6
  mesh = jax.sharding.AbstractMesh(
    (2, 2, 1, 2),
    ("data", "fsdp", "sequence", "tensor"),
  )
  with pytest.raises(program.DoesNotFit) as told:
    program.make_job(config, mesh)
  text = str(told.value)
  assert "config.data.datasets.questions.batch=6" in text
  assert "a batch of 4 or 8" in text
  config["data"]["datasets"]["questions"]["batch"] = 4
  program.make_job(config, mesh)


def test_micro_batches_have_to_divide_too():
  config = data.plain(tiny(2))
  config["train"]["microbatches"] = 3
  with pytest.raises(program.DoesNotFit, match="3 micro-batches.*6 or 9"):
    program.make_job(config, make_mesh(dict(data=1)))


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_numbers_that_stand_in_the_program_take_no_room(stage):
  """Stage 1 of LLaVA keeps some: what is left of frozen layers is constant."""
  config = configs.load(f"configs/llava/{stage}.py:7b", [])
  job = program.make_job(data.plain(config), make_mesh(dict(data=1)))
  assert program.residual_bytes(job) > 2**30


def test_recomputation_keeps_less():
  def kept(remat):
    config = data.plain(tiny(2))
    config["model"]["lm"]["remat"] = remat
    job = program.make_job(config, make_mesh(dict(data=1)))
    return program.residual_bytes(job), job.training()[0].count()

  (none, once), (full, twice) = kept("none"), kept("full")
  assert full < none / 2
  assert twice > once
