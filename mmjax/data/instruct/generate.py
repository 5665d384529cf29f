"""LLaVA's instruction data: one answer of each kind about every picture."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mmjax.data.instruct import answers
from mmjax.data.instruct.journal import (
  DONE,
  Contents,
  Journal,
  Key,
  array,
  write_whole,
)
from mmjax.data.instruct.plan import Job
from mmjax.data.instruct.prompts import Messages, Prompts
from mmjax.endpoint import Completion


@dataclasses.dataclass(frozen=True)
class Instruct:
  """How a picture is asked about, and what is written of it.

  Attributes:
    prompts: what is said before a picture.
    seed: of questions of descriptions, and whether a picture comes before or
      after the first question.
  """

  prompts: Prompts
  seed: int = 0
  output = "instruct.json"

  def outcome(self, job: Job, found: Contents, tries: int) -> str | None:
    if job.key in found.done:
      return DONE
    ended = found.is_finished(job.key, tries)
    return found.rejected[job.key][-1] if ended else None

  def next(self, job: Job, found: Contents) -> Key:
    return job.key

  def messages(self, job: Job, journal: Journal) -> Messages:
    """A request, with a note on why the answer before was no use."""
    reasons = journal.contents.rejected.get(job.key, [""])
    return job.messages(self.prompts, self.prompts.notes.get(reasons[-1], ""))

  def judge(
    self, job: Job, said: Completion, journal: Journal
  ) -> dict[str, Any]:
    chance = job.chance(self.seed)
    question = chance.choice(self.prompts.questions)
    turns = answers.turns(job.kind, said, question)
    written = answers.conversations(turns, chance)
    return {"image": job.picture.image, "conversations": written}

  def write(self, jobs: Sequence[Job], journal: Journal) -> None:
    """All good answers of the folder, those to `jobs` first."""
    keys = dict.fromkeys(job.key for job in jobs)
    keys |= dict.fromkeys(sorted(journal.contents.done))
    names = ("id", "image", "conversations")
    rows = ({n: line[n] for n in names} for line in journal.lines(keys))
    write_whole(journal.folder / self.output, array(rows))
