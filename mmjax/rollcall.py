"""The processes of a job meet before any of them waits inside of JAX.

Process 0 listens on the coordinator's port, the others come to it and say who
they are; when all are there it lets them go, and JAX takes the port over. JAX
alone would wait without a word, and end with an abort.
"""

import contextlib
import ipaddress
import json
import logging
import selectors
import socket
import time
from collections.abc import Iterable

log = logging.getLogger(__name__)

# Machines of a large job can be half an hour apart in starting.
PATIENCE = 1800.0
EVERY = 30.0
# So long a process on the machine of the coordinator may need to start.
GRACE = 120.0
_GO = b"go\n"
_LONGEST = 4096


def meet(
  address: str,
  count: int,
  index: int,
  *,
  patience: float = PATIENCE,
  every: float = EVERY,
  grace: float = GRACE,
) -> None:
  """Waits for all processes of a job, and says every now and then for whom.

  Args:
    address: host:port of process 0.
    count: of processes.
    index: of this one.
    patience: seconds until it gives up.
    every: seconds between two lines about who is missing.
    grace: seconds until a loopback address that nobody answers is an error.

  Raises:
    TimeoutError: when a process is missing, or process 0 cannot be reached.
    ValueError: when two say that they are the same process, or count others.
  """
  host, _, port = address.rpartition(":")
  host = host.strip("[]")
  if index:
    _join((host, int(port)), count, index, patience, every, grace)
  else:
    _Host(int(port), count).wait(patience, every)


def is_loopback(host: str) -> bool:
  """Whether this machine takes a host's name for itself."""
  try:
    found = socket.getaddrinfo(host, None)
  except OSError:
    return False
  return all(ipaddress.ip_address(a[4][0]).is_loopback for a in found)


def spans(numbers: Iterable[int]) -> str:
  """Numbers as text: `0-3, 7`."""
  runs: list[list[int]] = []
  for n in sorted(numbers):
    if runs and n == runs[-1][1] + 1:
      runs[-1][1] = n
    else:
      runs.append([n, n])
  return ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in runs)


class _Host:
  """Process 0."""

  def __init__(self, port: int, count: int):
    self._port, self._count = port, count
    self._here: dict[int, socket.socket] = {}
    self._unnamed: dict[socket.socket, bytes] = {}
    self._names = {0: socket.gethostname()}
    self._select = selectors.DefaultSelector()

  def wait(self, patience: float, every: float) -> None:
    started = said = time.monotonic()
    with contextlib.ExitStack() as stack:
      stack.enter_context(self._select)
      server = stack.enter_context(_listen(self._port))
      stack.callback(self._hang_up)
      self._select.register(server, selectors.EVENT_READ)
      while missing := self._missing():
        now = time.monotonic()
        if now - started > patience:
          message = (
            f"After {patience:.0f} s process(es) {spans(missing)} of "
            f"{self._count} are missing; here are {self._present()}. Look at "
            "their logs, or why their machines did not start."
          )
          for peer in self._here.values():
            _tell(peer, message)
          raise TimeoutError(message)
        if now - said >= every:
          said = now
          log.warning(
            "Waiting %.0f s for process(es) %s of %d; here are %s",
            *(now - started, spans(missing), self._count, self._present()),
          )
        for key, _ in self._select.select(min(every, 1.0)):
          self._serve(key.fileobj, server)
      self._let_go()
    log.info("All %d processes are here: %s", self._count, self._present())

  def _missing(self) -> set[int]:
    return set(range(1, self._count)) - self._here.keys()

  def _present(self) -> str:
    machines: dict[str, list[int]] = {}
    for index in (0, *self._here):
      machines.setdefault(self._names[index], []).append(index)
    return "; ".join(f"{spans(i)} on {name}" for name, i in machines.items())

  def _serve(self, ready: socket.socket, server: socket.socket) -> None:
    if ready is server:
      new, _ = server.accept()
      new.setblocking(False)
      self._unnamed[new] = b""
      self._select.register(new, selectors.EVENT_READ)
      return
    try:
      data = ready.recv(_LONGEST)
    except OSError:
      data = b""
    if ready in self._unnamed and data:
      self._unnamed[ready] += data
      text = self._unnamed[ready]
      if text.endswith(b"\n"):
        self._welcome(ready, self._unnamed.pop(ready))
      elif len(text) > _LONGEST:
        self._drop(ready)
    elif not data:
      self._drop(ready)

  def _welcome(self, peer: socket.socket, text: bytes) -> None:
    try:
      said = json.loads(text)
      index, count = int(said["process"]), int(said["processes"])
      name = str(said["host"])[:256]
    except (ValueError, KeyError, TypeError):
      self._drop(peer)  # A port scanner, or another program's client.
      return
    problem = ""
    if count != self._count:
      problem = f"counts {count} processes, process 0 {self._count}"
    elif not 0 < index < count or index in self._here:
      problem = f"is process {index}, which another one is already"
    if problem:
      message = f"A process on {name} {problem}. Start them all in one way."
      _tell(peer, message)
      raise ValueError(message)
    self._here[index], self._names[index] = peer, name

  def _drop(self, peer: socket.socket) -> None:
    self._select.unregister(peer)
    peer.close()
    self._unnamed.pop(peer, None)
    self._here = {i: s for i, s in self._here.items() if s is not peer}

  def _let_go(self) -> None:
    for peer in self._here.values():
      peer.settimeout(10)
      with contextlib.suppress(OSError):
        peer.sendall(_GO)
        # They close first, so that the port is free at once.
        peer.recv(1)

  def _hang_up(self) -> None:
    for peer in (*self._here.values(), *self._unnamed):
      peer.close()


