"""`mmjax data qa`, with an endpoint and with a model of this machine."""

import json

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file
from tokenizers import models, pre_tokenizers

from mmjax.cli import main as cli
from mmjax.cli.local import load_local
from mmjax.cli.shapes import TOKENS, shapes_of
from mmjax.endpoint import Refused
from mmjax.lms import LMS
from tests.data.captioned import save
from tests.data.instructing import KEY
from tests.data.test_questions import items, server

CHAT = [{"role": "user", "content": "w1 w2"}]
PRICES = ["--price-in", "2", "--price-out", "8"]
HOW = {"model": "", "temperature": 0.0}


@pytest.fixture
def source(tmp_path):
  rows = [{**item.row, "caption": item.caption} for item in items(5)]
  return save(tmp_path / "captions.jsonl", rows)


@pytest.fixture
def endpoint(monkeypatch):
  with server().running() as running:
    monkeypatch.setenv("OPENAI_BASE_URL", running.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield running


def start(source, target, *options):
  return ["data", "qa", str(target), "--captions", source, *options]


def test_a_run_and_again(source, tmp_path, endpoint, capsys):
  command = start(source, tmp_path / "x", "--model", "m")
  assert cli.main([*command, "--limit", "2"]) == 0
  assert endpoint.asked.total() == 6
  assert cli.main([*command, *PRICES]) == 0
  assert endpoint.asked.total() == 15
  said = capsys.readouterr().out
  assert "5 answers of this request are in" in said and "2 more are in" in said
  assert "cost of the folder" in said
  assert len(json.loads((tmp_path / "x" / "qa.json").read_text())) == 5
  request = endpoint.requests[0]
  assert request["temperature"] == 0 and request["max_tokens"] == 128
  assert cli.main([*command, "--answer-words", "2"]) == 1
  assert "answer_words was 5, is 2" in capsys.readouterr().err


def test_what_filters_remove_is_told(source, tmp_path, endpoint, capsys):
  command = start(source, tmp_path / "x", "--model", "m")
  assert cli.main([*command, "--caption-words", "50"]) == 1
  said = capsys.readouterr().out
  assert "failed: 5 short (a caption of too few words)" in said
  assert "Nothing was kept" in said.splitlines()[-1]
  assert not endpoint.asked


def test_a_dry_run_sends_and_writes_nothing(source, tmp_path, capsys):
  options = ["--model", "m", "--dry-run", "--drop-colours"]
  assert cli.main(start(source, tmp_path / "x", *options)) == 0
  said = capsys.readouterr().out
  for name in ("colours", "answer", "question", "check"):
    assert f"{name} " in said
  assert "none is sent" in said and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ([], "Name either the --model"),
    (["--model", "m", "--local", "x"], "Name either the --model"),
    (["--model", "m", "--template", "chatml"], "--template is of a --local"),
    (["--model", "m"], "No endpoint is named"),
    (["--model", "m", "--limit", "0"], "limit is 0"),
    (["--model", "m", "--same", "100"], "same is 100"),
    (["--model", "m", "--temperature", "nan"], "temperature is nan"),
    (["--model", "m", "--temperature", "-1"], "temperature is -1"),
    (["--model", "m", "--max-tokens", "0"], "max_tokens is 0"),
    (["--model", "m", *PRICES, "--max-cost", "nan"], "max_cost is nan"),
    (["--model", "m", "--price-in", "inf", "--price-out", "1"], "are inf and"),
    (["--local", "nowhere"], "There is no folder nowhere"),
  ],
)
def test_what_is_refused_is_one_line(
  source, tmp_path, monkeypatch, capsys, options, message
):
  for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
    monkeypatch.delenv(name, raising=False)
  assert cli.main(start(source, tmp_path / "x", *options)) == 1
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and message in said
  assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A language model of no use, as `mmjax convert` writes one."""
  path = tmp_path_factory.mktemp("lm")
  fields = dict(width=16, num_layers=1, num_heads=2, hidden=32, vocab_size=64)
  shapes = shapes_of(LMS["llama"](**fields), *TOKENS)
  chance = np.random.default_rng(0)
  weights = {
    name: chance.normal(0, 0.5, shape).astype(np.float32)
    for name, shape in shapes.items()
  }
  save_file(weights, path / "model.safetensors")
  (path / "config.json").write_text(
    json.dumps({"family": "llama", "model": fields})
  )
  words = {"w0": 0, "</s>": 1} | {f"w{i}": i for i in range(2, 64)}
  backend = tokenizers.Tokenizer(models.WordLevel(words, unk_token="w0"))
  backend.pre_tokenizer = pre_tokenizers.Whitespace()
  backend.save(str(path / "tokenizer.json"))
  return path


def test_a_local_model_answers_as_an_endpoint(folder):
  local = load_local(folder, batch_size=2)
  said = local.complete(CHAT, **HOW, max_tokens=4)
  assert said.text and said.finish_reason == "length"
  assert said.completion_tokens == 4 and said.prompt_tokens > 4
  system = [{"role": "system", "content": "w3 w4 w5"}]
  more = local.complete([*system, *CHAT], **HOW, max_tokens=4)
  assert more.prompt_tokens > said.prompt_tokens
  with pytest.raises(Refused, match="2048") as error:
    local.complete(
      [{"role": "user", "content": "w1 " * 3000}], **HOW, max_tokens=4
    )
  assert error.value.of_the_request
  with pytest.raises(ValueError, match="the user's last"):
    local.complete([*CHAT, *CHAT], **HOW, max_tokens=4)


@pytest.mark.heavy
def test_a_local_model_makes_questions(source, tmp_path, folder, capsys):
  """This one has nothing to say, which is counted."""
  options = ["--local", str(folder), "--max-tokens", "4", "--limit", "2"]
  assert cli.main(start(source, tmp_path / "x", *options)) == 1
  assert "failed: 2" in capsys.readouterr().out
  lines = (tmp_path / "x" / "journal.jsonl").read_text().splitlines()
  assert len(lines) == 6
  settings = json.loads((tmp_path / "x" / "settings.json").read_text())
  assert settings["model"] == str(folder)
