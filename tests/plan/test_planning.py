"""Plans from shapes, which need no compiler, and what they say."""

import contextlib
import dataclasses
import itertools
import json
from pathlib import Path

import jax
import pytest

import configs
from benchmarks.plans import PLANS
from mmjax import tree
from mmjax.cli import main
from mmjax.cli import plan as cli_plan
from mmjax.cli.configs import load, parted
from mmjax.data.build import plain
from mmjax.plan import (
  generation,
  planning,
  program,
  report,
  roofline,
  search,
  topology,
)
from mmjax.plan.chips import CHIPS
from mmjax.plan.collectives import Collective
from mmjax.plan.topology import parse
from mmjax.sharding import make_mesh
from tests.training.child import tiny

NO_TPU = not topology.installed("libtpu")


@pytest.fixture
def no_compiler(monkeypatch):
  """As where neither extra is installed."""
  monkeypatch.setattr(topology, "installed", lambda package: False)


@pytest.fixture
def config():
  return plain(tiny(2, data=-1))


@pytest.fixture
def path(tmp_path, config):
  file = tmp_path / "tiny.json"
  file.write_text(json.dumps(config))
  return str(file)


def test_a_plan_from_shapes(no_compiler, config):
  found = planning.make_plan(config, parse("v5e:2x2"))
  (step,) = found.programs
  assert found.fits and not step.memory.compiled
  assert "libtpu" in found.unchecked[0]
  # Nothing is known of memory traffic or links, so computing is the bound.
  assert step.times.bound == "compute"
  assert step.times.seconds == step.executed / 4 / 197e12
  assert step.mfu(found.topology) == 1.0
  text = report.as_text(found, tokens=1e6)
  assert "estimated from shapes" in text and "Not checked" in text


def test_device_bytes_are_a_share(no_compiler, config):
  config["mesh"] = dict(data=2, fsdp=2)
  config["data"]["datasets"]["episodes"]["batch"] = 8
  whole = planning.make_plan(config, parse("v5e:2x2")).parameters
  for row in whole:
    assert row["device_bytes"] <= row["bytes"]
    if row["component"] == "blocks":
      assert row["sharding"] == {"embed": "fsdp"}
      assert row["device_bytes"] < 0.6 * row["bytes"]


def test_the_budget(no_compiler, config):
  found = planning.make_plan(config, parse("h200:2x4"))
  (step,) = found.programs
  spent = report.budget(found, 10 * step.tokens)
  assert spent["steps"] == 10
  seconds = 10 * step.times.seconds
  assert spent["days"] == pytest.approx(seconds / 86400)
  assert spent["device_hours"] == pytest.approx(seconds * 8 / 3600)
  json.dumps(report.as_dict(found, 1e6))


def test_what_does_not_fit_is_told_with_what_does(no_compiler, config, capsys):
  """On a device of a few hundred kilobytes."""
  job = planning.estimate_memory(config, parse("v5e:2x2"))
  # Room for the state and a third of what the backward pass keeps.
  memory = job.arguments + (job.peak - job.arguments) // 3
  chip = dataclasses.replace(CHIPS["v5e"], usable=memory)
  small = dataclasses.replace(parse("v5e:2x2"), chip=chip)
  found = planning.make_plan(config, small)
  assert not found.fits
  assert "DOES NOT FIT" in report.as_text(found)
  better = search.what_fits(config, small)
  assert better.fits
  again = planning.make_plan(search.changed(config, better.changes), small)
  assert again.fits


def test_likely_ones_are_compiled_first():
  given = [search.Candidate({"n": i}, likely=i in (2, 4)) for i in range(5)]
  order = [c.changes["n"] for c in search._likely_first(given)]
  assert order == [2, 4, 0, 1, 3]


def test_a_search_ranks_what_fits(no_compiler, config):
  machine = parse("v5e:2x2")
  found = search.search(config, machine, most=3)
  fits = [c for c in found if c.fits]
  assert len(fits) == 3
  assert [c.speed for c in fits] == sorted(
    (c.speed for c in fits), reverse=True
  )
  assert any("does not divide" in c.why for c in found if c.why)
  table = search.table(config, found)
  assert "--config.mesh.fsdp=-1" in table and "more do not divide" in table


def test_a_search_compiles_the_largest_batch_that_is_likely():
  def of(remat, batch, likely):
    changes = {"model.lm.remat": remat, "data.datasets.a.batch": batch}
    return search.Candidate(changes, likely=likely)

  given = [
    *(of("none", 8, False), of("none", 4, True), of("none", 2, True)),
    *(of("full", 8, True), of("full", 4, True)),
    *(of("dots", 8, False), of("dots", 4, False)),
  ]
  found = [
    [c.changes["data.datasets.a.batch"] for c in ladder]
    for ladder in search._ladders(given)
  ]
  assert found == [[4, 2], [8, 4], [4]]


def test_a_search_goes_on_to_smaller_batches(monkeypatch, no_compiler, config):
  """Where the compiler finds too large what shapes took for likely."""
  asked = []

  def compiled(config, changes, topology):
    asked.append(changes)
    return search.Candidate(changes)

  monkeypatch.setattr(search, "_compiled", compiled)
  search.search(config, parse("v5e:2x2"), most=40)
  batches = [
    changes.get("data.datasets.episodes.batch", 8)
    for changes in asked
    if changes["model.lm.remat"] == "full" and changes["mesh.tensor"] == 1
  ]
  assert batches == [16, 8, 4]


