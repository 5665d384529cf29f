"""The client of a chat endpoint, against one that misbehaves."""

import contextlib
import email.utils
import logging
import ssl
import threading
import time

import pytest

from mmjax import endpoint as client
from mmjax.endpoint import Completion, Endpoint, EndpointError, Refused
from tests.stand_in import StandIn, chat

KEY = "sk-very-secret-key-0123456789"
HELLO = [{"role": "user", "content": "Hello"}]
ASKED = dict(model="m", temperature=0.5, max_tokens=7)


class Time:
  """A clock that only sleeping moves."""

  def __init__(self):
    self.now, self.slept = 100.0, []

  def sleep(self, seconds):
    self.slept.append(seconds)
    self.now += seconds


@contextlib.contextmanager
def asking(*replies, **options):
  """An endpoint that gives these replies in turn, the last for ever."""

  def reply(request, number):
    return replies[min(number, len(replies) - 1)]

  moments = Time()
  with StandIn(reply).running() as server:
    options = {"timeout": 5.0, "tries": 3, "key": KEY, **options}
    yield (
      server,
      moments,
      Endpoint(
        server.url,
        sleep=moments.sleep,
        clock=lambda: moments.now,
        jitter=lambda: 0.0,
        **options,
      ),
    )


def test_an_answer():
  with asking(chat("Hi", tokens=(3, 4))) as (server, _, endpoint):
    assert endpoint.complete(HELLO, **ASKED) == Completion("Hi", "stop", 3, 4)
  (request,), (headers,) = server.requests, server.headers
  assert request == {"messages": HELLO, **ASKED}
  assert headers["Authorization"] == f"Bearer {KEY}"
  assert server.paths == ["/v1/chat/completions"]


def test_without_a_key_none_is_sent():
  with asking(chat("Hi"), key="") as (server, _, endpoint):
    endpoint.complete(HELLO, **ASKED)
  assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
  ("content", "expected"),
  [
    (chat(None, "content_filter"), Completion("", "content_filter", 100, 20)),
    (chat("a", "length"), Completion("a", "length", 100, 20)),
    (
      {"choices": [{"message": {"content": "a"}}], "usage": None},
      Completion("a", ""),
    ),
    ({**chat("a"), "usage": {"prompt_tokens": "9"}}, Completion("a", "stop")),
    (chat("a", tokens=(10**400, -1)), Completion("a", "stop")),
  ],
)
def test_what_endpoints_leave_out(content, expected):
  with asking(content) as (_, _, endpoint):
    assert endpoint.complete(HELLO, **ASKED) == expected


@pytest.mark.parametrize(
  "bad",
  [
    (500, b"oops"),
    (503, {"error": {"message": "busy"}}),
    (429, b""),
    (408, b""),
    b"<html>not json</html>",
    b'{"choices": []}',
    b'{"choices": [{"message": {"content": 3}}]}',
    b"[" * 100_000,
    b"null",
    b"",
    (200, b'{"choices": [', {"Content-Length": "1000"}),
    "reset",
    "close",
  ],
  ids=str,
)
def test_what_may_pass_is_tried_again(bad):
  with asking(bad, bad, chat("Hi")) as (server, moments, endpoint):
    assert endpoint.complete(HELLO, **ASKED).text == "Hi"
    assert len(server.requests) == 3
    assert moments.slept == [1.0, 2.0]


def test_waiting_doubles_up_to_a_cap_and_is_partly_chance():
  moments = Time()
  endpoint = Endpoint(
    "http://127.0.0.1:9", tries=9, sleep=moments.sleep, jitter=lambda: 0.5
  )
  with pytest.raises(EndpointError, match="no answer in 9 tries.*Refused"):
    endpoint.complete(HELLO, **ASKED)
  assert moments.slept == [0.75, 1.5, 3, 6, 12, 24, 45, 45]


def test_the_last_cause_is_named():
  with asking(
    "reset", (500, {"error": {"message": "out of\nmemory"}}), tries=2
  ) as (server, _, endpoint):
    with pytest.raises(EndpointError) as raised:
      endpoint.complete(HELLO, **ASKED)
    assert len(server.requests) == 2
  assert "2 tries. The last: HTTP 500: out of memory." in str(raised.value)
  assert not isinstance(raised.value, Refused)


