"""`mmjax data generate`: instruction data, written by a language model."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from mmjax.cli.answering import Asking, Folder, digest
from mmjax.data.instruct import pictures, plan, prompts
from mmjax.data.instruct.answers import KINDS
from mmjax.data.instruct.generate import Instruct


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


def generate(
  target: str | Path,
  wanted: Wanted,
  asking: Asking,
  write: Callable[[str], None] = print,
) -> int:
  """Makes a data set in a folder, or goes on with one.

  Args:
    target: the folder.
    wanted: what it is made of.
    asking: who is asked, and how.
    write: takes a line at a time.

  Returns:
    The exit code, see `Folder.make`.
  """
  sampling = asking.sampling
  told = prompts.load(asking.prompts or prompts.ASSETS)
  data = digest((wanted.captions, wanted.instances))
  settings = {**asking.settings, "prompts": told.digest, "data": data}
  run = asking.run(Instruct(told, sampling.seed))
  jobs = wanted.jobs(sampling.seed)
  folder = Folder(Path(target), settings, run, write)
  todo = folder.todo(jobs)
  write(plan.table(plan.estimate(todo, told), run.prices))
  if asking.dry_run:
    job = (todo or jobs)[0]
    what = f"{job.kind} of {job.picture.image}"
    folder.show(what, job.messages(told))
    return 0
  return folder.make(jobs, asking.answerer())
