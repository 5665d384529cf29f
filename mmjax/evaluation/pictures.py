"""All pictures of an evaluation are read once before its first question.

One that cannot be read is no reason to drop a question, which would change the
score.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures

from mmjax.data.document import BadSample, Document, File, Media, printable
from mmjax.data.encoder import Encoder

log = logging.getLogger(__name__)

READERS = 4
# Of a task in an error; the log names all.
_NAMED = 3
_REMEDY = (
  "Without them a score would be that of another task: repair the files or "
  "fetch them again, or leave the task out of config.evaluate.tasks."
)


def check(
  tasks: Mapping[str, tuple[Encoder, Sequence[Document]]],
  part: tuple[int, int] = (0, 1),
) -> None:
  """Reads every picture of all tasks.

  Args:
    tasks: by name, each with its documents and what reads them for it: a task
      of more frames reads more of a clip.
    part: which part of the pictures, of how many; others read the others.

  Raises:
    ValueError: for those that cannot be read, of all tasks; the log names each.
  """
  told = []
  for name, (encoder, shown) in tasks.items():
    # Many questions ask about one picture.
    every = {_key(m): (m, d.id) for d in shown for m in d.media}
    media = list(every.values())[part[0] :: part[1]]
    log.info("Reading the %d pictures of task %r once.", len(media), name)
    with futures.ThreadPoolExecutor(READERS) as pool:
      reasons = pool.map(lambda x, own=encoder: _problem(own, *x), media)
      bad = [reason for reason in reasons if reason]
    for reason in bad:
      log.warning("Task %r: %s", name, reason)
    if bad:
      first = " ".join(bad[:_NAMED]) + " ..." * (len(bad) > _NAMED)
      told.append(f"{len(bad)} of {len(media)} of task {name!r} ({first})")
  if told:
    raise ValueError(
      "Nothing was evaluated, because pictures cannot be read: "
      f"{', '.join(told)}. {_REMEDY}"
    )


def _key(media: Media) -> str | int:
  payload = media.payload
  return payload.path if isinstance(payload, File) else id(payload)


def _problem(encoder: Encoder, media: Media, name: str) -> str:
  try:
    encoder.check(media, name)
  except BadSample as error:
    return printable(str(error))
  return ""


@contextlib.contextmanager
def naming(task: str) -> Iterator[None]:
  """Says of which task a picture is that cannot be read."""
  try:
    yield
  except BadSample as error:
    raise ValueError(f"Task {task!r}: {error} {_REMEDY}") from error
