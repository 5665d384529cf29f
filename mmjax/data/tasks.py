"""Annotation files of benchmarks, in their official formats, as Documents.

Each is a source: `len(task)` and `task[i]`. A document is the picture, the
question where there is one, and one answer as the target; the metadata holds
`question`, `answer`, all `answers` and the ids that an evaluation server
wants. `episodes.ask` and `episodes.few_shot` write it with a template.
"""

import collections
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.document import Document, Media, Text
from mmjax.data.paths import below

log = logging.getLogger(__name__)


class Task:
  """What all have in common: rows in memory, pictures in a folder."""

  def __init__(self, rows: Sequence[dict], images: str, name: str):
    if not Path(images).is_dir():
      raise ValueError(f"There is no folder of images {images}.")
    if not rows:
      raise ValueError(f"{name} has no rows.")
    self._rows, self._images, self._name = rows, images, name

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Document:
    if not 0 <= index < len(self._rows):
      raise IndexError(f"Row {index} of {len(self._rows)}.")
    row = self._rows[index]
    answer = row["answers"][0] if row["answers"] else ""
    fields = {"answer": answer, **row}
    file = fields.pop("file")
    segments: list[Text | Media] = [
      Media("image", below(self._images, file), file)
    ]
    if fields.get("question"):
      segments.append(Text(fields["question"]))
    if fields["answer"]:
      segments.append(Text(fields["answer"], target=True))
    return Document(tuple(segments), f"{self._name}/{index}", fields)


def _named(kind: str, path: str) -> str:
  """Ids differ between splits, so that none of one is taken for the other's."""
  return f"{kind}/{Path(path).stem}"


class CocoCaptions(Task):
  """COCO's `captions_*.json`: one document an image, or one a caption.

  {"images": [{"id": 1, "file_name": "a.jpg"}],
   "annotations": [{"image_id": 1, "id": 7, "caption": "A cat."}]}
  """

  def __init__(self, annotations: str, images: str, per: str = "image"):
    if per not in ("image", "caption"):
      raise ValueError(f"per is {per!r}, expected 'image' or 'caption'.")
    content = load(annotations)
    captions = collections.defaultdict(list)
    for row in content.rows("annotations"):
      captions[row.id("image_id")].append(row.text("caption"))
    rows = [
      {
        "file": row.text("file_name"),
        "image_id": row.id("id"),
        "answers": captions[row.id("id")],
      }
      for row in content.rows("images")
    ]
    _check_images(rows, captions, annotations)
    rows = [row for row in rows if row["answers"]]
    if per == "caption":
      rows = [{**row, "answer": a} for row in rows for a in row["answers"]]
    super().__init__(rows, images, _named("coco_captions", annotations))


def _check_images(
  rows: Sequence[dict], captions: Mapping[Any, list], path: str
) -> None:
  """Whether images and captions belong together; what is left out is told."""
  counts = collections.Counter(row["image_id"] for row in rows)
  if twice := [key for key, count in counts.items() if count > 1]:
    raise ValueError(f"{path} lists the images {twice[:3]} more than once.")
  alone = [row["image_id"] for row in rows if not row["answers"]]
  lost = [key for key in captions if key not in counts]
  told = {
    "of its images have no caption": alone,
    "images have captions but are not listed": lost,
  }
  for what, keys in told.items():
    if keys:
      log.warning(
        "%s: %d %s and are left out, such as %r.",
        *(path, len(keys), what, keys[0]),
      )


class Karpathy(Task):
  """Karpathy's splits of COCO and Flickr30k: `dataset_*.json`."""

  def __init__(self, annotations: str, images: str, split: str = "test"):
    rows = []
    for row in load(annotations).rows("images"):
      if row.text("split") != split:
        continue
      folder, name = row.text("filepath", default=""), row.text("filename")
      rows.append(
        {
          "file": f"{folder}/{name}" if folder else name,
          "image_id": row.id("cocoid" if "cocoid" in row else "imgid"),
          "answers": [s.text("raw") for s in row.rows("sentences")],
        }
      )
    super().__init__(rows, images, _named(f"karpathy_{split}", annotations))


class Vqa(Task):
  """VQAv2 and OK-VQA: questions, and annotations where they are public.

  OK-VQA's have `raw_answer` too, from before stemming: `raw_answers` here.

  {"questions": [{"question_id": 1, "image_id": 9, "question": "..."}]}
  {"annotations": [{"question_id": 1, "answers": [{"answer": "cat"}]}]}
  """

  def __init__(
    self,
    questions: str,
    images: str,
    annotations: str | None = None,
    file: str = "COCO_val2014_{image_id:012d}.jpg",
  ):
    """Joins the two files.

    Args:
      questions: the questions' json.
      images: folder of the pictures.
      annotations: the answers' json; none for a test set.
      file: how a picture is called.
    """
    answers: dict[Any, list[str]] = {}
    raw: dict[Any, dict[str, list[str]]] = {}
    if annotations is not None:
      for row in load(annotations).rows("annotations"):
        key, given = row.id("question_id"), list(row.rows("answers"))
        if key in answers:
          raise ValueError(f"{annotations} answers question {key} twice.")
        answers[key] = [a.text("answer") for a in given]
        if given and all("raw_answer" in a for a in given):
          raw[key] = {"raw_answers": [a.text("raw_answer") for a in given]}
    rows = []
    for row in load(questions).rows("questions"):
      key = row.id("question_id")
      if annotations is not None and key not in answers:
        raise ValueError(f"{annotations} has no answers to question {key}.")
      rows.append(
        {
          "file": _file_name(file, row.id("image_id")),
          "question": row.text("question"),
          "question_id": key,
          "answers": answers.get(key, []),
          **raw.get(key, {}),
        }
      )
    super().__init__(rows, images, _named("vqa", questions))


