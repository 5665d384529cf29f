"""Runs against an endpoint that misbehaves: nothing is lost or paid twice."""

import collections
import logging
import os
import threading
import time

import pytest

from mmjax.data.instruct import plan, work
from mmjax.data.instruct.journal import Journal
from mmjax.data.instruct.work import Run
from mmjax.endpoint import Endpoint, EndpointError, Refused
from tests.data.instructing import (
  KEY,
  RECIPE,
  SAMPLING,
  SETTINGS,
  TOLD,
  Server,
  check_output,
  key_of,
  keys_of,
  lines,
  output,
  run,
  wanted,
)
from tests.stand_in import StandIn, chat


def test_a_run_and_again(tmp_path):
  jobs, seen = wanted(8), []
  with Server().running() as server:
    found = run(tmp_path, server, jobs, progress=lambda *x: seen.append(x))
    assert server.asked == collections.Counter(keys_of(jobs))
    assert server.busiest <= 4
    assert found.done == 24 and not found.failed and not found.left
    assert seen[0] == (0, 24) and seen[-1] == (24, 24)
    before = (tmp_path / RECIPE.output).read_bytes()
    assert run(tmp_path, server, jobs).done == 24
    assert server.asked.total() == 24
  check_output(tmp_path, jobs)
  assert (tmp_path / RECIPE.output).read_bytes() == before
  questions = {
    row["conversations"][0]["value"].replace("<image>", "").strip()
    for row, job in zip(output(tmp_path), jobs)
    if job.kind == "detail"
  }
  assert questions <= set(TOLD.questions) and len(questions) > 3
  (line, *_) = lines(tmp_path)
  assert line["text"] and line["prompt_tokens"] == 100
  assert line["status"] == "done" and line["finish_reason"] == "stop"


def test_the_data_set_does_not_depend_on_who_is_first(tmp_path):
  jobs = wanted(6)
  with Server().running() as server:
    run(tmp_path / "a", server, jobs, concurrency=1)
    run(tmp_path / "b", server, jobs, concurrency=6)
  assert output(tmp_path / "a") == output(tmp_path / "b")


# Each: how often it is asked about, and how many lines it has.
TROUBLE = {
  "p0": ((429, b"", {"Retry-After": "1"}), 2, 1),
  "p1": ((500, b"oops"), 2, 1),
  "p2": ("reset", 2, 1),
  "p3": (b"<html>", 2, 1),
  "p4": (b" " * 2**20, 2, 1),
  "p5": (chat("cut", "length"), 2, 2),
  "p6": (chat("Question: a\nQuestion: b"), 2, 2),
  "p7": (chat(""), 2, 2),
  "p8": (chat("See the <image>."), 2, 2),
  "p9": ((200, b'{"choices"', {"Content-Length": "999"}), 2, 1),
}


def test_all_that_goes_wrong_once(tmp_path, monkeypatch):
  monkeypatch.setattr("mmjax.endpoint.MAX_BYTES", 2**19)
  jobs = wanted(12)

  def bad(key, number):
    return TROUBLE[key[0]][0] if number == 1 and key[0] in TROUBLE else None

  with Server(bad).running() as server:
    found = run(tmp_path, server, jobs)
    asked = server.asked
  assert found.done == len(jobs) and not found.left
  check_output(tmp_path, jobs)
  written = collections.Counter((x["id"], x["kind"]) for x in lines(tmp_path))
  for key in keys_of(jobs):
    _, requests, count = TROUBLE.get(key[0], (None, 1, 1))
    assert (asked[key], written[key]) == (requests, count), key


def test_a_hang_is_ended_and_asked_again(tmp_path):
  jobs = wanted(3, ["detail"])
  server = Server(
    lambda key, number: server.hang if key[0] == "p1" and number == 1 else None
  )
  with server.running():
    assert run(tmp_path, server, jobs).done == 3
  check_output(tmp_path, jobs)


