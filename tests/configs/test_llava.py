"""LLaVA's configs: what they say fits together, and two stages in a row."""

import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import configs.llava
from configs.llava.common import SIZES
from configs.llava.tiny import get_config
from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.cli import configs as files
from mmjax.cli import main
from mmjax.cli import train as verb
from mmjax.cli.evaluate import evaluate
from mmjax.config import build
from mmjax.data import build as data
from mmjax.data import drawn
from mmjax.sharding import make_mesh
from mmjax.systems import llava
from mmjax.text.prompts import PROMPTS
from mmjax.text.tokenizer import DRAWN
from mmjax.training.metrics import read_jsonl
from mmjax.training.recipe import make_recipe
from mmjax.training.sources import load_parts, make_tokenizer

FOLDER = Path(configs.llava.__file__).parent


# What each config takes as its argument.
ARGUMENTS = {
  "finetune": (*SIZES, "7b_packed"),
  "finetune_lora": tuple(SIZES),
  "pretrain": tuple(SIZES),
  "released": ("7b", "13b", "7b_original"),
  "scienceqa": ("v1_7b", "v1_13b"),
  "tiny": ("pretrain", "finetune"),
}
VARIANTS = [
  f"{k}.py:{name}" for k, names in ARGUMENTS.items() for name in names
]


def test_every_config_is_tried():
  found = {file.stem for file in FOLDER.glob("[!_]*.py")}
  modules = {k: importlib.import_module(f"configs.llava.{k}") for k in found}
  made = {k for k, module in modules.items() if hasattr(module, "get_config")}
  assert made == ARGUMENTS.keys()


def recipe_of(config):
  """The recipe of a config; nothing is read and nothing drawn."""
  config = data.plain(config)
  module = llava.build(config["model"])
  example = next(iter(data.abstract_batches(config["data"])[0].values()))
  return make_recipe(config["train"], module, example, 100), example


@pytest.mark.parametrize("name", VARIANTS)
def test_every_config_builds(name):
  config = files.load(FOLDER / name)
  recipe, example = recipe_of(config)
  assert {path.split("/")[0] for path in recipe.mask} >= {"connector", "lm"}
  # What does not train comes from somewhere.
  frozen = {path.split("/")[0] for path in recipe.mask if not recipe.mask[path]}
  assert "all" in config.init or frozen <= set(config.init)
  # The prompt leaves as many places as the model has tokens for an image.
  tokens = jax.eval_shape(
    lambda params, image: recipe.module.apply(
      {"params": params}, image, method="media_tokens"
    ),
    *(recipe.shapes, example["media"]["image"]),
  )
  for dataset in config.data.datasets.values():
    assert dataset.prompt.media_tokens == tokens.shape[2]


# Updates of both stages, and what trains in the first.
@pytest.mark.parametrize(
  "size, first, second, projector",
  [
    ("7b", 2181, 5198, 20_979_712),
    ("13b", 2181, 5198, 31_467_520),
    ("v1_7b", 4652, 3 * 4929, 4_198_400),
    ("v1_13b", 4652, 3 * 4929, 5_248_000),
  ],
)
def test_full_sizes_are_those_of_the_papers(size, first, second, projector):
  pretrain = files.load(FOLDER / f"pretrain.py:{size}")
  assert pretrain.train.plan.steps == first
  recipe, _ = recipe_of(pretrain)
  trainable, _ = tree.split(recipe.shapes, recipe.mask)
  assert tree.count(trainable) == projector
  finetune = files.load(FOLDER / f"finetune.py:{size}")
  assert finetune.train.plan.steps == second
  workdir = Path(finetune.init.connector.workdir)
  assert workdir == files.workdir(f"pretrain.py:{size}")


def test_stages_train_what_the_paper_trains():
  for stage, expected in (("pretrain", set()), ("finetune", {"lm"})):
    recipe, _ = recipe_of(get_config(stage))
    trained = {k.split("/")[0] for k, train in recipe.mask.items() if train}
    assert trained == {"connector"} | expected
  connector = get_config("finetune").init.connector
  assert Path(connector.workdir) == files.workdir("tiny.py:pretrain")


@pytest.mark.heavy
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_documents_fit_with_the_tokenizer_that_is_named(stage):
  """All that are drawn: overflow="error" would drop those that do not."""
  config = data.plain(get_config(stage))
  tokenizer = make_tokenizer(config["tokenizer"])
  (dataset,) = config["data"]["datasets"].values()
  source = data.documents(dataset["source"])
  prompt = build(PROMPTS, dataset["prompt"], tokenizer=tokenizer)
  rng = np.random.default_rng(0)
  sizes = [len(prompt.write(source[i], rng).tokens) for i in range(1000)]
  assert max(sizes) > 0.6 * dataset["prompt"]["length"]
  # The longest answers are written to their end in an evaluation.
  answers = [c.name for c in drawn.concepts()]
  longest = max(len(tokenizer.encode(text)) for text in answers)
  assert longest < config["evaluate"]["model"]["max_new_tokens"]