def _file_name(template: str, image_id: int | str) -> str:
  try:
    return template.format(image_id=image_id)
  except (AttributeError, LookupError, ValueError) as error:
    raise ValueError(
      f"file is {template!r}, which cannot be filled with the image_id "
      f"{image_id!r} ({error}); expected one such as {{image_id}}.jpg."
    ) from None


class TextVqa(Task):
  """TextVQA's `TextVQA_0.5.1_*.json`; pictures are `{image_id}.jpg`."""

  def __init__(self, annotations: str, images: str):
    rows = [
      {
        "file": f"{row.id('image_id')}.jpg",
        "question": row.text("question"),
        "question_id": row.id("question_id"),
        "answers": row.texts("answers"),
      }
      for row in load(annotations).rows("data")
    ]
    super().__init__(rows, images, _named("textvqa", annotations))


class VizWiz(Task):
  """VizWiz's `train.json`, `val.json` and `test.json`: a list of rows."""

  def __init__(self, annotations: str, images: str):
    rows = [
      {
        "file": row.text("image"),
        "image": row.text("image"),
        "question": row.text("question"),
        "question_id": i,
        "answers": [a.text("answer") for a in row.rows("answers", default=[])],
      }
      for i, row in enumerate(load(annotations).rows())
    ]
    super().__init__(rows, images, _named("vizwiz", annotations))


class HatefulMemes(Task):
  """The Hateful Memes jsonl: `id`, `img`, `text`, and `label` (0 or 1)."""

  def __init__(self, annotations: str, images: str):
    names = {None: [], 0: ["no"], 1: ["yes"]}
    rows = []
    for row in load(annotations).rows():
      label = row.id("label", default=None)
      if label not in names:
        raise ValueError(f"{annotations} has the label {label!r}, not 0 or 1.")
      rows.append(
        {
          "file": row.text("img"),
          "text": row.text("text"),
          "meme_id": row.id("id"),
          "label": label,
          "answers": names[label],
        }
      )
    super().__init__(rows, images, _named("hateful_memes", annotations))


class Field:
  """A value of an annotation file, whose parts are taken by their type.

  What is missing or of another type is a ValueError that names the file.
  """

  def __init__(self, value: Any, path: str):
    self._value, self._path = value, path

  def __contains__(self, key: str) -> bool:
    return isinstance(self._value, dict) and key in self._value

  def _get(self, key: str, kind: Any, default: dict) -> Any:
    if "default" in default and key not in self:
      return default["default"]
    value = self._value[key] if key in self else None
    if isinstance(value, bool) or not isinstance(value, kind):
      raise ValueError(
        f"{self._path}: {key!r} is {str(value)[:40]!r} in "
        f"{str(self._value)[:100]}; is it the right file?"
      )
    return value

  def text(self, key: str, **default: str) -> str:
    return self._get(key, str, default).strip()

  def texts(self, key: str) -> list[str]:
    """A list of strings; a file without the key has none (a test set)."""
    found = self._get(key, list, {"default": []})
    if not all(isinstance(x, str) for x in found):
      raise ValueError(f"{self._path}: {key!r} is {str(found)[:100]}.")
    return found

  def id(self, key: str, **default: Any) -> int | str | None:
    return self._get(key, int | str, default)

  def number(self, key: str) -> float:
    return self._finite(key, [self._get(key, int | float, {})])[0]

  def numbers(self, key: str, count: int) -> tuple[float, ...]:
    """So many finite numbers."""
    found = self._get(key, list, {})
    if len(found) != count:
      raise ValueError(f"{self._path}: {key!r} is {str(found)[:100]}.")
    return self._finite(key, found)

  def _finite(self, key: str, values: Sequence[Any]) -> tuple[float, ...]:
    # JSON's numbers have no bounds, and Python's reader takes NaN.
    real = [type(x) in (int, float) and abs(x) < 1e9 for x in values]
    if not all(real):
      raise ValueError(f"{self._path}: {key!r} is {str(values)[:100]}.")
    return tuple(map(float, values))

  def rows(self, key: str | None = None, **default: list) -> list["Field"]:
    """The items of a list, or of the file itself."""
    found = self._value if key is None else self._get(key, list, default)
    if not isinstance(found, list):
      raise ValueError(f"{self._path} is no list; is it the right file?")
    return [Field(row, self._path) for row in found]


def load(path: str) -> Field:
  """A json, or the rows of a jsonl.

  Raises:
    ValueError: when it is not there or is no JSON.
  """
  place = ""
  try:
    # Some editors begin a file with a byte order mark.
    text = Path(path).read_text(encoding="utf-8-sig")
    if not str(path).endswith(".jsonl"):
      return Field(json.loads(text), path)
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
      place = f", line {number}"
      if line.strip():
        rows.append(json.loads(line))
    return Field(rows, path)
  except (OSError, ValueError, RecursionError) as error:
    raise ValueError(
      f"Cannot read annotations {path}{place}: {error}"
    ) from None


TASKS = {
  "coco_captions": CocoCaptions,
  "karpathy": Karpathy,
  "vqa": Vqa,
  "textvqa": TextVqa,
  "vizwiz": VizWiz,
  "hateful_memes": HatefulMemes,
}