def test_no_use_is_told_counted_and_not_asked_for_ever(tmp_path):
  jobs = wanted(4, ["detail", "reasoning"])

  def bad(key, number):
    return chat("As the caption says.") if key == ("p2", "detail") else None

  with Server(bad).running() as server:
    found = run(tmp_path, server, jobs)
    assert found.failed == {"source": 1} and found.done == 7 and not found.left
    assert server.asked["p2", "detail"] == 3
    run(tmp_path, server, jobs)
    assert server.asked["p2", "detail"] == 3
    run(tmp_path, server, jobs, tries=5)
    assert server.asked["p2", "detail"] == 5
    asked = [r for r in server.requests if key_of(r) == ("p2", "detail")]
  rejected = [x for x in lines(tmp_path) if x["status"] == "rejected"]
  assert [x["reason"] for x in rejected] == ["source"] * 5
  assert {x["text"] for x in rejected} == {"As the caption says."}
  check_output(tmp_path, [j for j in jobs if j.key != ("p2", "detail")])
  first, second, *_ = [request["messages"][-1]["content"] for request in asked]
  assert second == f"{first}\n\n{TOLD.notes['source']}"


def test_usage_is_estimated_where_it_is_not_told(tmp_path):
  reply = {k: v for k, v in chat("A dog.").items() if k != "usage"}
  (job,) = wanted(1, ["detail"])
  with Server(lambda *_: reply).running() as server:
    run(tmp_path, server, [job])
  (line,) = lines(tmp_path)
  assert line["prompt_tokens"] == plan.count(job.messages(TOLD))
  assert line["completion_tokens"] == 2


def test_a_run_stops_before_it_costs_too_much(tmp_path):
  jobs = wanted(10, ["detail"])
  size = plan.count(jobs[0].messages(TOLD))
  prices = plan.Prices(1.0, 10.0)
  with StandIn(
    lambda request, _: chat("A dog.", tokens=(size, 100))
  ).running() as server:
    one, at_most = prices.of(size, 100), prices.of(size, 200)
    # Three are affordable, the fourth only were it sure to be short.
    limit = 2 * one + at_most + 1e-9
    options = dict(prices=prices, concurrency=2)
    found = run(tmp_path, server, jobs, max_cost=limit, **options)
    assert found.over_budget and found.left == 7 and found.done == 3
    assert found.cost == pytest.approx(3 * one) and found.cost < limit
    assert len(server.requests) == 3 and len(output(tmp_path)) == 3
    found = run(tmp_path, server, jobs, max_cost=limit, **options)
    assert found.over_budget and len(server.requests) == 3
    found = run(tmp_path, server, jobs, max_cost=1.0, **options)
    assert not found.over_budget and not found.left
    assert len(server.requests) == 10
  with pytest.raises(ValueError, match="max_cost needs prices"):
    Run(RECIPE, SAMPLING, max_cost=1.0)
  with pytest.raises(ValueError, match="tries is 0"):
    Run(RECIPE, SAMPLING, tries=0)


def test_a_wrong_key_ends_the_run_at_once(tmp_path):
  jobs = wanted(20, ["detail"])

  def bad(key, number):
    allowed = server.asked.total() <= 6
    return None if allowed else (401, {"error": {"message": "expired"}})

  server = Server(bad)
  with server.running():
    with pytest.raises(Refused, match="401: expired. Is OPENAI_API_KEY"):
      run(tmp_path, server, jobs, concurrency=2)
    assert server.asked.total() <= 8 and len(lines(tmp_path)) == 6
    paid = {(x["id"], x["kind"]) for x in lines(tmp_path)}
  with Server().running() as server:
    assert run(tmp_path, server, jobs).done == 20
    assert not paid & server.asked.keys()
  check_output(tmp_path, jobs)


REFUSAL = (400, {"error": {"message": "too long"}})


def test_a_picture_that_is_refused_has_failed(tmp_path):
  jobs = wanted(6, ["detail"])
  with Server(lambda key, _: REFUSAL if key[0] == "p3" else None).running() as (
    server
  ):
    for _ in range(2):
      found = run(tmp_path, server, jobs)
      assert found.failed == {"refused": 1} and found.done == 5
      assert server.asked["p3", "detail"] == 1
  (line,) = [x for x in lines(tmp_path) if x["status"] == "rejected"]
  assert "too long" in line["text"] and line["prompt_tokens"] == 0


@pytest.mark.parametrize("count", [2, 30])
def test_settings_that_are_refused_fail_no_picture(tmp_path, count):
  jobs = wanted(count, ["detail"])
  with Server(lambda *_: REFUSAL).running() as server:
    with pytest.raises(Refused, match="too long"):
      run(tmp_path, server, jobs)
    assert len(server.requests) <= work.GIVE_UP + 4
  assert not lines(tmp_path)
  with Server().running() as server:
    assert run(tmp_path, server, jobs).done == count


