"""Asks a language model over HTTP: any endpoint with OpenAI's chat API.

  endpoint = from_environment(per_minute=60)
  said = endpoint.complete(
    [{"role": "user", "content": "Hello"}],
    model="gpt-4o", temperature=0.0, max_tokens=16,
  )
  said.text, said.finish_reason   # "Hello! How can I help?", "stop"

OPENAI_BASE_URL says where it is, and OPENAI_API_KEY goes there and nowhere
else: no redirect is followed, and the key stands in no message.
"""

import dataclasses
import email.utils
import http.client
import json
import logging
import os
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

DEFAULT = "https://api.openai.com/v1"
# Seconds between two tries at most, whatever the endpoint asks for.
LONGEST_WAIT = 60.0
# Of a response's body; the longest answers have some hundred kB.
MAX_BYTES = 8 * 2**20
# Nothing that is sent or answered has more tokens.
MOST_TOKENS = 10**9
# The name that newer models of OpenAI want for max_tokens; they say so.
_OTHER_LIMIT = "max_completion_tokens"
_URL = re.compile(
  r"(https?)://(\[[\da-fA-F:.]+\]|[\w.-]+)(?::(\d{1,5}))?(/[\w./~%+-]*)?",
  re.ASCII,
)
# Nobody waits for these to get better by themselves.
_HINTS = {
  401: "Is OPENAI_API_KEY right?",
  403: "Is OPENAI_API_KEY right, and may it use this model?",
  404: "Are OPENAI_BASE_URL (with its /v1) and the model right?",
}
# Client errors that go away: too slow, in conflict, too early, too many.
_PASSING = {408, 409, 425, 429}


class EndpointError(ConnectionError):
  """There was no answer."""


class Refused(EndpointError):
  """The endpoint answered that it will not: asking again is no use.

  Attributes:
    status: of HTTP; 0 where it did not come so far.
  """

  def __init__(self, message: str, status: int):
    super().__init__(message)
    self.status = status

  @property
  def of_the_request(self) -> bool:
    """Whether another request may still be answered."""
    return self.status in (400, 413, 422)


class _Failed(Exception):
  """A try that failed; `after` are the seconds that the endpoint asks for."""

  def __init__(self, cause: str, after: float = 0.0):
    super().__init__(cause)
    self.after = after


@dataclasses.dataclass(frozen=True)
class Completion:
  """An answer.

  Attributes:
    text: of the answer; may be empty.
    finish_reason: "stop", "length" where max_tokens cut it, ...
    prompt_tokens: that were read; None where the endpoint does not say, or
      says more than anything has.
    completion_tokens: that were written; likewise.
  """

  text: str
  finish_reason: str
  prompt_tokens: int | None = None
  completion_tokens: int | None = None


