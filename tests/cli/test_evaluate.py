"""`mmjax evaluate` on benchmarks: chosen, resumed, on devices and processes."""

import json
import shutil

import numpy as np
import pytest

from mmjax.checkpoints import Checkpoints, fingerprint
from mmjax.cli import main
from mmjax.data.batching import empty, stack
from mmjax.data.build import encoder
from mmjax.evaluation.model import Model
from mmjax.text.tokenizer import drawn
from mmjax.training.state import TrainState
from tests import eight_devices
from tests.evaluation import chat_files
from tests.job import Job
from tests.systems import documents

# As a config has them, which sorts its keys.
TASKS = ("gqa", "mme", "pope")
ON_EIGHT = """
import sys
from mmjax.cli import main
from mmjax.evaluation import model

def generate(module, params, batch, *args, **kwargs):
  rows = batch["tokens"]
  assert len(rows) == 8, rows.shape
  assert {s.data.shape[0] for s in rows.addressable_shards} == {1}
  table = params["lm"]["embedding"]["table"]
  assert table.addressable_shards[0].data.size == table.size // 4
  return known(module, params, batch, *args, **kwargs)

known, model.generate = model.generate, generate
sys.exit(main.main(["evaluate", "--workdir", sys.argv[1]]))
"""


def config_of(folder):
  return dict(
    system="flamingo",
    model=documents.MODEL,
    tokenizer=dict(name="drawn"),
    data=documents.data("none.jsonl"),
    train=dict(trainable=[[".*", True]]),
    evaluate=dict(
      name="chat",
      published="LLaVA-1.5-7B",
      tasks={
        n: dict(source=getattr(chat_files, n)(folder), max_new_tokens=4)
        for n in TASKS
      },
      model=dict(batch_size=4),
      prompt=dict(length=64),
      mesh=dict(data=2, fsdp=-1),
    ),
  )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run whose checkpoint was drawn at random, and its config."""
  folder = tmp_path_factory.mktemp("run")
  config, workdir = config_of(folder), folder / "run"
  part = config["data"]["datasets"]["documents"]
  read = encoder(drawn(), part["prompt"], transforms=part["transforms"])
  _, params = documents.drawn_model(stack([empty(16, read.slots)]))
  zero = np.zeros((), np.int32)
  state = TrainState(zero, params, {}, (), zero, np.zeros((), np.float32))
  with Checkpoints(workdir / "checkpoints") as made:
    made.save(state, {}, fingerprint({}))
  (workdir / "config.json").write_text(json.dumps(config))
  return workdir


@pytest.fixture(scope="module")
def straight(run, tmp_path_factory):
  """Its evaluation by one process with one device."""
  workdir = tmp_path_factory.mktemp("straight") / "run"
  shutil.copytree(run, workdir)
  assert evaluate(workdir) == 0
  return workdir


def evaluate(workdir, *arguments):
  return main.main(["evaluate", "--workdir", str(workdir), *arguments])


def records(workdir, end=""):
  lines = (workdir / f"records{end}.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def results(workdir, end=""):
  return json.loads((workdir / f"results{end}.json").read_text())["results"]


def test_answers_depend_on_pictures_and_stand_in_files(straight):
  said = records(straight)
  assert len(said) == 12 + 8 + 2
  assert len({r["raw"] for r in said}) > 1
  table = (straight / "results.md").read_text()
  assert "| pope | random/f1 |" in table and "| 87.3 |" in table
  assert [r["task"] for r in results(straight)] == list(TASKS)


def test_again_nothing_is_asked(straight, monkeypatch, capsys):
  before = records(straight)
  monkeypatch.setattr(Model, "generate", None)
  assert evaluate(straight) == 0
  assert records(straight) == before
  assert "pope  f1" in capsys.readouterr().out


def test_tasks_are_chosen_and_limited(straight, tmp_path, capsys, monkeypatch):
  workdir = tmp_path / "run"
  shutil.copytree(straight, workdir)
  monkeypatch.setattr(Model, "generate", None)
  end = "_gqa+pope_limit_5"
  assert evaluate(workdir, "--tasks", "gqa, pope", "--limit", "5") == 0
  counts = [(r["task"], r["count"]) for r in results(workdir, end)]
  assert counts == [("gqa", 2), ("pope", 5)]
  five = records(workdir, end)
  assert "| pope |" in (workdir / f"results{end}.md").read_text()
  assert evaluate(workdir, "--tasks", "pope") == 0
  assert [r["task"] for r in results(workdir, "_pope")] == ["pope"]
  # Those of all questions stay.
  for name in ("results.json", "results.md", "records.jsonl"):
    assert (workdir / name).read_text() == (straight / name).read_text()
  assert evaluate(workdir, "--tasks", "gqa,pope", "--limit", "5") == 0
  assert records(workdir, end) == five
  for arguments, said in (
    (["--tasks", "gqa,popes"], "'popes'. Did you mean 'pope'?"),
    (["--tasks", ""], "task of the config ''"),
    (["--limit", "0"], "limit is 0"),
  ):
    assert evaluate(workdir, *arguments) == 1
    assert said in capsys.readouterr().err


def test_another_model_does_not_take_these_answers(
  straight, tmp_path, monkeypatch
):
  workdir, asked = tmp_path / "run", []
  shutil.copytree(straight, workdir)

  def generate(self, documents):
    asked.extend(documents)
    return ["yes"] * len(documents)

  monkeypatch.setattr(Model, "generate", generate)
  config = json.loads((workdir / "config.json").read_text())
  config["evaluate"]["model"]["num_beams"] = 2
  (workdir / "config.json").write_text(json.dumps(config))
  assert evaluate(workdir, "--tasks", "gqa") == 0
  assert len(asked) == 2
  folders = sorted(p.name for p in (workdir / "answers").glob("gqa-*"))
  assert len(folders) == 2


@pytest.mark.heavy
def test_eight_devices_give_the_answers_of_one(run, straight, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(run, workdir)
  eight_devices.run(ON_EIGHT, str(workdir))
  assert records(workdir) == records(straight)


@pytest.mark.heavy
def test_two_processes_give_the_answers_of_one(run, straight, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(run, workdir)
  shape = dict(processes=2, devices=1)
  with Job(
    "mmjax.cli.main", "evaluate", "--workdir", str(workdir), **shape
  ) as job:
    assert job.codes() == [0, 0], job.said
    said = job.said
  assert records(workdir) == records(straight)
  assert "pope  f1" in said[0] and "pope  f1" not in said[1]
  (folder,) = (workdir / "answers").glob("pope-*")
  counts = [
    len(p.read_text().splitlines()) for p in sorted(folder.glob("*.jsonl"))
  ]
  assert counts == [6, 6]