@pytest.mark.parametrize(
  ("after", "waited"),
  [
    ("7", 7.0),
    ("0.5", 1.0),
    ("9999999", 60.0),
    ("nan", 1.0),
    ("-3", 1.0),
    ("soon", 1.0),
    ("Wed, 99 Nov 2020 00:00:00 GMT", 1.0),
  ],
)
def test_retry_after_is_honoured_and_capped(after, waited):
  busy = (429, b"", {"Retry-After": after})
  with asking(busy, chat("Hi")) as (_, moments, endpoint):
    assert endpoint.complete(HELLO, **ASKED).text == "Hi"
    assert moments.now - 100 == pytest.approx(waited)


def test_retry_after_may_be_a_date():
  date = email.utils.formatdate(time.time() + 30, usegmt=True)
  busy = (503, b"", {"Retry-After": date})
  with asking(busy, chat("Hi")) as (_, moments, endpoint):
    endpoint.complete(HELLO, **ASKED)
    assert 25 < moments.now - 100 <= 30


def test_retry_after_holds_for_other_requests_too():
  busy = (429, b"", {"Retry-After": "5"})
  with asking(busy, chat("Hi"), tries=1) as (_, moments, endpoint):
    with pytest.raises(EndpointError, match="429"):
      endpoint.complete(HELLO, **ASKED)
    assert not moments.slept
    assert endpoint.complete(HELLO, **ASKED).text == "Hi"
    assert moments.slept == [5]


@pytest.mark.parametrize(
  ("status", "hint", "of_the_request"),
  [
    (400, "", True),
    (401, "OPENAI_API_KEY", False),
    (403, "OPENAI_API_KEY", False),
    (404, "OPENAI_BASE_URL", False),
    (422, "", True),
  ],
)
def test_client_errors_are_final_at_once(status, hint, of_the_request):
  bad = (status, {"error": {"message": "no such thing"}})
  with asking(bad) as (server, moments, endpoint):
    with pytest.raises(Refused, match=f"HTTP {status}: no such thing") as found:
      endpoint.complete(HELLO, **ASKED)
    assert len(server.requests) == 1 and not moments.slept
  assert hint in str(found.value)
  assert found.value.of_the_request is of_the_request


def test_a_used_up_quota_is_final():
  used_up = {"error": {"message": "pay", "code": "insufficient_quota"}}
  with asking((429, used_up)) as (server, _, endpoint):
    with pytest.raises(Refused, match="429: pay"):
      endpoint.complete(HELLO, **ASKED)
    assert len(server.requests) == 1


def test_models_that_call_the_limit_otherwise():
  bad = (400, {"error": {"message": "use 'max_completion_tokens' instead"}})
  with asking(bad, chat("Hi"), chat("Ho")) as (server, _, endpoint):
    endpoint.complete(HELLO, **ASKED)
    endpoint.complete(HELLO, **ASKED)
  assert [r.get("max_completion_tokens") for r in server.requests] == [
    *(None, 7, 7)
  ]


def test_redirects_are_not_followed():
  with asking(chat("stolen")) as (other, _, _):
    moved = (307, b"", {"Location": other.url + "/chat/completions"})
    with asking(moved) as (server, _, endpoint):
      with pytest.raises(Refused, match="redirects to http://.*not followed"):
        endpoint.complete(HELLO, **ASKED)
      assert len(server.requests) == 1
    assert not other.requests


def test_a_certificate_that_is_not_trusted_is_final(monkeypatch):
  def fail(*_):
    error = ssl.SSLCertVerificationError(1, "failed")
    error.verify_message = "self-signed"
    raise error

  monkeypatch.setattr("http.client.HTTPSConnection.connect", fail)
  endpoint = Endpoint("https://localhost", KEY, sleep=pytest.fail)
  with pytest.raises(Refused, match="trusted here: self-signed"):
    endpoint.complete(HELLO, **ASKED)


def test_long_waits_are_told(caplog):
  caplog.set_level(logging.INFO)
  busy = (429, b"slow down", {"Retry-After": "20"})
  with asking((500, b""), busy, chat("Hi")) as (_, _, endpoint):
    endpoint.complete(HELLO, **ASKED)
  (record,) = caplog.records
  assert "HTTP 429: slow down; waiting 20 s." in record.getMessage()


def test_a_hang_ends_after_the_timeout():
  with StandIn(lambda *_: server.hang).running() as server:
    endpoint = Endpoint(server.url, timeout=0.2, tries=2, sleep=lambda _: 0)
    with pytest.raises(EndpointError, match=r"nothing in 0\.2 s"):
      endpoint.complete(HELLO, **ASKED)
    assert len(server.requests) == 2


