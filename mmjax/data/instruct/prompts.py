"""What a language model is told, from files that anybody can edit.

  conversation/system.txt, *.json      detail/...      reasoning/...
  questions/detail.txt     a question a line, for descriptions
  notes.json               what is added after an answer that was no use

A json is an example: `captions`, `boxes` as in a jsonl of pictures, and as
`answer` a text, or a list of {"question", "answer"}. They are shown in the
order of their names. Those that ship are our own, of pictures that are not.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmjax.config import nearest
from mmjax.data.annotations import Field
from mmjax.data.instruct import answers, pictures
from mmjax.data.instruct.answers import KINDS
from mmjax.data.instruct.reasons import REASONS, Rejected
from mmjax.endpoint import Completion

ASSETS = Path(__file__).parents[1] / "assets" / "instruct"

Messages = list[dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Prompt:
  """What is said before a picture.

  Attributes:
    system: what the model has to do.
    shots: examples of contexts and answers.
  """

  system: str
  shots: tuple[tuple[str, str], ...]

  def messages(self, context: str, note: str = "") -> Messages:
    """The chat that asks about a picture.

    Args:
      context: what is known of the picture.
      note: added after it.
    """
    said = [("system", self.system)]
    for shown, answer in self.shots:
      said += [("user", shown), ("assistant", answer)]
    said.append(("user", f"{context}\n\n{note}" if note else context))
    return [{"role": role, "content": text} for role, text in said]


@dataclasses.dataclass(frozen=True)
class Prompts:
  """All of a folder.

  Attributes:
    kinds: of KINDS.
    questions: for descriptions.
    notes: what is added to a request, by the reason (of REASONS) for which
      the answer to the one before was no use.
    digest: of all that was read.
  """

  kinds: Mapping[str, Prompt]
  questions: tuple[str, ...]
  notes: Mapping[str, str]
  digest: str


def load(folder: str | Path = ASSETS) -> Prompts:
  """Reads a folder like the one that ships.

  Raises:
    ValueError: when a file is missing or is not as described above.
  """
  reader = Reader(Path(folder), ASSETS)
  kinds = {name: _prompt(reader, name) for name in KINDS}
  questions = _lines(reader.read("questions/detail.txt"))
  if not questions:
    raise ValueError(f"{folder}/questions/detail.txt has no question.")
  notes = reader.notes()
  return Prompts(kinds, questions, notes, reader.digest.hexdigest())


def brief_questions() -> tuple[str, ...]:
  """Eleven ways to ask for a caption, for pairs of pictures and captions."""
  path = ASSETS / "questions" / "brief.txt"
  return _lines(path.read_text(encoding="utf-8"))


class Reader:
  """Reads files of a folder, and keeps a digest of them all.

  Attributes:
    folder: with the files of `original`, which ships.
    digest: of all that was read.
  """

  def __init__(self, folder: Path, original: Path):
    self.folder, self.original = folder, original
    self.digest = hashlib.sha256()

  def read(self, name: str) -> str:
    try:
      content = (self.folder / name).read_bytes()
      text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
      raise ValueError(
        f"Cannot read {self.folder / name} ({error}). A folder of prompts has "
        f"the files of {self.original}: copy it and change the copy."
      ) from None
    for part in (name.encode(), content):
      self.digest.update(len(part).to_bytes(8, "big") + part)
    return text

  def json(self, name: str) -> dict:
    try:
      found = json.loads(self.read(name))
    except (json.JSONDecodeError, RecursionError) as error:
      raise ValueError(f"{self.folder / name} is no JSON: {error}") from None
    if not isinstance(found, dict):
      raise ValueError(f"{self.folder / name} is no JSON object.")
    return found

  def notes(self) -> dict[str, str]:
    """What is added to a request, by the reason of REASONS."""
    notes = self.json("notes.json")
    for reason, note in notes.items():
      if reason not in REASONS or not isinstance(note, str):
        raise ValueError(
          f"{self.folder}/notes.json: {reason!r} is no reason with a text. "
          f"{nearest(reason, REASONS)}"
        )
    return notes

  def words(self, name: str) -> str:
    """A file that says something."""
    text = self.read(name).strip()
    if not text:
      raise ValueError(f"{self.folder}/{name} is empty.")
    return text

  def examples(self, folder: str) -> list[str]:
    """Names of the JSON files of a folder, in their order."""
    files = sorted((self.folder / folder).glob("*.json"))
    return [f"{folder}/{file.name}" for file in files]


def _prompt(reader: Reader, kind: str) -> Prompt:
  system = reader.words(f"{kind}/system.txt")
  names = reader.examples(kind)
  return Prompt(system, tuple(_shot(reader, kind, name) for name in names))


def _shot(reader: Reader, kind: str, name: str) -> tuple[str, str]:
  """An example, which has to be as good as an answer."""
  content, path = reader.json(name), str(reader.folder / name)
  shown = {"id": path, "image": path, "boxes": [], **content}
  picture = pictures.from_row(Field(shown, path), path)
  if not picture.captions:
    raise ValueError(f"{path} has no captions.")
  answer = content.get("answer")
  if isinstance(answer, list):
    parts = Field(answer, path).rows()
    pairs = [(part.text("question"), part.text("answer")) for part in parts]
    answer = answers.write(pairs)
  if not isinstance(answer, str):
    raise ValueError(
      f"{path}: 'answer' is {str(answer)[:40]!r}; expected a text, or a list "
      'of {"question", "answer"}.'
    )
  try:
    answers.turns(kind, Completion(answer, "stop"), "A question?")
  except Rejected as error:
    raise ValueError(f"{path} is no example of {kind}: {error}.") from None
  return picture.context(KINDS[kind].boxes), answer.strip()


def _lines(text: str) -> Sequence[str]:
  return tuple(line.strip() for line in text.splitlines() if line.strip())
