"""Every full-size config compiles for the machine that it names, and fits."""

import jax
import pytest

from benchmarks.plans import ALL, GPU_PLANS, run
from mmjax.cli.configs import load
from mmjax.data.build import plain
from mmjax.plan import planning, program
from mmjax.plan.topology import installed, parse

pytestmark = pytest.mark.heavy
needs_libtpu = pytest.mark.skipif(
  not installed("libtpu"), reason="needs libtpu: requirements-tpu.txt"
)
needs_cuda = pytest.mark.skipif(
  not (installed("jax_cuda12_plugin") or installed("jax_cuda13_plugin")),
  reason="needs JAX's CUDA plugin: requirements-cuda.txt",
)
# Half a minute; the others take as long, or two.
QUICK = ("llava_7b_stage2",)


def case(name):
  compiler = needs_cuda if name in GPU_PLANS else needs_libtpu
  marks = () if name in QUICK else (pytest.mark.long,)
  return pytest.param(name, marks=(compiler, *marks))


@pytest.mark.parametrize("name", [case(name) for name in ALL])
def test_it_fits(name):
  found = run(*ALL[name])
  assert found["fits"] and not found["unchecked"]
  for step in found["programs"]:
    assert step["memory"]["compiled"]
    # No collective brings a whole stack of parameters together at once.
    largest = max(row["bytes"] for row in found["parameters"])
    gathered = [c for c in step["talk"] if c["kind"] == "all-gather"]
    assert all(c["bytes"] / c["runs"] < largest / 4 for c in gathered)
    # Gradients of frozen weights would be a third more. Kernels do not count.
    if step["multiplied"] and name.startswith("llava"):
      share = step["multiplied"] * found["devices"] / step["executed"]
      assert 0.8 < share < 1.03


@pytest.mark.parametrize("size", ["7b", "13b", "v1_7b", "v1_13b"])
@pytest.mark.parametrize(
  "config,passes", [("pretrain", 2), ("finetune", 3), ("finetune_lora", 2)]
)
def test_llava_makes_gradients_of_what_trains_alone(config, size, passes):
  """Products with each weight: forward, for what is before it, for itself."""
  config = plain(load(f"configs/llava/{config}.py:{size}"))
  config = planning.without_remat(config)
  mesh = planning._abstract_mesh(config, parse(config["topology"]))
  job = program.make_job(config, mesh)
  state, _ = job.state
  (step,) = job.training()
  (entry,) = config["data"]["datasets"].values()
  lm, length = config["model"]["lm"], entry["prompt"]["length"]

  def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))

  # Two moments of each, and what counts the steps.
  assert count(state.opt_state) == 2 * count(state.trainable) + 2
  # Without the table, which is looked up.
  weights = 13_015_864_320 if "13b" in size else 6_738_415_616
  weights -= lm["vocab_size"] * lm["width"]
  low_rank = count(state.trainable) if "lora" in lm else 0
  expected = 2 * step.tokens * (passes * weights + 3 * low_rank)
  # Queries with keys, and what they choose, of all pairs of positions.
  expected += 12 * step.tokens * length * lm["num_layers"] * lm["width"]
  # CLIP, 23 layers forward.
  expected += 2 * step.media * (entry["prompt"]["media_tokens"] + 1) * 300e6
  assert step.count() == pytest.approx(expected, rel=0.01)
