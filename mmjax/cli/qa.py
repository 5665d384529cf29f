"""`mmjax data qa`: questions and answers from captions, by a language model."""

from collections.abc import Callable
from pathlib import Path

from mmjax.cli.answering import Asking, Folder, digest
from mmjax.data.instruct import captions, plan, questions
from mmjax.data.instruct.questions import Limits, Questions


def make_questions(
  target: str | Path,
  source: str | Path,
  asking: Asking,
  *,
  limits: Limits,
  colourless: bool = False,
  limit: int | None = None,
  write: Callable[[str], None] = print,
) -> int:
  """Makes a data set in a folder, or goes on with one.

  Args:
    target: the folder; gets `qa.json`, a row a question.
    source: jsonl of id, caption, and the files of media.
    asking: who is asked, and how.
    limits: what is kept.
    colourless: whether captions lose their colours first.
    limit: of captions; None for all.
    write: takes a line at a time.

  Returns:
    The exit code, see `Folder.make`.
  """
  items = captions.read(source)
  told = questions.load(asking.prompts)
  recipe = Questions(items, told, limits, colourless)
  settings = {
    **asking.settings,
    **questions.settings(recipe),
    "data": digest([source]),
  }
  folder = Folder(Path(target), settings, asking.run(recipe), write)
  jobs = plan.drawn(items, asking.sampling.seed, limit)
  todo = folder.todo(jobs)
  estimates = recipe.estimate(todo, folder.contents())
  write(plan.table(estimates, asking.prices))
  if asking.dry_run:
    item = (todo or jobs)[0]
    name = recipe.names[0]
    messages = told.steps[name].messages({"caption": item.caption})
    folder.show(f"{name} of {item.id}", messages)
    return 0
  return folder.make(jobs, asking.answerer())
