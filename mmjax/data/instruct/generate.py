"""Asks for every answer that a folder lacks, and writes the data set."""

import collections
import concurrent.futures
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmjax.data.instruct import answers, plan
from mmjax.data.instruct.answers import Rejected
from mmjax.data.instruct.journal import DONE, REJECTED, Journal, write_whole
from mmjax.data.instruct.plan import Job, Prices
from mmjax.data.instruct.prompts import Messages, Prompts
from mmjax.endpoint import Completion, Endpoint, EndpointError, Refused

log = logging.getLogger(__name__)

# So many requests without an answer, one after the other, are no accident.
GIVE_UP = 8
OUTPUT = "instruct.json"


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How a model answers.

  Attributes:
    model: as the endpoint calls it.
    temperature: of sampling.
    max_tokens: of an answer at most.
    seed: of our own draws: questions of descriptions, and whether a picture
      comes before or after the first question.
  """

  model: str
  temperature: float = 1.0
  max_tokens: int = 1024
  seed: int = 0


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
    prompts: what is said before a picture.
    sampling: how it is answered.
    tries: answers to a job, until it has failed; those of runs before count.
    prices: for `max_cost`, and the summary.
    max_cost: of all that the folder has; no request is sent that might go
      over it, were its answer as long as it may be. What a request has to be
      read is estimated by its characters.
  """

  prompts: Prompts
  sampling: Sampling
  tries: int = 3
  prices: Prices | None = None
  max_cost: float | None = None

  def __post_init__(self):
    if self.tries < 1:
      raise ValueError(f"tries is {self.tries}, expected 1 or more.")
    if self.max_cost is not None and self.prices is None:
      raise ValueError("max_cost needs prices: --price-in and --price-out.")

  def __call__(
    self,
    jobs: Sequence[Job],
    endpoint: Endpoint,
    journal: Journal,
    progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> Summary:
    """Asks for what is missing, then writes the data set.

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
    _write(jobs, journal)
    return work.summary(over_budget)

  def ask(self, job: Job, endpoint: Endpoint, journal: Journal) -> None:
    """One answer, into the journal: in the thread that got it."""
    messages = self.messages(job, journal)
    said = endpoint.complete(
      messages,
      model=self.sampling.model,
      temperature=self.sampling.temperature,
      max_tokens=self.sampling.max_tokens,
    )
    journal.append(self._judged(job, _counted(said, messages)))

  def messages(self, job: Job, journal: Journal) -> Messages:
    """A request, with a note on why the answer before was no use."""
    reasons = journal.contents.rejected.get(job.key, [""])
    return job.messages(self.prompts, self.prompts.notes.get(reasons[-1], ""))

  def _judged(self, job: Job, said: Completion) -> dict[str, Any]:
    """The line of an answer."""
    chance = job.chance(self.sampling.seed)
    question = chance.choice(self.prompts.questions)
    try:
      turns = answers.turns(job.kind, said, question)
    except Rejected as error:
      return _line(job, REJECTED, said, reason=error.reason)
    written = answers.conversations(turns, chance)
    return _line(job, DONE, said, conversations=written)


class _Work:
  """One go at the jobs that are not finished."""

  def __init__(
    self,
    run: Run,
    jobs: Sequence[Job],
    endpoint: Endpoint,
    journal: Journal,
    progress: Callable[[int, int], None],
  ):
    self._run, self._jobs, self._progress = run, jobs, progress
    self._endpoint, self._journal = endpoint, journal
    self._todo = collections.deque(j for j in jobs if not self._is_finished(j))
    self._running: dict[concurrent.futures.Future, Job] = {}
    self._finished = len(jobs) - len(self._todo)
    self._answered = self._unanswered = self._in_a_row = 0
    self._refused: list[tuple[Job, Refused]] = []

  def _is_finished(self, job: Job) -> bool:
    return self._journal.contents.is_finished(job.key, self._run.tries)

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
        self._settle(self._running.pop(future), future.exception())
      self._progress(self._finished, len(self._jobs))
    if self._refused:
      self._keep_refused()
      self._progress(self._finished, len(self._jobs))
    return bool(self._todo)

  def _start(self, pool: concurrent.futures.Executor) -> None:
    """Begins as many requests as may be."""
    while self._todo and len(self._running) < self._endpoint.concurrency:
      job = self._todo[0]
      if not self._affords([*self._running.values(), job]):
        return
      self._todo.popleft()
      future = pool.submit(self._run.ask, job, self._endpoint, self._journal)
      self._running[future] = job

  def _affords(self, jobs: Sequence[Job]) -> bool:
    """Whether all of these may be answered at full length."""
    run = self._run
    if run.max_cost is None:
      return True
    sizes = [plan.count(run.messages(job, self._journal)) for job in jobs]
    written = len(jobs) * run.sampling.max_tokens
    return self._cost() + run.prices.of(sum(sizes), written) <= run.max_cost

  def _cost(self) -> float:
    found = self._journal.contents
    return self._run.prices.of(found.prompt_tokens, found.completion_tokens)

  def _settle(self, job: Job, error: BaseException | None) -> None:
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

  def _settle_error(self, job: Job, error: BaseException) -> None:
    self._in_a_row += 1
    final = isinstance(error, Refused)
    hopeless = final and not error.of_the_request
    known = isinstance(error, EndpointError)
    if hopeless or not known or self._in_a_row >= GIVE_UP:
      raise error
    log.warning("%s of %s: %s", job.kind, job.picture.id, error)
    if final:
      self._refused.append((job, error))
    else:
      self._unanswered += 1

  def _keep_refused(self) -> None:
    """Puts refusals into the journal, once others are answered.

    Where none is, it is not the pictures, and they are asked about again.
    """
    if self._refused and not self._answered:
      raise self._refused[-1][1]
    for job, error in self._refused:
      said = Completion(str(error), "", 0, 0)
      self._journal.append(_line(job, REJECTED, said, reason="refused"))
    self._finished += len(self._refused)
    self._refused.clear()

  def summary(self, over_budget: bool) -> Summary:
    found = self._journal.contents
    done = sum(job.key in found.done for job in self._jobs)
    failed = collections.Counter(
      found.rejected[job.key][-1]
      for job in self._jobs
      if job.key not in found.done and self._is_finished(job)
    )
    return Summary(
      done=done,
      failed=failed,
      left=len(self._jobs) - done - failed.total(),
      unanswered=self._unanswered,
      cost=self._cost() if self._run.prices else None,
      over_budget=over_budget,
    )


def _line(job: Job, status: str, said: Completion, **result: Any) -> dict:
  return {
    "id": job.picture.id,
    "kind": job.kind,
    "status": status,
    "image": job.picture.image,
    **dataclasses.asdict(said),
    **result,
  }


def _write(jobs: Sequence[Job], journal: Journal) -> None:
  """All good answers of the folder, those to `jobs` first."""
  keys = dict.fromkeys(job.key for job in jobs)
  keys |= dict.fromkeys(sorted(journal.contents.done))
  write_whole(journal.folder / OUTPUT, _array(journal.lines(keys)))


def settings(sampling: Sampling, prompts: Prompts, data: str) -> dict[str, Any]:
  """What the answers of a folder have in common.

  Args:
    sampling: how they are made.
    prompts: what is said before a picture.
    data: a digest of the files of captions and boxes.
  """
  return {
    **dataclasses.asdict(sampling),
    "prompts": prompts.digest,
    "data": data,
  }


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


def _array(lines: Iterator[Mapping[str, Any]]) -> Iterator[str]:
  """A JSON array with a row a line, without holding it in memory."""
  mark = "["
  for line in lines:
    row = {name: line[name] for name in ("id", "image", "conversations")}
    yield f"{mark}\n{json.dumps(row)}"
    mark = ","
  yield "[]\n" if mark == "[" else "\n]\n"