class Endpoint:
  """A place that completes chats. Threads may share one."""

  def __init__(
    self,
    url: str = DEFAULT,
    key: str = "",
    *,
    timeout: float = 300.0,
    tries: int = 8,
    per_minute: float | None = None,
    concurrency: int = 8,
    sleep: Callable[[float], Any] | None = None,
    clock: Callable[[], float] = time.monotonic,
    jitter: Callable[[], float] = random.random,
  ):
    """Checks the address and the key; asks nothing yet.

    Args:
      url: up to `/v1`, of http or https.
      key: sent as a bearer token; empty for endpoints that want none.
      timeout: seconds for one try.
      tries: of one request, before it is an error.
      per_minute: requests that are begun in a minute, tries counted; None for
        as many as come.
      concurrency: requests at a time.
      sleep: waits for seconds; ends early after `close`.
      clock: of seconds.
      jitter: draws from [0, 1).
    """
    if tries < 1 or concurrency < 1 or timeout <= 0:
      raise ValueError(
        f"tries is {tries}, concurrency {concurrency} and timeout {timeout}; "
        "expected 1 or more, 1 or more, and more than 0."
      )
    self._host, self._path = _parse(url)
    self._key = _check_key(key)
    self.url, self.concurrency = url, concurrency
    self._timeout, self._tries = timeout, tries
    self._closed = threading.Event()
    self._sleep = sleep or self._closed.wait
    self._clock, self._jitter = clock, jitter
    self._pace = _Pace(per_minute, self._sleep, clock)
    self._slots = threading.BoundedSemaphore(concurrency)
    self._limit = "max_tokens"
    scheme, name, _ = self._host
    if key and scheme == "http" and name not in _LOCAL:
      log.warning("The key goes to %s unencrypted: its URL is http.", name)

  def complete(
    self,
    messages: Sequence[Mapping[str, str]],
    *,
    model: str,
    temperature: float,
    max_tokens: int,
  ) -> Completion:
    """The answer to a chat.

    Args:
      messages: with `role` and `content`.
      model: as the endpoint calls it.
      temperature: of sampling; 0 for the likeliest answer.
      max_tokens: of the answer at most.

    Raises:
      Refused: when the endpoint does not accept the request, at once.
      EndpointError: when no try of several had an answer; names the last.
    """
    request = {
      "model": model,
      "messages": [dict(message) for message in messages],
      "temperature": temperature,
    }
    cause = ""
    for number in range(self._tries):
      self._pace.wait()
      if self._closed.is_set():
        raise EndpointError(f"No more is asked of {self.url}.")
      try:
        return self._ask(request, max_tokens)
      except _Failed as error:
        cause = str(error)
        self._pace.pause(error.after)
        if number + 1 < self._tries:
          self._wait(max(error.after, self._backoff(number)), cause)
    raise EndpointError(
      f"{self.url} gave no answer in {self._tries} tries. The last: {cause}. "
      "Try again later, or ask less at a time."
    )

  def close(self) -> None:
    """Begins no further try, and wakes those who wait for one."""
    self._closed.set()

  def _wait(self, seconds: float, cause: str) -> None:
    level = logging.INFO if seconds > 5 else logging.DEBUG
    log.log(level, "%s: %s; waiting %.0f s.", self.url, cause, seconds)
    self._sleep(seconds)

  def _backoff(self, number: int) -> float:
    """1, 2, 4, ... seconds, of which up to half are left to chance."""
    return min(2.0**number, LONGEST_WAIT) * (1 - self._jitter() / 2)

  def _ask(self, request: Mapping[str, Any], max_tokens: int) -> Completion:
    limit = self._limit
    body = json.dumps({**request, limit: max_tokens}).encode()
    with self._slots:
      status, headers, data = self._exchange(body)
    if 200 <= status < 300:
      return self._read(data)
    said = self._clean(_error_text(data))
    cause = f"HTTP {status}{': ' if said else ''}{said}"
    if 300 <= status < 400:
      place = self._clean(headers.get("Location", "nowhere"))
      raise Refused(
        f"{self.url} redirects to {place}, which is not followed. Set "
        "OPENAI_BASE_URL to the right address.",
        status,
      )
    if (status, limit) == (400, "max_tokens") and _OTHER_LIMIT in said:
      self._limit = _OTHER_LIMIT
      raise _Failed(cause)
    # A quota is no rate: it does not come back by waiting.
    if (status in _PASSING or status >= 500) and "insufficient_quota" not in (
      data.decode(errors="replace")
    ):
      raise _Failed(cause, _after(headers.get("Retry-After")))
    hint = _HINTS.get(status, "")
    raise Refused(f"{self.url} refuses: {cause}. {hint}".strip(), status)

  def _exchange(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
    """One request and its response; whatever goes wrong is a `_Failed`."""
    scheme, name, port = self._host
    headers = {"Content-Type": "application/json", "User-Agent": "mmjax"}
    if self._key:
      headers["Authorization"] = f"Bearer {self._key}"
    end = self._clock() + self._timeout
    connect = getattr(http.client, f"{scheme.upper()}Connection")
    connection = connect(name, port, timeout=self._timeout)
    try:
      connection.request("POST", self._path, body, headers)
      response = connection.getresponse()
      return response.status, response.headers, self._body(response, end)
    except ssl.SSLCertVerificationError as error:
      raise Refused(
        f"{self.url} has no certificate that is trusted here: "
        f"{error.verify_message}.",
        0,
      ) from None
    except TimeoutError:
      raise _Failed(f"nothing in {self._timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
      raise _Failed(self._clean(f"{type(error).__name__}: {error}")) from None
    finally:
      connection.close()

  def _body(self, response: http.client.HTTPResponse, end: float) -> bytes:
    parts, size = [], 0
    while part := response.read1(2**16):
      parts.append(part)
      size += len(part)
      if size > MAX_BYTES:
        raise _Failed(f"an answer of more than {MAX_BYTES:,} bytes")
      # A timeout of a socket begins anew with every byte.
      if self._clock() > end:
        raise TimeoutError
    return b"".join(parts)

  def _read(self, data: bytes) -> Completion:
    try:
      content = json.loads(data)
      choice = content["choices"][0]
      text, reason = choice["message"]["content"], choice.get("finish_reason")
      if not isinstance(text, str | None) or not isinstance(reason, str | None):
        raise TypeError("content or finish_reason is no string")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
      start = self._clean(data.decode(errors="replace"))[:100]
      raise _Failed(f"no answer of a chat: {start or 'nothing'}") from None
    usage = content.get("usage")
    counts = [
      _count(usage, name) for name in ("prompt_tokens", "completion_tokens")
    ]
    return Completion(self._hide(text or ""), reason or "", *counts)

  def _hide(self, text: str) -> str:
    """Without the key, which error messages like to repeat.

    A short one, such as the "EMPTY" of servers that want none, is no secret
    and may be a word.
    """
    return text.replace(self._key, "(key)") if len(self._key) > 12 else text

  def _clean(self, text: str) -> str:
    """On one line, not too long, and without the key."""
    text = " ".join(self._hide(text).split())
    return "".join(c if c.isprintable() else "?" for c in text)[:300]


def from_environment(**options: Any) -> Endpoint:
  """The endpoint of OPENAI_BASE_URL (OpenAI's own without it).

  Args:
    **options: of `Endpoint`.

  Raises:
    ValueError: when neither an address nor a key is set, or one is malformed.
  """
  url = os.environ.get("OPENAI_BASE_URL", "").strip()
  key = os.environ.get("OPENAI_API_KEY", "").strip()
  if not (url or key):
    raise ValueError(
      "No endpoint is named. Set OPENAI_API_KEY, or OPENAI_BASE_URL to that of "
      "another server: export OPENAI_BASE_URL=http://localhost:8000/v1"
    )
  return Endpoint(url or DEFAULT, key, **options)


_LOCAL = ("localhost", "127.0.0.1", "::1")


class _Pace:
  """Lets threads begin one after the other, so many a minute."""

  def __init__(
    self,
    per_minute: float | None,
    sleep: Callable[[float], Any],
    clock: Callable[[], float],
  ):
    if per_minute is not None and not per_minute > 0:
      raise ValueError(f"per_minute is {per_minute}, expected more than 0.")
    self._gap = 60.0 / per_minute if per_minute else 0.0
    self._sleep, self._clock = sleep, clock
    self._next = -float("inf")
    self._lock = threading.Lock()

  def wait(self) -> None:
    with self._lock:
      now = self._clock()
      start = max(now, self._next)
      self._next = start + self._gap
    if start > now:
      self._sleep(start - now)

  def pause(self, seconds: float) -> None:
    """Nobody begins for so long: who asked for it means all of us."""
    with self._lock:
      self._next = max(self._next, self._clock() + seconds)


def _parse(url: str) -> tuple[tuple[str, str, int | None], str]:
  """(scheme, host, port), and the path that is posted to."""
  found = _URL.fullmatch(url)
  if not found:
    # Not the address itself: some have a password in them.
    raise ValueError(
      "OPENAI_BASE_URL is no address of an endpoint; expected one such as "
      "https://host/v1, of http or https, without user, query or fragment."
    )
  scheme, host, port, path = found.groups()
  if port and not 0 < int(port) < 2**16:
    raise ValueError(f"OPENAI_BASE_URL has the port {port}.")
  path = (path or "").rstrip("/") + "/chat/completions"
  return (scheme, host.strip("[]"), int(port) if port else None), path


def _check_key(key: str) -> str:
  if not key.isascii() or not key.isprintable() or " " in key:
    raise ValueError(
      "OPENAI_API_KEY has spaces, line ends or other characters that no key "
      "has; copy it anew."
    )
  return key


def _after(value: str | None) -> float:
  """Seconds of a Retry-After, which is a number or a date."""
  if not value:
    return 0.0
  try:
    if re.fullmatch(r"[\d.]+", value):
      seconds = float(value)
    else:
      date = email.utils.parsedate_to_datetime(value)
      seconds = date.timestamp() - time.time()
  except (ValueError, TypeError, OverflowError):
    return 0.0
  return min(max(seconds, 0.0), LONGEST_WAIT)


def _error_text(data: bytes) -> str:
  """What a response says of an error, in OpenAI's form or any."""
  try:
    return str(json.loads(data)["error"]["message"])
  except (ValueError, LookupError, TypeError, RecursionError):
    return data.decode(errors="replace")


def is_count(value: Any) -> bool:
  """Whether it can be a number of tokens."""
  return type(value) is int and 0 <= value <= MOST_TOKENS


def _count(usage: Any, name: str) -> int | None:
  value = usage.get(name) if isinstance(usage, dict) else None
  return value if is_count(value) else None