def small(folder, stage, **connector):
  """A stage whose language model is a fraction of SmolLM2's.

  The tokenizer is one that knows the drawn things by their words.
  """
  config = get_config(stage)
  marks = ("<|im_start|>", "<|im_end|>")
  names = dict(bos="<s>", eos="</s>", pad="<pad>")
  config.tokenizer = dict(name="file", path=str(DRAWN), added=marks, **names)
  tokenizer = make_tokenizer(data.plain(config.tokenizer))
  config.model.encoder.width = 8
  config.model.connector.update(width=32, **connector)
  config.model.lm = dict(
    name="llama",
    vocab_size=tokenizer.base_size,
    extra_tokens=len(marks),
    width=32,
    num_layers=2,
    num_heads=2,
    hidden=32,
    tie_embeddings=True,
  )
  config.init.encoder = dict(name="converted", path=str(folder / "features"))
  del config.init["lm"]
  if stage == "finetune":
    config.init.connector.workdir = str(folder / "pretrain")
  (dataset,) = config.data.datasets.values()
  dataset["batch"] = 4
  config.train.optimizer.schedule.update(peak=1e-2, warmup=1)
  config.train.plan = dict(steps=3, log_every=1, checkpoint_every=3)
  config.mesh.data = 1
  config.evaluate.update(
    questions=["style", "same_style"], count=4, controls=["none", "text_only"]
  )
  config.evaluate.model.update(batch_size=4, max_new_tokens=2)
  return config


def trained(folder, stage):
  """The config and the directory of a run of `mmjax train`."""
  config = small(folder, stage)
  path, workdir = folder / f"{stage}.json", folder / stage
  path.write_text(json.dumps(config.to_dict(), default=list))
  where = ["--config", str(path), "--workdir", str(workdir)]
  assert main.main(["train", *where]) == 0
  return config, workdir


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Both stages, with features that are drawn."""
  folder = tmp_path_factory.mktemp("llava")
  shape = tuple(get_config().model.encoder[k] for k in ("size", "tokens"))
  table = np.random.default_rng(0).standard_normal((*shape, 8))
  (folder / "features").mkdir()
  save_file(
    {"table": table.astype(np.float32)}, folder / "features/a.safetensors"
  )
  return {s: trained(folder, s) for s in ("pretrain", "finetune")}


@pytest.mark.heavy
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_stage_takes_real_steps(runs, stage):
  config, workdir = runs[stage]
  lines = read_jsonl(workdir / "metrics.jsonl")
  assert len(lines) == 3
  assert all(np.isfinite(x["loss"]) and x["grad_norm"] > 0 for x in lines)
  (name,) = config.data.datasets
  assert lines[-1].get("skipped", 0) == 0, name
  parts = {"connector"} | ({"lm"} if stage == "finetune" else set())
  params = load_trainable(workdir / "checkpoints")
  assert params.keys() == parts
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def first_state(config):
  recipe, example = recipe_of(config)
  example = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), example)
  mesh = make_mesh(dict(data=1), jax.devices()[:1])
  state, _ = verb.begin(data.plain(config), recipe, example, mesh)
  return state


@pytest.mark.heavy
def test_the_second_stage_begins_with_the_projector_of_the_first(runs):
  config, workdir = runs["finetune"]
  first = load_trainable(runs["pretrain"][1] / "checkpoints")["connector"]
  begun = first_state(config).trainable["connector"]
  jax.tree.map(np.testing.assert_array_equal, begun, first)
  # Which is not what it was drawn as, nor what the second stage makes of it.
  del config.init["connector"]
  others = first_state(config).trainable["connector"]
  others = others, load_trainable(workdir / "checkpoints")["connector"]
  for other in others:
    for path, value in tree.flatten(other).items():
      assert np.abs(value - tree.flatten(first)[path]).max() > 1e-5, path


@pytest.mark.heavy
def test_a_run_is_asked_what_its_config_says(runs):
  config, workdir = runs["finetune"]
  results = evaluate(config, workdir)
  assert [(r.task, r.control, len(r.records)) for r in results] == [
    (task, control, 4)
    for task in ("style", "same_style")
    for control in ("none", "text_only")
  ]
  found = json.loads((workdir / "results.json").read_text())["results"]
  assert {row["task"] for row in found} == {"style", "same_style"}


@pytest.mark.heavy
@pytest.mark.parametrize(
  "source, depth, said",
  [
    (dict(workdir="absent"), 2, "no run in absent.*Train it first"),
    (dict(part="conector"), 2, "linear_1/kernel: missing"),
    (dict(part=""), 2, "connector/linear_1/kernel: not in the model"),
    (dict(), 1, "linear_2/kernel: not in the model"),
    (dict(), 3, "linear_3/bias: missing"),
    (dict(prat="connector"), 2, "takes no 'prat'. Did you mean 'part'"),
  ],
)
def test_a_run_that_has_not_the_projector_is_refused(runs, source, depth, said):
  config = small(runs["pretrain"][1].parent, "finetune", depth=depth)
  recipe, _ = recipe_of(config)
  init = dict(connector=data.plain(config.init.connector) | source)
  with pytest.raises(ValueError, match=f"(?s){said}"):
    load_parts(init, recipe.shapes)


@pytest.mark.heavy
def test_a_projector_of_another_width_is_refused(runs):
  config = small(runs["pretrain"][1].parent, "finetune")
  config.model.connector.width = config.model.lm.width = 64
  recipe, _ = recipe_of(config)
  init = dict(connector=data.plain(config.init.connector))
  said = r"linear_1/kernel: \(8, 32\), the model's is \(8, 64\)"
  with pytest.raises(ValueError, match=said):
    load_parts(init, recipe.shapes)


def test_a_run_without_a_checkpoint_says_so(tmp_path):
  (tmp_path / "checkpoints").mkdir()
  recipe, _ = recipe_of(get_config("finetune"))
  init = dict(
    connector=dict(name="run", workdir=str(tmp_path), part="connector")
  )
  with pytest.raises(ValueError, match="No checkpoint in"):
    load_parts(init, recipe.shapes)
