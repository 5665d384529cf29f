"""What the commands share that let a language model write data."""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.cli.progress import show_progress
from mmjax.data.instruct import journal, plan
from mmjax.data.instruct.prompts import Messages
from mmjax.data.instruct.reasons import REASONS
from mmjax.data.instruct.work import Answerer, Run, Sampling, Summary
from mmjax.endpoint import from_environment

# Told to stop, all is saved: start it again to go on.
STOPPED = 75


@dataclasses.dataclass(frozen=True)
class Folder:
  """A data set that is made, or gone on with.

  Attributes:
    target: its folder.
    settings: what all its answers have in common.
    run: how they are asked for.
    write: takes a line at a time.
    result: what is told of good answers, {done} of them, and of {output}.
  """

  target: Path
  settings: Mapping[str, Any]
  run: Run
  write: Callable[[str], None] = print
  result: str = "{done:,} answers of this request are in {output}"

  def contents(self) -> journal.Contents:
    """What it has.

    Raises:
      ValueError: when it was made with other settings, or is damaged.
    """
    return journal.read(self.target, self.settings)

  def todo(self, jobs: Sequence[Any]) -> list[Any]:
    """Jobs that go on; how many do not is told."""
    found, run = self.contents(), self.run
    left = [j for j in jobs if run.recipe.outcome(j, found, run.tries) is None]
    if len(left) < len(jobs):
      self.write(
        f"{len(jobs) - len(left):,} more are in {self.target} already."
      )
    return left

  def show(self, what: str, messages: Messages) -> None:
    """A request, which is not sent."""
    sampling = self.run.sampling
    self.write(f"\nA request ({what}); none is sent:\n")
    request = {
      "model": sampling.model,
      "messages": messages,
      "temperature": sampling.temperature,
      "max_tokens": sampling.max_tokens,
    }
    self.write(json.dumps(request, indent=1, ensure_ascii=False))

  def make(self, jobs: Sequence[Any], answerer: Answerer) -> int:
    """Asks for what is missing, and tells how it ended.

    Returns:
      The exit code: 0; 1 when requests were not answered, or no answer was of
      use; 75 when it stopped for the cost.
    """
    with _stoppable(), journal.Journal(self.target, self.settings) as opened:
      found = self.run(jobs, answerer, opened, show_progress())
    return self._report(found)

  def _report(self, found: Summary) -> int:
    target, write = self.target, self.write
    output = target / self.run.recipe.output
    write(self.result.format(done=found.done, output=output))
    for reason, count in sorted(found.failed.items()):
      write(f"  failed: {count:,} {reason} ({REASONS[reason]})")
    if found.failed:
      write(
        f"  Their answers are in {target / journal.NAME}; more --tries ask "
        "again."
      )
    if found.cost is not None:
      write(f"  cost of the folder, by the prices given: {found.cost:,.2f}")
    if found.left:
      why = (
        "the next may cost more than --max-cost; raise it"
        if found.over_budget
        else f"the endpoint left {found.unanswered:,} requests unanswered"
      )
      write(f"  {found.left:,} are left: {why}, and start it again to go on.")
      return STOPPED if found.over_budget else 1
    if not found.done:
      write("Nothing was kept: no answer was of use, for the reasons above.")
    return int(not found.done)


def digest(paths: Iterable[str | Path | None]) -> str:
  """Of the content of files; there may be None among them."""
  found = hashlib.sha256()
  for path in filter(None, paths):
    with open(path, "rb") as file:
      found.update(hashlib.file_digest(file, "sha256").digest())
  return found.hexdigest()


def prices(
  prompt: float | None, completion: float | None
) -> plan.Prices | None:
  """Both, or neither."""
  if prompt is None and completion is None:
    return None
  if prompt is None or completion is None:
    raise ValueError("Give both prices: --price-in and --price-out.")
  return plan.Prices(prompt, completion)


@dataclasses.dataclass(frozen=True)
class Asking:
  """Who is asked, and how; the options that all such commands have.

  Attributes:
    sampling: the model, and how it answers.
    tries, prices, max_cost: of a Run.
    pace: `concurrency` and `per_minute` of an endpoint.
    prompts: a folder in place of the prompts that ship.
    local: the folder of a model that answers here, in place of an endpoint.
    template: of its chats.
    dry_run: shows an estimate and a request; sends and writes nothing.
  """

  sampling: Sampling
  tries: int = 3
  prices: plan.Prices | None = None
  max_cost: float | None = None
  pace: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  prompts: str | Path | None = None
  local: str | Path | None = None
  template: str | None = None
  dry_run: bool = False

  @classmethod
  def of(cls, args: argparse.Namespace) -> "Asking":
    """What a command line says.

    Raises:
      ValueError: unless it names a model of an endpoint, or a local one.
    """
    if (args.model is None) == (args.local is None):
      raise ValueError(
        "Name either the --model of an endpoint, or the folder of a --local "
        "one."
      )
    if args.template and args.local is None:
      raise ValueError("--template is of a --local model.")
    how = {n: getattr(args, n) for n in ("temperature", "max_tokens", "seed")}
    return cls(
      Sampling(args.model or str(args.local), **how),
      tries=args.tries,
      prices=prices(args.price_in, args.price_out),
      max_cost=args.max_cost,
      pace={"concurrency": args.concurrency, "per_minute": args.rpm},
      prompts=args.prompts,
      local=args.local,
      template=args.template,
      dry_run=args.dry_run,
    )

  @property
  def settings(self) -> dict[str, Any]:
    """What of it the answers of a folder have in common."""
    named = {"template": self.template} if self.template else {}
    return {**dataclasses.asdict(self.sampling), **named}

  def run(self, recipe: Any) -> Run:
    return Run(recipe, self.sampling, self.tries, self.prices, self.max_cost)

  def answerer(self) -> Answerer:
    """The endpoint of the environment, or the local model.

    Raises:
      ValueError: where no endpoint is named, or the folder holds no model.
    """
    if self.local is None:
      return from_environment(**self.pace)
    # Imports JAX, which an endpoint does without.
    from mmjax.cli.local import load_local

    return load_local(
      self.local,
      template=self.template,
      batch_size=self.pace["concurrency"],
      seed=self.sampling.seed,
    )


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
  """SIGTERM ends the run when what is under way is answered and saved."""

  def stop(*_):
    raise SystemExit(STOPPED)

  before = signal.signal(signal.SIGTERM, stop)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
