"""Processes that meet, in threads: who is waited for, and who is refused."""

import json
import logging
import socket
import threading

import pytest

from mmjax import rollcall
from tests.job import free_port


def meet(port, count, index, **options):
  """Starts one process; `result` has what it raised, or None."""
  result = []

  def run():
    try:
      rollcall.meet(f"localhost:{port}", count, index, **options)
      result.append(None)
    except Exception as error:
      result.append(error)

  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  return thread, result


def all_meet(port, *processes, **options):
  started = [meet(port, *process, **options) for process in processes]
  for thread, _ in started:
    thread.join(60)
    assert not thread.is_alive()
  return [result[0] for _, result in started]


def test_all_are_let_go_and_the_port_is_free():
  port = free_port()
  assert all_meet(port, (3, 2), (3, 0), (3, 1)) == [None] * 3
  socket.create_server(("", port)).close()


def test_the_missing_are_named_now_and_then(caplog):
  caplog.set_level(logging.INFO)
  results = all_meet(
    free_port(), (4, 0), (4, 2), patience=3.0, every=1.0, grace=60.0
  )
  assert "process(es) 1, 3 of 4 are missing" in str(results[0])
  assert "0, 2 on " in str(results[0])
  assert str(results[1]) == str(results[0])
  assert "Waiting" in caplog.text and "for process(es) 1, 3" in caplog.text


def test_nobody_answers_at_a_loopback_address():
  (error,) = all_meet(free_port(), (2, 1), patience=60.0, grace=0.5)
  assert isinstance(error, TimeoutError)
  assert "loopback" in str(error) and "MMJAX_COORDINATOR" in str(error)


@pytest.mark.parametrize(
  "host, reason",
  [("127.0.0.1", "refused"), ("no-such-machine.invalid", "not known")],
)
def test_a_coordinator_that_cannot_be_reached(
  host, reason, monkeypatch, caplog
):
  monkeypatch.setattr(rollcall, "is_loopback", lambda host: False)
  port = free_port()
  with pytest.raises(TimeoutError) as found:
    rollcall.meet(f"{host}:{port}", 4, 3, patience=2.0, every=0.5)
  for text in (str(found.value), caplog.text):
    assert f"reach process 0 at {host}:{port}" in text
    assert reason in text
  assert "may the port be reached?" in str(found.value)


@pytest.mark.parametrize(
  "processes, problem",
  [
    (((3, 0), (3, 1), (3, 1)), "is process 1, which another one is already"),
    (((3, 0), (2, 1)), "counts 2 processes, process 0 3"),
  ],
)
def test_processes_that_do_not_fit_are_refused(processes, problem):
  results = all_meet(free_port(), *processes, patience=10.0, grace=5.0)
  assert problem in str(results[0])
  assert any(problem in str(error) for error in results[1:])


def test_strangers_do_not_disturb():
  port = free_port()
  thread, result = meet(port, 3, 0)
  for text in (b"GET / HTTP/1.1\n", b"[1, 2]\n", b"x" * 10_000, b""):
    while True:
      try:
        stranger = socket.create_connection(("localhost", port))
        break
      except ConnectionRefusedError:
        continue
    stranger.sendall(text)
    stranger.close()
  said = json.dumps({"process": 1, "processes": 3, "host": "gone"})
  with socket.create_connection(("localhost", port)) as gone:
    gone.sendall(said.encode() + b"\n")
  # One that went away is missing again, and may come back.
  assert all_meet(port, (3, 1), (3, 2)) == [None, None]
  thread.join(60)
  assert result == [None]


def test_numbers_as_spans():
  assert rollcall.spans([7, 0, 1, 2, 4]) == "0-2, 4, 7"
  assert rollcall.spans([]) == ""
