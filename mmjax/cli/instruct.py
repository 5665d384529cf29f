"""`mmjax data generate`: instruction data, written by a language model."""

import contextlib
import dataclasses
import hashlib
import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.cli.progress import show_progress
from mmjax.data.instruct import journal, pictures, plan, prompts
from mmjax.data.instruct.answers import KINDS, REASONS
from mmjax.data.instruct.generate import OUTPUT, Run, Sampling, Summary
from mmjax.data.instruct.generate import settings as settings_of
from mmjax.endpoint import from_environment

# Told to stop, all is saved: start it again to go on.
STOPPED = 75


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What a data set is made of.

  Attributes:
    captions: COCO's `captions_*.json`, or a jsonl of pictures.
    instances: COCO's `instances_*.json`.
    kinds: of answers.
    limit: of pictures; None for all.
  """

  captions: str
  instances: str | None = None
  kinds: Sequence[str] = tuple(KINDS)
  limit: int | None = None

  def __post_init__(self):
    needy = [kind for kind in self.kinds if KINDS[kind].boxes]
    bare = self.instances is None and not self.captions.endswith(".jsonl")
    if needy and bare:
      raise ValueError(
        f"{' and '.join(needy)} need boxes, too: --instances FILE of COCO. Or "
        "name the other type: --types conversation"
      )

  def jobs(self, seed: int) -> list[plan.Job]:
    found = pictures.read(self.captions, self.instances)
    return plan.jobs(found, self.kinds, seed=seed, limit=self.limit)

  def digest(self) -> str:
    """Of the content of its files."""
    found = hashlib.sha256()
    for path in filter(None, (self.captions, self.instances)):
      with open(path, "rb") as file:
        found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def generate(
  target: str | Path,
  wanted: Wanted,
  sampling: Sampling,
  *,
  folder: str | Path | None = None,
  dry_run: bool = False,
  pace: Mapping[str, Any] | None = None,
  write: Callable[[str], None] = print,
  **options: Any,
) -> int:
  """Makes a data set in a folder, or goes on with one.

  Args:
    target: the folder.
    wanted: what it is made of.
    sampling: the model, and how it answers.
    folder: of prompts; None for those that ship.
    dry_run: shows an estimate and a request; sends and writes nothing.
    pace: `concurrency` and `per_minute` of the endpoint.
    write: takes a line at a time.
    **options: `tries`, `prices` and `max_cost` of a Run.

  Returns:
    The exit code: 0; 1 when requests were not answered; 75 when it stopped
    for the cost.
  """
  told = prompts.load(folder or prompts.ASSETS)
  settings = settings_of(sampling, told, wanted.digest())
  run = Run(told, sampling, **options)
  jobs = wanted.jobs(sampling.seed)
  contents = journal.read(target, settings)
  todo = [j for j in jobs if not contents.is_finished(j.key, run.tries)]
  write(plan.table(plan.estimate(todo, told), run.prices))
  if len(todo) < len(jobs):
    write(f"{len(jobs) - len(todo):,} more are in {target} already.")
  if dry_run:
    _show((todo or jobs)[0], told, sampling, write)
    return 0
  endpoint = from_environment(**pace or {})
  with _stoppable(), journal.Journal(target, settings) as opened:
    found = run(jobs, endpoint, opened, show_progress())
  return _report(found, Path(target), write)


def prices(
  prompt: float | None, completion: float | None
) -> plan.Prices | None:
  """Both, or neither."""
  if prompt is None and completion is None:
    return None
  if prompt is None or completion is None:
    raise ValueError("Give both prices: --price-in and --price-out.")
  return plan.Prices(prompt, completion)


def _show(
  job: plan.Job,
  told: prompts.Prompts,
  sampling: Sampling,
  write: Callable[[str], None],
) -> None:
  write(f"\nA request ({job.kind} of {job.picture.image}); none is sent:\n")
  request = {
    "model": sampling.model,
    "messages": job.messages(told),
    "temperature": sampling.temperature,
    "max_tokens": sampling.max_tokens,
  }
  write(json.dumps(request, indent=1, ensure_ascii=False))


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


def _report(found: Summary, target: Path, write: Callable[[str], None]) -> int:
  write(f"{found.done:,} answers of this request are in {target / OUTPUT}")
  for reason, count in sorted(found.failed.items()):
    write(f"  failed: {count:,} {reason} ({REASONS[reason]})")
  if found.failed:
    write(
      f"  Their answers are in {target / journal.NAME}; more --tries ask again."
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
  if not found.left:
    return 0
  return STOPPED if found.over_budget else 1
