"""An endpoint on this machine that answers as it is told, or misbehaves."""

import contextlib
import http.server
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


def chat(text: str | None, finish: str = "stop", tokens=(100, 20)) -> dict:
  """The JSON of an answer."""
  return {
    "choices": [
      {"message": {"content": text}, "finish_reason": finish, "index": 0}
    ],
    "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]},
  }


class _Http(http.server.ThreadingHTTPServer):
  daemon_threads = True
  # Of five, others wait for a second.
  request_queue_size = 64


class StandIn:
  """Counts what comes; `reply(request, number)` says what goes back.

  A reply is a dict (sent as JSON), bytes (sent as they are), a pair (status,
  dict or bytes), a triple with headers, "reset", "close", or a function that
  is given the open connection's handler.
  """

  def __init__(self, reply: Callable[[dict, int], Any]):
    self.reply = reply
    self.requests: list[dict] = []
    self.headers: list[dict] = []
    self.paths: list[str] = []
    self.busy = self.busiest = 0
    self.released = threading.Event()
    self._lock = threading.Lock()
    stand_in = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_POST(self):
        stand_in.answer(self)

      def log_message(self, *_):
        pass

    self._server = _Http(("127.0.0.1", 0), Handler)
    self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

  def answer(self, handler) -> None:
    size = int(handler.headers["Content-Length"])
    request = json.loads(handler.rfile.read(size))
    with self._lock:
      self.requests.append(request)
      self.headers.append(dict(handler.headers))
      self.paths.append(handler.path)
      number = len(self.requests) - 1
      self.busy += 1
      self.busiest = max(self.busiest, self.busy)
    try:
      reply = self.reply(request, number)
    finally:
      # Before it is sent: who has it may ask the next at once.
      with self._lock:
        self.busy -= 1
    with contextlib.suppress(ConnectionError):
      send(handler, reply)

  def hang(self, handler) -> None:
    """Says nothing until the test is over."""
    self.released.wait(30)

  def settle(self) -> None:
    """Waits until what has come is answered."""
    quiet = 0
    while quiet < 3:
      time.sleep(0.02)
      quiet = 0 if self.busy else quiet + 1

  @contextlib.contextmanager
  def running(self) -> Iterator["StandIn"]:
    thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
    thread.start()
    try:
      yield self
    finally:
      self.released.set()
      self._server.shutdown()
      self._server.server_close()
      thread.join()


def send(handler, reply: Any) -> None:
  if callable(reply):
    return reply(handler)
  if reply == "reset":
    # Closing with a linger of 0 seconds sends RST.
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()
    return None
  if reply == "close":
    return None
  status, body, headers = 200, reply, {}
  if isinstance(reply, tuple):
    status, body, headers = (*reply, {})[:3]
  body = body if isinstance(body, bytes) else json.dumps(body).encode()
  handler.send_response(status)
  for name, value in {"Content-Length": str(len(body)), **headers}.items():
    handler.send_header(name, value)
  handler.end_headers()
  handler.wfile.write(body)
  return None
