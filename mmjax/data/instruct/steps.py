"""Requests that follow each other, each with a folder of its own.

  answer/system.txt   what has to be done
  answer/form.txt     how it is asked: "Caption: {caption}\\nWord or phrase:"
  answer/1.json       an example: the fields of the form, and `says`
  notes.json          what is added after an answer that was no use

Examples are shown in the order of their names, and are as good as an answer
has to be. Those that ship are our own.
"""

import dataclasses
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.instruct import plan
from mmjax.data.instruct.journal import DONE, Contents, Journal
from mmjax.data.instruct.prompts import Messages, Prompt, Reader
from mmjax.data.instruct.reasons import Rejected, check
from mmjax.endpoint import Completion

Fields = Mapping[str, str]
# What an answer says, from the fields of its request and its text; a Rejected
# where it is no use.
Read = Callable[[Fields, str], Any]


@dataclasses.dataclass(frozen=True)
class Step:
  """One of the requests.

  Attributes:
    prompt: what is said before.
    form: the request, with fields in braces.
    example: the fields of the first example, for an estimate.
  """

  prompt: Prompt
  form: str
  example: Fields

  def messages(self, fields: Fields, note: str = "") -> Messages:
    return self.prompt.messages(self.form.format_map(fields), note)


@dataclasses.dataclass(frozen=True)
class Steps:
  """All of a folder.

  Attributes:
    steps: by name, in their order.
    notes: what is added to a request, by the reason for which the answer to
      the one before was no use.
    digest: of all that was read.
  """

  steps: Mapping[str, Step]
  notes: Mapping[str, str]
  digest: str

  def messages(self, key: tuple, fields: Fields, journal: Journal) -> Messages:
    """The request of a step, by (id, step)."""
    reasons = journal.contents.rejected.get(key, [""])
    note = self.notes.get(reasons[-1], "")
    return self.steps[key[1]].messages(fields, note)

  def estimate(
    self, wanted: Mapping[str, Sequence[Fields]]
  ) -> dict[str, plan.Estimate]:
    """Tokens by step, none rejected.

    Args:
      wanted: what is known for the requests of every step; an example stands
        in for the rest.
    """
    found = {}
    for name, every in wanted.items():
      step = self.steps[name]
      said = [len(text) for _, text in step.prompt.shots]
      length = plan.tokens(sum(said) / len(said))
      read = sum(
        plan.count(step.messages({**step.example, **each})) for each in every
      )
      found[name] = plan.Estimate(len(every), read, len(every) * length)
    return found


def load(
  folder: str | Path, original: Path, reads: Mapping[str, Read]
) -> Steps:
  """Reads a folder.

  Args:
    folder: like `original`.
    original: the one that ships.
    reads: of the answers to every step, which examples are held to.

  Raises:
    ValueError: when a file is missing or is not as described above.
  """
  reader = Reader(Path(folder), original)
  steps = {name: _step(reader, name, read) for name, read in reads.items()}
  return Steps(steps, reader.notes(), reader.digest.hexdigest())


def _step(reader: Reader, name: str, read: Read) -> Step:
  system = reader.words(f"{name}/system.txt")
  form = reader.words(f"{name}/form.txt")
  wanted = _names(form, f"{reader.folder}/{name}/form.txt")
  shots, examples = [], []
  for file in reader.examples(name):
    fields = reader.json(file)
    said = fields.pop("says", None)
    texts = (said, *fields.values())
    if fields.keys() != wanted or not all(isinstance(t, str) for t in texts):
      raise ValueError(
        f"{reader.folder}/{file} has {sorted(fields)}; expected texts "
        f"{sorted(wanted)}, the fields of form.txt, and 'says'."
      )
    try:
      read(fields, said)
    except Rejected as error:
      raise ValueError(
        f"{reader.folder}/{file} is no example: {error}."
      ) from None
    shots.append((form.format_map(fields), said))
    examples.append(fields)
  if not shots:
    raise ValueError(f"{reader.folder}/{name} has no example, such as 1.json.")
  return Step(Prompt(system, tuple(shots)), form, examples[0])


def _names(form: str, path: str) -> set[str]:
  try:
    names = {name for _, name, *_ in string.Formatter().parse(form)} - {None}
  except ValueError as error:
    raise ValueError(f"{path}: {error}. Write other braces twice.") from None
  if bad := [name for name in names if not name.isidentifier()]:
    raise ValueError(f"{path} has {{{bad[0]}}}; expected a name in braces.")
  return names


def judge(read: Read, fields: Fields, said: Completion) -> Any:
  """What an answer says.

  Raises:
    Rejected: when it is no use.
  """
  check(said)
  return read(fields, said.text)


def outcome(
  keys: Sequence[tuple[str, str]], found: Contents, tries: int
) -> str | None:
  """That of a job that asks for `keys`, one after the other."""
  for key in keys:
    if key not in found.done:
      ended = found.is_finished(key, tries)
      return found.rejected[key][-1] if ended else None
  return DONE


def first_line(text: str, *names: str) -> str:
  """The first line with words, without the name of what it is or quotes.

  'Answer: "a chair".\\nIt ...'  ->  'a chair'

  Raises:
    Rejected: when there is none.
  """
  for line in text.splitlines():
    head, colon, rest = line.partition(":")
    if colon and head.strip(" *").lower() in names:
      line = rest
    line = line.strip(" \t*\"'`“”").rstrip(".").rstrip("\"'”").strip()
    if any(c.isalnum() for c in line):
      return line
  raise Rejected("empty")