def test_one_request_without_an_answer_is_left_for_later(tmp_path, caplog):
  jobs = wanted(6, ["detail"])
  with Server(
    lambda key, number: (503, b"") if key[0] == "p3" and number < 4 else None
  ).running() as server:
    found = run(tmp_path, server, jobs)
    assert found.left == found.unanswered == 1 and found.done == 5
    assert "detail of p3: " in caplog.text and "503" in caplog.text
    found = run(tmp_path, server, jobs)
    assert not found.left and server.asked["p3", "detail"] == 4
    assert server.asked.total() == 5 + 4
  check_output(tmp_path, jobs)


def test_an_endpoint_that_is_down_ends_the_run(tmp_path):
  with Server(lambda *_: (503, b"")).running() as server:
    with pytest.raises(EndpointError, match="no answer in 3 tries"):
      run(tmp_path, server, wanted(50, ["detail"]))
    assert len(server.requests) <= 3 * (work.GIVE_UP + 4)
  assert not lines(tmp_path)


def test_now_and_then_no_answer_does_not_end_the_run(tmp_path):
  jobs = wanted(24, ["detail"])

  def bad(key, number):
    return (503, b"") if int(key[0][1:]) % 2 else None

  with Server(bad).running() as server:
    found = run(tmp_path, server, jobs, concurrency=1)
  # In some order of their own, never eight of them in a row.
  assert found.done == found.left == found.unanswered == 12


def test_an_interrupt_does_not_wait_for_further_tries(tmp_path):
  asked = threading.Barrier(3)  # Before one is told to wait, and all with it.

  def busy(key, number):
    asked.wait(10)
    return (429, b"", {"Retry-After": "30"}) if key[0] == "p0" else None

  def interrupt(done, total):
    if done >= 2:
      raise KeyboardInterrupt

  with Server(busy).running() as server:
    endpoint = Endpoint(server.url, concurrency=4)
    start = time.monotonic()
    with (
      Journal(tmp_path, SETTINGS) as opened,
      pytest.raises(KeyboardInterrupt),
    ):
      jobs = wanted(3, ["detail"])
      Run(RECIPE, SAMPLING)(jobs, endpoint, opened, interrupt)
    assert time.monotonic() - start < 10
  assert len(lines(tmp_path)) == 2


def test_an_interrupt_saves_what_is_under_way(tmp_path):
  jobs = wanted(20, ["detail"])

  def slow(key, number):
    time.sleep(0.02)

  def interrupt(done, total):
    if done >= 5:
      raise KeyboardInterrupt

  with Server(slow).running() as server:
    with pytest.raises(KeyboardInterrupt):
      run(tmp_path, server, jobs, progress=interrupt)
    assert len(lines(tmp_path)) == len(server.requests) < 20
    assert run(tmp_path, server, jobs).done == 20
    assert set(server.asked.values()) == {1}
  check_output(tmp_path, jobs)


def test_a_full_disk_ends_the_run(tmp_path, monkeypatch):
  jobs = wanted(5, ["detail"])
  write, calls = os.write, []

  def full(handle, content):
    calls.append(handle)
    return write(handle, content[: 20 if len(calls) == 3 else None])

  with Server().running() as server:
    with monkeypatch.context() as patch:
      patch.setattr(os, "write", full)
      with pytest.raises(OSError, match="no room"):
        run(tmp_path, server, jobs, concurrency=1)
    assert len(lines(tmp_path)) == 2
    assert run(tmp_path, server, jobs).done == 5
  check_output(tmp_path, jobs)


def test_the_key_is_in_no_file_and_no_log(tmp_path, caplog, capfd):
  caplog.set_level(logging.DEBUG)

  def bad(key, number):
    return {
      "p0": chat(f"The key is {KEY}."),
      "p1": (400, {"error": {"message": f"key {KEY}"}}),
      "p2": (500, f"key {KEY}".encode()),
    }.get(key[0])

  with Server(bad).running() as server:
    found = run(tmp_path, server, wanted(6, ["detail"]))
  assert found.done == 4
  assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
  told = caplog.text + "".join(capfd.readouterr())
  told += "".join(p.read_text() for p in tmp_path.iterdir())
  assert KEY[:12] not in told