def test_a_trickle_ends_after_the_timeout():
  def trickle(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(40):
      handler.wfile.write(b" ")
      time.sleep(0.05)

  with StandIn(lambda *_: trickle).running() as server:
    endpoint = Endpoint(server.url, timeout=0.3, tries=1)
    start = time.monotonic()
    with pytest.raises(EndpointError, match=r"nothing in 0\.3 s"):
      endpoint.complete(HELLO, **ASKED)
    assert time.monotonic() - start < 1.5


def test_a_huge_answer_is_not_read(monkeypatch):
  monkeypatch.setattr(client, "MAX_BYTES", 2**20)
  sent = []

  def flood(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
      handler.wfile.write(b" " * 2**16)
      sent.append(1)

  with StandIn(lambda *_: flood).running() as server:
    endpoint = Endpoint(server.url, tries=1)
    with pytest.raises(EndpointError, match="more than 1,048,576 bytes"):
      endpoint.complete(HELLO, **ASKED)
  assert len(sent) < 1000


def test_so_many_requests_a_minute():
  with asking(chat("Hi"), per_minute=30) as (_, moments, endpoint):
    for _ in range(4):
      endpoint.complete(HELLO, **ASKED)
    assert moments.slept == [2, 2, 2]


def test_so_many_requests_at_a_time():
  def slow(request, number):
    time.sleep(0.05)
    return chat("Hi")

  with StandIn(slow).running() as server:
    endpoint = Endpoint(server.url, concurrency=2)
    threads = [
      threading.Thread(target=endpoint.complete, args=(HELLO,), kwargs=ASKED)
      for _ in range(6)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert len(server.requests) == 6 and server.busiest == 2


def test_closing_wakes_who_waits():
  with StandIn(lambda *_: (500, b"")).running() as server:
    endpoint = Endpoint(server.url, tries=8)
    timer = threading.Timer(0.2, endpoint.close)
    timer.start()
    start = time.monotonic()
    with pytest.raises(EndpointError, match="No more is asked"):
      endpoint.complete(HELLO, **ASKED)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
  "reply",
  [
    (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
    (500, f"<html>{'x' * 280}{KEY}".encode()),
    f"{'x' * 90}{KEY}".encode(),
    (302, b"", {"Location": f"https://evil.example/?{KEY}"}),
    chat(f"Your key is {KEY}."),
  ],
)
def test_the_key_is_never_told(reply, caplog):
  caplog.set_level(logging.DEBUG)
  with asking(reply, tries=2) as (_, _, endpoint):
    try:
      said = endpoint.complete(HELLO, **ASKED).text
    except EndpointError as error:
      said = str(error)
    told = said + repr(endpoint) + caplog.text
  assert KEY[:16] not in told


def test_a_malformed_key_is_never_told():
  with pytest.raises(ValueError, match="copy it anew") as raised:
    Endpoint(key=f"{KEY}\nX-Evil: 1")
  assert KEY not in str(raised.value)


@pytest.mark.parametrize(
  "url",
  [
    "ftp://host/v1",
    "file:///etc/passwd",
    "host/v1",
    "http://user:password@host/v1",
    "http://host/v1?x=1",
    "http://host/v1#x",
    "http://host:99999/v1",
    "http://ho st/v1",
    "http://host/v1\r\nX: 1",
    "",
  ],
)
def test_malformed_addresses_are_refused(url):
  with pytest.raises(ValueError, match="OPENAI_BASE_URL") as raised:
    Endpoint(url)
  assert "password" not in str(raised.value)


def test_malformed_options_are_refused():
  for options in (dict(tries=0), dict(concurrency=0), dict(timeout=0)):
    with pytest.raises(ValueError, match="expected 1 or more"):
      Endpoint(**options)
  with pytest.raises(ValueError, match="per_minute is 0"):
    Endpoint(per_minute=0)


def test_an_unencrypted_key_is_warned_of(caplog):
  Endpoint("http://127.0.0.1:1/v1", KEY)
  Endpoint("http://far.example/v1")
  assert not caplog.text
  Endpoint("http://far.example/v1", KEY)
  assert "far.example unencrypted" in caplog.text and KEY not in caplog.text


def test_the_environment_names_the_endpoint(monkeypatch):
  monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
  monkeypatch.delenv("OPENAI_API_KEY", raising=False)
  with pytest.raises(ValueError, match="Set OPENAI_API_KEY, or"):
    client.from_environment()
  monkeypatch.setenv("OPENAI_API_KEY", KEY)
  assert client.from_environment().url == client.DEFAULT
  monkeypatch.setenv("OPENAI_BASE_URL", "http://[::1]:80/v1/")
  assert client.from_environment(concurrency=3).concurrency == 3
