"""Configs from files and from the command line."""

import json

import pytest

from mmjax.cli.configs import load, parse

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  return ConfigDict(dict(
    name="run",
    train=dict(steps=10, rate=1e-3, clip=None, average=False),
    shots=[0, 2],
    model=dict(name="llama", width=8),
  ))
"""


@pytest.fixture
def path(tmp_path):
  file = tmp_path / "run.py"
  file.write_text(CONFIG)
  return file


def test_changes_keep_the_kind_of_a_value(path):
  changes = ["train.steps=20", "train.rate=1", "train.clip=0.5"]
  changes += ["train.average=true", "shots=[0, 4]", "name=12"]
  config = load(path, changes)
  assert config.train.to_dict() == dict(
    steps=20, rate=1.0, clip=0.5, average=True
  )
  assert isinstance(config.train.rate, float)
  assert config.shots == [0, 4] and config.name == "12"


def test_a_whole_part_can_be_replaced_and_then_changed(path):
  config = load(path, ["model={'name': 'opt', 'depth': 2}", "model.depth=3"])
  assert config.model.to_dict() == dict(name="opt", depth=3)


@pytest.mark.parametrize(
  "change, message",
  [
    ("train.step=1", "config.train has no key 'step'. Did you mean 'steps'"),
    ("tarin.steps=1", "config has no key 'tarin'. Did you mean 'train'"),
    ("train.keep=1", "Known: average, clip, rate, steps. To add one, write"),
    ("train.steps.x=1", "config.train.steps is 10 and has no key 'x'"),
    ("train.steps=many", "config.train.steps takes int, such as 10"),
    ("train.steps=1.5", "takes int"),
    ("train.steps=True", "takes int"),
    ("train.average=1", "takes bool"),
    ("shots=3", "takes list"),
    ("model=opt", "takes dict"),
    ("train.steps", "has no value"),
    ("train.steps=__import__('os')", "takes int"),
  ],
)
def test_a_wrong_change_names_what_is_wrong(path, change, message):
  with pytest.raises(ValueError, match=message.replace("(", r"\(")):
    load(path, [change])


def test_a_run_that_is_not_there_is_no_recipe(tmp_path):
  with pytest.raises(ValueError, match="config.json; a run writes one.$"):
    load(tmp_path / "config.json")


def test_strings_need_no_quotes():
  assert parse("a b", "x", "k") == "a b"
  assert parse("'a b'", "x", "k") == "a b"


def test_json_is_data(tmp_path):
  file = tmp_path / "config.json"
  file.write_text('{"name": "__import__(\'os\')", "train": {"steps": 1}}')
  config = load(file, ["train.steps=2"])
  assert config.name == "__import__('os')" and config.train.steps == 2


@pytest.mark.parametrize("text", ["[1]", "{", "\x00", "[" * 10**5])
def test_json_that_is_no_config(tmp_path, text):
  file = tmp_path / "config.json"
  file.write_text(text)
  with pytest.raises(ValueError, match=r"config\.json"):
    load(file)


def test_files_that_give_no_config(tmp_path):
  (tmp_path / "empty.py").write_text("")
  with pytest.raises(ValueError, match="no get_config"):
    load(tmp_path / "empty.py")
  with pytest.raises(ValueError, match=r"\.py or \.json"):
    load(tmp_path / "run.pkl")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("def get_config(:\n", "line 1 gives no config: SyntaxError"),
    ("\ndef get_config():\n  return foo\n", "line 3 .*NameError.*foo"),
    ("import nowhere_at_all\n", "line 1 .*ModuleNotFound"),
    ("def get_config():\n  return {}\n", "gives a dict, not a ml_coll"),
  ],
)
def test_a_config_that_fails_names_its_line(tmp_path, text, message):
  (tmp_path / "own.py").write_text(text)
  with pytest.raises(ValueError, match=rf"own\.py.*{message}"):
    load(tmp_path / "own.py")


def test_a_shipped_config_is_found_from_anywhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert load("configs/flamingo/demo.py").system == "flamingo"
  with pytest.raises(ValueError, match="configs/flamingo/demo.py"):
    load("configs/flamingo/dmo.py")


def test_a_run_that_another_begins_with_is_found_beside_it(
  tmp_path, monkeypatch
):
  first, second = tmp_path / "runs" / "first", tmp_path / "runs" / "second"
  first.mkdir(parents=True)
  second.mkdir()
  named = dict(name="run", workdir="runs/first")
  gone = dict(name="run", workdir="runs/gone")
  config = second / "config.json"
  config.write_text(json.dumps(dict(init=dict(encoder=named, lm=gone))))
  monkeypatch.chdir(tmp_path)
  assert load(config).init.encoder.workdir == "runs/first"
  monkeypatch.chdir("/")
  init = load(config).init
  assert init.encoder.workdir == str(first) and init.lm.workdir == "runs/gone"
