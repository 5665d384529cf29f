"""Questions about media of any kind, as `mmjax data qa` writes them."""

import dataclasses

from mmjax.data.document import KINDS, BadSample, Document, Media, Text
from mmjax.data.fields import field, text_of
from mmjax.data.paths import below, check_folder
from mmjax.data.sources import Record


@dataclasses.dataclass(frozen=True)
class QuestionAnswer:
  """A medium or several, a question, its answer.

    {"id": "a1", "audio": "a.flac", "question": "Who barks?", "answer": "a dog"}
    ->  <audio>  "Who barks?"  "a dog"*

  Attributes:
    folder: what the names of files are relative to; a kind's own folder is a
      part of the name.
  """

  folder: str = "."

  def __post_init__(self):
    check_folder(self.folder)

  def __call__(self, record: Record) -> Document:
    name = str(record.get("id", record.get("__key__", "")))
    media = tuple(
      Media(kind, below(self.folder, field(record, kind, str)), record[kind])
      for kind in KINDS
      if record.get(kind) is not None
    )
    if not media:
      raise BadSample(f"{name} names no file of {', '.join(KINDS)}.")
    texts = [
      text_of(field(record, part, str), f"{name}: {part}").strip()
      for part in ("question", "answer")
    ]
    if not all(texts):
      raise BadSample(f"{name} has an empty question or answer.")
    question, answer = texts
    segments = (*media, Text(question), Text(answer, target=True))
    return Document(segments, name, {"question": question, "answers": [answer]})