def test_changes_are_told_that_change_something(config):
  changes = {"train.microbatches": 2, "seed": config["seed"], "mesh.data": -1}
  told = search.describe(config | {"mesh": {"data": -1}}, changes)
  assert told == "--config.train.microbatches=2"


def test_remat_keys_are_those_that_build(config):
  assert search.remat_keys(config) == ["model.lm.remat"]


def test_generation(config):
  job = program.make_job(config, make_mesh(dict(data=1)))
  prefill, decode = generation.generation(job)
  rows, length = 64, 96  # Of the demo's `evaluate`.
  assert prefill.tokens == rows * length and decode.tokens == rows
  assert not prefill.trains
  # Every weight of the language model, its tied head included, once a row;
  # the rest are blocks and attention.
  lm, blocks = (tree.count(job.recipe.shapes[k]) for k in ("lm", "blocks"))
  least = 2 * rows * lm
  assert 0.99 * least < decode.count() < 1.5 * (least + 2 * rows * blocks)
  assert prefill.count() > decode.count()


def test_generation_that_does_not_fit(no_compiler, monkeypatch, config, capsys):
  machine = parse("v5e:2x2")
  chip = dataclasses.replace(machine.chip, usable=2**10)
  small = dataclasses.replace(machine, chip=chip)
  monkeypatch.setattr(cli_plan, "parse", lambda name: small)
  assert not cli_plan.plan(config, small.name, generates=True).fits
  assert "config.evaluate.model.batch_size" in capsys.readouterr().out


def test_prompts_are_filled_up_to_what_devices_divide(config):
  mesh = jax.sharding.AbstractMesh(
    (1, 8, 1, 1), ("data", "fsdp", "sequence", "tensor")
  )
  config["evaluate"]["model"]["batch_size"] = 12
  _, decode = generation.generation(program.make_job(config, mesh))
  assert decode.tokens == 16


def test_the_roofline_is_what_takes_longest():
  chip = CHIPS["v5e"]
  talk = [
    Collective("all-gather", "fsdp", 1, 1, 0, 2e8, False),
    Collective("all-reduce", "data", 1, 1, 0, 3.125e9, True),
  ]
  found = roofline.roofline(chip, 197e12, int(0.819e12), talk)
  assert found.compute == 1.0 and found.memory == pytest.approx(1.0)
  assert found.link == pytest.approx(1e-3)
  assert found.network == pytest.approx(1.0)
  slow = roofline.roofline(chip, 0, int(2 * 0.819e12), talk)
  assert slow.bound == "memory" and slow.seconds == pytest.approx(2.0)


def test_the_command(no_compiler, path, tmp_path, capsys):
  target = tmp_path / "plan.json"
  ask = ["plan", "--config", path, "--json", str(target), "--topology"]
  assert main.main([*ask, "v5e:2x2"]) == 0
  assert "tokens/s" in capsys.readouterr().out
  found = json.loads(target.read_text())
  assert found["devices"] == 4 and found["fits"]
  assert found["programs"][0]["memory"]["limit"] == 15.75 * 2**30


def test_the_command_refuses_by_name(no_compiler, path, capsys):
  ask = ["plan", "--config", path, "--topology"]
  assert main.main([*ask, "v5e:4x4"]) == 1
  told = capsys.readouterr().err
  assert "config.data.datasets.episodes.batch=8" in told and "16" in told
  assert main.main([*ask, "v7:4x4"]) == 1
  assert "Known" in capsys.readouterr().err
  assert main.main(["plan", "--config", path]) == 1
  assert "--topology" in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.skipif(NO_TPU, reason="needs libtpu: requirements-tpu.txt")
def test_a_tpu_program_compiles(config):
  """Parameters and batch cut over four chips that are not there."""
  config["mesh"] = dict(data=1, fsdp=2, tensor=2)
  found = planning.make_plan(config, parse("v5e:2x2"))
  (step,) = found.programs
  assert step.memory.compiled and found.fits and not found.unchecked
  assert step.traffic > step.memory.arguments
  assert {c.kind for c in step.talk} >= {"all-gather", "all-reduce"}
  assert step.times.seconds >= step.times.compute
  # Four devices share the work; a small model has parts that all of them do.
  assert 0.8 < step.multiplied * 4 / step.executed < 1.5


# What is released is asked, and not trained.
ASKED = {"flamingo/open_flamingo_3b", "llava/released"}


def test_every_config_that_names_a_topology_has_a_plan():
  planned = {str(parted(path)[0]) for path, _ in PLANS.values()}
  root, named = Path(configs.__path__[0]), set()
  for path in root.glob("*/*.py"):
    name = str(path.relative_to(root).with_suffix(""))
    # One that has to be told what it makes names none.
    with contextlib.suppress(ValueError):
      if path.stem != "__init__" and "topology" in load(path):
        named.add(name)
  assert {f"configs/{name}.py" for name in named - ASKED} == planned


@pytest.mark.parametrize("name", sorted({path for path, _ in PLANS.values()}))
def test_what_is_advised_can_be_given_on_the_command_line(name):
  """Every key that a search changes is one of the shipped configs'."""
  config = plain(load(name))
  machine = parse(config["topology"])
  for changes in itertools.chain(
    search._grid(config, machine), search._remedies(config, machine)
  ):
    assert not search.missing(config, changes)
  assert search.missing(config, {"train.nothing": 1, "model.lm.x.y": 2}) == [
    "train.nothing",
    "model.lm.x.y",
  ]
