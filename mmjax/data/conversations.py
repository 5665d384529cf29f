"""Conversations about images, from the records of LLaVA and of Hugging Face.

  human "What is it?\\n<image>"   gpt "A cat."   human "And now?"  gpt "Red."
    ->  "What is it?\\n" <image>      "A cat."*        "And now?"      "Red."*

A run of segments that are no target is a user's turn, a target is an answer.
Text and images stay in the order of the file, to the last space: where the
mark of an image goes is the prompt's to decide, and so is any system text.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.document import BadSample, Document, Filtered, Media, Text
from mmjax.data.fields import field, text_of
from mmjax.data.paths import below, check_folder
from mmjax.data.sources import Record

# What stands for an image in a text.
MARK = "<image>"
ROLES = {
  "human": "user",
  "user": "user",
  "gpt": "assistant",
  "assistant": "assistant",
  "system": "system",
}
# A role, and its texts and marks in their order.
Turn = tuple[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Conversations:
  """LLaVA's records: instructions of all kinds, stage 1, ShareGPT.

    {"id": "000000033471", "image": "coco/train2017/000000033471.jpg",
     "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                       {"from": "gpt", "value": "A cat."}]}

  `image` may be missing, or a list; there are as many marks as images. A first
  turn that is not the human's is dropped, as in the original. The original
  trains on nothing of a conversation without a last answer, and stumbles over
  other mistakes; here all of them are bad samples, and counted.

  Attributes:
    folder: what the names of images are relative to.
    missing: "error", or "filter" to leave out conversations whose image is
      not there (OCR-VQA's are often incomplete).
    system: what becomes of a system turn: "error", or "drop" where the prompt
      has a system text of its own.
  """

  folder: str | None = None
  missing: str = "error"
  system: str = "error"

  def __post_init__(self):
    if self.missing not in ("error", "filter"):
      raise ValueError(f"missing is {self.missing!r}: 'error' or 'filter'?")
    if self.system not in ("error", "drop"):
      raise ValueError(f"system is {self.system!r}: 'error' or 'drop'?")
    check_folder(self.folder)

  def __call__(self, record: Record) -> Document:
    name = _name(record)
    turns = [
      _turn(turn, "from", "value", name)
      for turn in field(record, "conversations", list)
    ]
    turns = self._without_system(turns, name)
    if turns and turns[0][0] == "assistant":
      turns = turns[1:]
    return self._document(record, turns, record.get("image"), name)

  def _without_system(self, turns: list[Turn], name: str) -> list[Turn]:
    if not turns or turns[0][0] != "system":
      return turns
    if self.system == "error":
      raise BadSample(
        f"{name} begins with a system turn. Give its text to the prompt, and "
        "the format system='drop'."
      )
    return turns[1:]

  def _document(
    self, record: Record, turns: Sequence[Turn], images: Any, name: str
  ) -> Document:
    _check(turns, name)
    images = [] if images is None else images
    images = images if isinstance(images, list | tuple) else [images]
    marks = sum(part == MARK for _, parts in turns for part in parts)
    if marks != len(images):
      raise BadSample(
        f"{name} has {marks} times {MARK} and {len(images)} images; there has "
        "to be one for each."
      )
    left = iter(images)
    segments = tuple(
      self._media(next(left), name)
      if part == MARK
      else Text(part, target=role == "assistant")
      for role, parts in turns
      for part in parts
    )
    metadata = {"id": record["id"]} if "id" in record else {}
    return Document(segments, str(record.get("__key__", name)), metadata)

  def _media(self, image: Any, name: str) -> Media:
    if isinstance(image, Mapping):  # Hugging Face's image column
      label = image.get("path")
      if isinstance(image.get("bytes"), bytes):
        return Media("image", image["bytes"], str(label or ""))
      image = label
    if isinstance(image, bytes):
      return Media("image", image)
    if not isinstance(image, str):
      raise BadSample(f"{name}: an image is a {type(image).__name__}.")
    if self.folder is None:
      raise BadSample(
        f"{name}: image {image[:80]!r} is a name. Give the format the `folder` "
        "that it is in."
      )
    file = below(self.folder, image)
    if self.missing == "filter" and not Path(file.path).is_file():
      raise Filtered(f"{name}: there is no {file.path}.")
    return Media("image", file, image)


@dataclasses.dataclass(frozen=True)
class Messages(Conversations):
  """Chats as Hugging Face writes them.

    {"images": [{"bytes": b"..."}], "messages": [
      {"role": "user", "content": [{"type": "image"},
                                   {"type": "text", "text": "What is it?"}]},
      {"role": "assistant", "content": "A cat."}]}

  A content is a text, with marks in it as LLaVA's, or a list of parts. The
  first turn has to be the user's.
  """

  def __call__(self, record: Record) -> Document:
    name = _name(record)
    turns = [
      _turn(turn, "role", "content", name)
      for turn in field(record, "messages", list)
    ]
    turns = self._without_system(turns, name)
    images = record.get("images", record.get("image"))
    return self._document(record, turns, images, name)


def _name(record: Record) -> str:
  """What the log calls it: its place, and its id, which may not be unique."""
  name = str(record.get("__key__", "record"))
  return f"{name} (id {record['id']!r:.60})" if "id" in record else name


def _turn(turn: Any, role: str, content: str, name: str) -> Turn:
  if not isinstance(turn, Mapping):
    raise BadSample(f"{name}: a turn is a {type(turn).__name__}.")
  who = turn.get(role)
  if not isinstance(who, str) or who not in ROLES:
    raise BadSample(
      f"{name}: a turn has the {role!r} {who!r:.60}, expected one of "
      f"{', '.join(ROLES)}."
    )
  return ROLES[who], _parts(turn.get(content), name)


def _parts(content: Any, name: str) -> list[str]:
  """Texts and marks of a turn; `"a <image>"` is `["a ", "<image>"]`."""
  if not isinstance(content, list | tuple):
    texts = text_of(content, name).split(MARK)
    parts = [part for text in texts for part in (MARK, text)][1:]
    return [part for part in parts if part]
  parts = []
  for item in content:
    kind = item.get("type") if isinstance(item, Mapping) else None
    if kind == "image":
      parts.append(MARK)
    elif kind == "text":
      text = text_of(item.get("text"), name)
      if MARK in text:
        raise BadSample(f"{name}: {MARK} is in a text beside other parts.")
      parts += [text] if text else []
    else:
      raise BadSample(
        f"{name}: a part of a message is {str(item)[:60]!r}, expected one of "
        "the type 'text' or 'image'."
      )
  return parts


def _check(turns: Sequence[Turn], name: str) -> None:
  """Whether they alternate, begin with the user, and all say something."""
  if not turns:
    raise BadSample(f"{name} has no turns.")
  for i, (role, parts) in enumerate(turns):
    expected = ("user", "assistant")[i % 2]
    if role != expected:
      raise BadSample(
        f"{name}: turn {i} is of the {role}, expected one of the {expected}; "
        "they have to alternate."
      )
    if not any(part.strip() for part in parts):
      raise BadSample(f"{name}: turn {i}, of the {role}, is empty.")
    if role == "assistant" and MARK in parts:
      raise BadSample(f"{name}: turn {i}, an answer, has an {MARK} in it.")
  if len(turns) % 2:
    raise BadSample(f"{name}: the last turn has no answer.")
