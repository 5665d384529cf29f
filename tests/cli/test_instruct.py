"""`mmjax data generate`, as a user starts, stops and resumes it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from mmjax.cli import answering, writing_data
from mmjax.cli import main as cli
from mmjax.data.instruct.answers import KINDS
from mmjax.endpoint import Endpoint
from tests.data.instructing import KEY, Server, lines, output
from tests.data.test_instruct import coco, rows
from tests.stand_in import chat

TYPES = ["--types", "detail"]


@pytest.fixture
def captions(tmp_path):
  return rows(
    tmp_path,
    *(
      {"id": f"p{i}", "image": f"p{i}.jpg", "captions": [f"Picture p{i}."]}
      for i in range(12)
    ),
  )


@pytest.fixture
def endpoint(monkeypatch):
  """Makes a server the one of the environment."""

  def use(server):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

  monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
  monkeypatch.delenv("OPENAI_API_KEY", raising=False)
  return use


def start(captions, target, *options):
  given = ["data", "generate", str(target), "--captions", captions]
  return [*given, "--model", "m", *options]


def test_the_parser_knows_every_kind():
  assert tuple(KINDS) == writing_data.KINDS


def test_a_run(captions, tmp_path, endpoint, capsys):
  prices = ["--price-in", "2", "--price-out", "8"]
  with Server().running() as server:
    endpoint(server)
    assert cli.main(start(captions, tmp_path / "x", *prices)) == 0
    first = capsys.readouterr()
    assert cli.main(start(captions, tmp_path / "x", "--limit", "3")) == 0
    assert server.asked.total() == 36 and set(server.asked.values()) == {1}
  assert re.search(r"detail +12 ", first.out)
  assert "36 answers of this request are in" in first.out
  assert "cost of the folder, by the prices given: 0.01" in first.out
  assert "36/36" in first.err
  again = capsys.readouterr().out
  assert "9 more are in" in again and re.search(r"together +0 ", again)
  assert len(output(tmp_path / "x")) == 36
  assert server.requests[0]["temperature"] == 1.0
  assert server.requests[0]["max_tokens"] == 1024


def test_coco_and_more_types_later(tmp_path, endpoint):
  told, boxes = coco(tmp_path / "coco")
  target, reply = tmp_path / "x", chat("A dog.")
  server = Server()
  server.reply = lambda *_: reply
  with server.running():
    endpoint(server)
    command = start(told, target, "--instances", boxes, "--types")
    assert cli.main([*command, "detail"]) == 0
    reply = chat("Question:\nWhy?\n===\nAnswer:\nSo.")
    assert cli.main([*command, "reasoning"]) == 0
  found = output(target)
  assert [row["image"] for row in found[:2]] == [r["image"] for r in found[2:]]
  assert {row["id"] for row in found} == {"000000000009", "000000000025"}
  (shown,) = {
    request["messages"][-1]["content"]
    for request in server.requests
    if "sofa" in request["messages"][-1]["content"]
  }
  assert "\n\ndog: [0.250, 0.500, 0.750, 0.900]" in shown


def test_a_dry_run_sends_and_writes_nothing(captions, tmp_path, capsys):
  dry = ["--dry-run", "--price-in", "2", "--price-out", "8"]
  assert cli.main(start(captions, tmp_path / "x", *dry)) == 0
  said = capsys.readouterr().out
  assert "An estimate" in said and "cost" in said and "none is sent" in said
  request = json.loads(said[said.index("\n{") :])
  assert request["model"] == "m" and request["messages"][0]["role"] == "system"
  assert "Picture p" in request["messages"][-1]["content"]
  assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ([], "No endpoint is named. Set OPENAI_API_KEY"),
    (["--limit", "0"], "limit is 0"),
    (["--tries", "0"], "tries is 0"),
    (["--price-in", "1"], "both prices: --price-in and --price-out"),
    (["--max-cost", "1"], "needs prices: --price-in"),
    (["--prompts", "nowhere"], "nowhere/conversation/system.txt"),
    (["--instances", "i.json"], "i.json: No such file"),
  ],
)
def test_what_is_refused_is_one_line(
  captions, tmp_path, endpoint, capsys, options, message
):
  assert cli.main(start(captions, tmp_path / "x", *options)) == 1
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and message in said
  assert not (tmp_path / "x").exists()


def test_coco_without_boxes_is_for_conversations(tmp_path, endpoint, capsys):
  told, _ = coco(tmp_path / "coco")
  assert cli.main(start(told, tmp_path / "x")) == 1
  assert "detail and reasoning need boxes" in capsys.readouterr().err
  dry = ["--types", "conversation", "--dry-run"]
  assert cli.main(start(told, tmp_path / "x", *dry)) == 0


def test_another_model_for_the_same_folder(
  captions, tmp_path, endpoint, capsys
):
  with Server().running() as server:
    endpoint(server)
    command = start(captions, tmp_path / "x", *TYPES)
    assert cli.main(command) == 0
    assert cli.main([*command, "--model", "n"]) == 1
    assert "model was 'm', is 'n'. Name another" in capsys.readouterr().err
    more = {"id": "p12", "image": "b.jpg", "captions": ["Picture p12."]}
    with open(captions, "a") as file:
      file.write(json.dumps(more) + "\n")
    assert cli.main(command) == 1
    assert "data was" in capsys.readouterr().err
  assert server.asked.total() == 12


def test_failures_and_what_is_left_are_told(
  captions, tmp_path, endpoint, monkeypatch, capsys
):
  monkeypatch.setattr(
    answering,
    "from_environment",
    lambda **options: Endpoint(server.url, tries=1, **options),
  )
  bad = {"p1": chat("cut", "length"), "p2": (500, b"")}
  with Server(lambda key, _: bad.get(key[0])).running() as server:
    command = start(captions, tmp_path / "x", *TYPES, "--tries", "2")
    assert cli.main(command) == 1
  said = capsys.readouterr().out
  assert "10 answers" in said
  assert "failed: 1 truncated (longer than max_tokens)" in said
  assert "1 are left: the endpoint left 1 requests unanswered" in said


def test_stopped_for_the_cost(captions, tmp_path, endpoint, capsys):
  prices = ["--price-in", "100", "--price-out", "100", "--concurrency", "1"]
  with Server().running() as server:
    endpoint(server)
    command = start(captions, tmp_path / "x", *TYPES, *prices)
    assert cli.main([*command, "--max-cost", "0.3"]) == 75
    assert "--max-cost; raise it, and start it again" in capsys.readouterr().out
    assert 0 < server.asked.total() < 12
    assert cli.main([*command, "--max-cost", "100"]) == 0
    assert server.asked.total() == 12


def test_a_wrong_key(captions, tmp_path, endpoint, capsys):
  refusal = (401, {"error": {"message": f"Incorrect API key: {KEY}"}})
  with Server(lambda *_: refusal).running() as server:
    endpoint(server)
    assert cli.main(start(captions, tmp_path / "x")) == 1
  said = capsys.readouterr()
  assert "401: Incorrect API key: (key). Is OPENAI_API_KEY right?" in said.err
  files = "".join(p.read_text() for p in (tmp_path / "x").iterdir())
  assert KEY not in said.out + said.err + files


def test_told_to_stop_it_saves_what_is_under_way(captions, tmp_path):
  """And another process is refused meanwhile."""
  begun, go_on = threading.Event(), threading.Event()

  def bad(key, number):
    if server.asked.total() >= 3:
      begun.set()
      go_on.wait(20)

  server = Server(bad)
  command = start(captions, tmp_path / "x", *TYPES, "--concurrency", "2")
  environment = {**os.environ, "OPENAI_BASE_URL": server.url}
  with server.running():
    process = subprocess.Popen(
      [sys.executable, "-m", "mmjax.cli.main", *command],
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )
    assert begun.wait(30)
    second = subprocess.run(
      [sys.executable, "-m", "mmjax.cli.main", *command],
      env=environment,
      capture_output=True,
      text=True,
    )
    assert second.returncode == 1
    assert "Another process is at work in" in second.stderr
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    go_on.set()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 75, said
    assert len(lines(tmp_path / "x")) == server.asked.total() < 12
    process = subprocess.run(
      [sys.executable, "-m", "mmjax.cli.main", *command], env=environment
    )
    assert process.returncode == 0
  assert set(server.asked.values()) == {1} and len(server.asked) == 12
  assert len(output(tmp_path / "x")) == 12
