"""Asks for every answer that a folder lacks, whatever the answers are for.

A job is done by one answer or by several, one after the other; a recipe says
what is asked next, what an answer is worth, and what is made of the good ones.
"""

import collections
import concurrent.futures
import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from mmjax.data.instruct import plan
from mmjax.data.instruct.journal import DONE, REJECTED, Contents, Journal, Key
from mmjax.data.instruct.plan import Prices
from mmjax.data.instruct.prompts import Messages
from mmjax.data.instruct.reasons import Rejected
from mmjax.endpoint import Completion, EndpointError, Refused

log = logging.getLogger(__name__)

# So many requests without an answer, one after the other, are no accident.
GIVE_UP = 8


class Answerer(Protocol):
  """Who is asked: an `Endpoint`, or a model of this process.

  Attributes:
    concurrency: how many threads ask at a time.
  """

  concurrency: int

  def complete(
    self,
    messages: Sequence[Mapping[str, str]],
    *,
    model: str,
    temperature: float,
    max_tokens: int,
  ) -> Completion: ...

  def close(self) -> None: ...


class Recipe(Protocol):
  """What is made of answers, and how each is asked for.

  Attributes:
    output: name of the file of what was made.
  """

  output: str

  def outcome(self, job: Any, found: Contents, tries: int) -> str | None:
    """DONE, the reason for which a job failed, or None while it goes on."""

  def next(self, job: Any, found: Contents) -> Key:
    """What a job that goes on asks for next."""

  def messages(self, job: Any, journal: Journal) -> Messages:
    """How it is asked."""

  def judge(self, job: Any, said: Completion, journal: Journal) -> dict:
    """What the journal keeps of an answer; a `Rejected` where it is no use."""

  def write(self, jobs: Sequence[Any], journal: Journal) -> None:
    """Writes what the good answers make, those to `jobs` first."""


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How a model answers.

  Attributes:
    model: as the endpoint calls it.
    temperature: of sampling.
    max_tokens: of an answer at most.
    seed: of our own draws.
  """

  model: str
  temperature: float = 1.0
  max_tokens: int = 1024
  seed: int = 0

  def __post_init__(self):
    if not 0 <= self.temperature < math.inf:
      raise ValueError(
        f"temperature is {self.temperature}, expected a number of 0 or more."
      )
    if self.max_tokens < 1:
      raise ValueError(f"max_tokens is {self.max_tokens}, expected 1 or more.")


@dataclasses.dataclass
class Summary:
  """How a run ended.

  Attributes:
    done: good answers to the jobs.
    failed: jobs whose answers were no use, by the reason of the last.
    left: jobs that are neither.
    unanswered: requests of this run that the endpoint did not answer.
    cost: of all that the folder has, where prices are known.
    over_budget: whether it stopped for the cost.
  """

  done: int
  failed: Mapping[str, int]
  left: int
  unanswered: int
  cost: float | None
  over_budget: bool


@dataclasses.dataclass(frozen=True)
class Run:
  """How the jobs of a folder are done.

  Attributes:
    recipe: what is asked, and what is made of it.
    sampling: how it is answered.
    tries: answers to a request, until its job has failed; those of runs before
      count.
    prices: for `max_cost`, and the summary.
    max_cost: of all that the folder has; no request is sent that might go
      over it, were its answer as long as it may be. What a request has to be
      read is estimated by its characters.
  """

  recipe: Recipe
  sampling: Sampling
  tries: int = 3
  prices: Prices | None = None
  max_cost: float | None = None

  def __post_init__(self):
    if self.tries < 1:
      raise ValueError(f"tries is {self.tries}, expected 1 or more.")
    if self.max_cost is not None and self.prices is None:
      raise ValueError("max_cost needs prices: --price-in and --price-out.")
    if self.max_cost is not None and not self.max_cost >= 0:
      raise ValueError(f"max_cost is {self.max_cost}, expected 0 or more.")

  def __call__(
    self,
    jobs: Sequence[Any],
    endpoint: Answerer,
    journal: Journal,
    progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> Summary:
    """Asks for what is missing, then writes what the answers make.

    Args:
      jobs: that are wanted.
      endpoint: is asked, as much at a time as it takes; closed in the end.
      journal: open; gets every answer.
      progress: is told how many of how many jobs are finished.

    Raises:
      EndpointError: when the endpoint refuses whatever it is asked, or does
        not answer; all answers are in the journal.
      OSError: when an answer cannot be written.
    """
    work = _Work(self, jobs, endpoint, journal, progress)
    with concurrent.futures.ThreadPoolExecutor(endpoint.concurrency) as pool:
      try:
        over_budget = work.through(pool)
      finally:
        # The pool waits for requests under way, since they are paid.
        endpoint.close()
    self.recipe.write(jobs, journal)
    return work.summary(over_budget)

  def ask(self, job: Any, endpoint: Answerer, journal: Journal) -> None:
    """One answer, into the journal: in the thread that got it."""
    key = self.recipe.next(job, journal.contents)
    messages = self.recipe.messages(job, journal)
    said = endpoint.complete(
      messages,
      model=self.sampling.model,
      temperature=self.sampling.temperature,
      max_tokens=self.sampling.max_tokens,
    )
    said = _counted(said, messages)
    try:
      kept = self.recipe.judge(job, said, journal)
      line = _line(key, DONE, said, **kept)
    except Rejected as error:
      line = _line(key, REJECTED, said, reason=error.reason)
    journal.append(line)


class _Work:
  """One go at the jobs that are not finished."""

  def __init__(
    self,
    run: Run,
    jobs: Sequence[Any],
    endpoint: Answerer,
    journal: Journal,
    progress: Callable[[int, int], None],
  ):
    self._run, self._jobs, self._progress = run, jobs, progress
    self._endpoint, self._journal = endpoint, journal
    self._todo = collections.deque(j for j in jobs if not self._is_finished(j))
    # What is under way, and the size of its request where that may cost.
    self._running: dict[concurrent.futures.Future, tuple[Any, int]] = {}
    self._finished = len(jobs) - len(self._todo)
    self._answered = self._unanswered = self._in_a_row = 0
    self._refused: list[tuple[Key, Refused]] = []

  def _outcome(self, job: Any) -> str | None:
    run = self._run
    return run.recipe.outcome(job, self._journal.contents, run.tries)

  def _is_finished(self, job: Any) -> bool:
    return self._outcome(job) is not None

  def through(self, pool: concurrent.futures.Executor) -> bool:
    """Until nothing is left to do, or (True) nothing more may be spent."""
    self._progress(self._finished, len(self._jobs))
    while True:
      self._start(pool)
      if not self._running:
        break
      ended, _ = concurrent.futures.wait(
        self._running, return_when=concurrent.futures.FIRST_COMPLETED
      )
      for future in ended:
        self._settle(self._running.pop(future)[0], future.exception())
      self._progress(self._finished, len(self._jobs))
    if self._refused:
      self._keep_refused()
      self._progress(self._finished, len(self._jobs))
    return bool(self._todo)

  def _start(self, pool: concurrent.futures.Executor) -> None:
    """Begins as many requests as may be."""
    while self._todo and len(self._running) < self._endpoint.concurrency:
      job, size = self._todo[0], 0
      if self._run.max_cost is not None:
        size = plan.count(self._run.recipe.messages(job, self._journal))
        if not self._affords(size):
          return
      self._todo.popleft()
      future = pool.submit(self._run.ask, job, self._endpoint, self._journal)
      self._running[future] = (job, size)

  def _affords(self, size: int) -> bool:
    """Whether this and all under way may be answered at full length."""
    run = self._run
    read = size + sum(other for _, other in self._running.values())
    written = (1 + len(self._running)) * run.sampling.max_tokens
    return self._cost() + run.prices.of(read, written) <= run.max_cost

  def _cost(self) -> float:
    found = self._journal.contents
    return self._run.prices.of(found.prompt_tokens, found.completion_tokens)

  def _settle(self, job: Any, error: BaseException | None) -> None:
    """Counts how a request ended; raises what ends the run."""
    if error is not None:
      return self._settle_error(job, error)
    self._answered += 1
    self._in_a_row = 0
    self._keep_refused()
    if self._is_finished(job):
      self._finished += 1
    else:
      self._todo.appendleft(job)
    return None

  def _settle_error(self, job: Any, error: BaseException) -> None:
    self._in_a_row += 1
    final = isinstance(error, Refused)
    hopeless = final and not error.of_the_request
    known = isinstance(error, EndpointError)
    if hopeless or not known or self._in_a_row >= GIVE_UP:
      raise error
    key = self._run.recipe.next(job, self._journal.contents)
    log.warning("%s of %s: %s", *reversed(key), error)
    if final:
      self._refused.append((key, error))
    else:
      self._unanswered += 1

  def _keep_refused(self) -> None:
    """Puts refusals into the journal, once others are answered.

    Where none is, it is not the jobs, and they are asked about again.
    """
    if self._refused and not self._answered:
      raise self._refused[-1][1]
    for key, error in self._refused:
      said = Completion(str(error), "", 0, 0)
      self._journal.append(_line(key, REJECTED, said, reason="refused"))
    self._finished += len(self._refused)
    self._refused.clear()

  def summary(self, over_budget: bool) -> Summary:
    found = collections.Counter(map(self._outcome, self._jobs))
    done, left = found.pop(DONE, 0), found.pop(None, 0)
    return Summary(
      done=done,
      failed=found,
      left=left,
      unanswered=self._unanswered,
      cost=self._cost() if self._run.prices else None,
      over_budget=over_budget,
    )


def _line(key: Key, status: str, said: Completion, **result: Any) -> dict:
  name, kind = key
  about = {"id": name, "kind": kind, "status": status}
  return {**about, **dataclasses.asdict(said), **result}


def _counted(said: Completion, messages: Messages) -> Completion:
  """With estimates where the endpoint does not count tokens."""
  read, written = said.prompt_tokens, said.completion_tokens
  return dataclasses.replace(
    said,
    prompt_tokens=plan.count(messages) if read is None else read,
    completion_tokens=plan.tokens(len(said.text))
    if written is None
    else written,
  )