def _tell(peer: socket.socket, message: str) -> None:
  with contextlib.suppress(OSError):
    peer.sendall(message.encode() + b"\n")


def _listen(port: int) -> socket.socket:
  both = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if both else socket.AF_INET
  try:
    return socket.create_server(
      ("", port), family=family, dualstack_ipv6=both, backlog=1024
    )
  except OSError as error:
    raise OSError(
      f"Port {port} of the coordinator cannot be opened ({error}). Another "
      "job may use it: choose another port."
    ) from error


def _join(where, count, index, patience, every, grace) -> None:
  """Any process but 0."""
  loopback = is_loopback(where[0])
  started = said = time.monotonic()
  reason = "it has not answered"
  while (waited := time.monotonic() - started) < patience:
    try:
      # Process 0 may have come later, and it is the one that gives up.
      if _knock(where, count, index, 2 * patience):
        return
      reason = "it went away"
    except OSError as error:
      reason = error.strerror or str(error)
    if loopback and waited > grace:
      break
    if time.monotonic() - said >= every:
      said = time.monotonic()
      log.warning(
        "Process %d cannot reach process 0 at %s:%d for %.0f s: %s",
        *(index, *where, waited, reason),
      )
    time.sleep(min(1.0, every))
  hint = "Is process 0 running there, and may the port be reached?"
  if loopback:
    hint = (
      f"{where[0]} is a loopback address: only processes on the machine of "
      "process 0 reach it. Name that machine in MMJAX_COORDINATOR."
    )
  raise TimeoutError(
    f"Process {index} of {count} could not reach process 0 at {where[0]}:"
    f"{where[1]} in {waited:.0f} s: {reason}. {hint}"
  )


def _knock(where, count: int, index: int, patience: float) -> bool:
  """Whether process 0 let this one go; False when it hung up."""
  said = {
    "process": index,
    "processes": count,
    "host": socket.gethostname(),
  }
  with socket.create_connection(where, timeout=10) as peer:
    peer.sendall(json.dumps(said).encode() + b"\n")
    peer.settimeout(patience)
    answer = b""
    while not answer.endswith(b"\n"):
      data = peer.recv(_LONGEST)
      if not data:
        return False
      answer += data
  if answer != _GO:
    raise ValueError(answer.decode(errors="replace").strip())
  return True
