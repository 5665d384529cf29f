"""Annotation files of benchmarks, in their official formats, as Documents.

Each is a source: `len(task)` and `task[i]`. A document is the picture, the
question where there is one, and one answer as the target; the metadata holds
`question`, `answer`, all `answers` and the ids that an evaluation server
wants. `episodes.ask` and `episodes.few_shot` write it with a template.
"""

import collections
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.config import lookup
from mmjax.data.annotations import load, named
from mmjax.data.document import Document, Media, Text
from mmjax.data.paths import below
from mmjax.data.published import Published

log = logging.getLogger(__name__)


class Task:
  """What all have in common: rows in memory, pictures in a folder.

  A row has `file` (None for a question about no picture), `answers` and what
  else the metadata shall hold; `target` is what a model is to learn where that
  is more than an answer.
  """

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
    file, target = fields.pop("file"), fields.pop("target", fields["answer"])
    segments: list[Text | Media] = []
    if file is not None:
      segments.append(Media("image", below(self._images, file), file))
    if fields.get("question"):
      segments.append(Text(fields["question"]))
    if target:
      segments.append(Text(target, target=True))
    return Document(tuple(segments), f"{self._name}/{index}", fields)


class CocoCaptions(Task):
  """COCO's `captions_*.json`: one document an image, or one a caption.

  {"images": [{"id": 1, "file_name": "a.jpg"}],
   "annotations": [{"image_id": 1, "id": 7, "caption": "A cat."}]}

  NoCaps has this form, too, and a `domain` of each image.
  """

  def __init__(
    self,
    annotations: str,
    images: str,
    per: str = "image",
    domain: str | None = None,
  ):
    """Joins images and captions.

    Args:
      annotations: the official json.
      images: folder of the pictures.
      per: what is a document, an "image" or a "caption".
      domain: NoCaps' of the images that are taken, such as "out-domain".
    """
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
        **({} if domain is None else {"domain": row.text("domain")}),
      }
      for row in content.rows("images")
    ]
    _check_images(rows, captions, annotations)
    rows = [row for row in rows if row["answers"]]
    if domain is not None:
      known = dict.fromkeys(row["domain"] for row in rows)
      lookup(known, domain, f"domain of {annotations}")
      rows = [row for row in rows if row["domain"] == domain]
    if per == "caption":
      rows = [{**row, "answer": a} for row in rows for a in row["answers"]]
    super().__init__(rows, images, named("coco_captions", annotations))


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
    super().__init__(rows, images, named(f"karpathy_{split}", annotations))


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
          "file": file_name(file, row.id("image_id")),
          "question": row.text("question"),
          "question_id": key,
          "answers": answers.get(key, []),
          **raw.get(key, {}),
        }
      )
    super().__init__(rows, images, named("vqa", questions))


def file_name(template: str, image_id: int | str) -> str:
  """How a picture is called.

  Raises:
    ValueError: for a template that the id cannot fill.
  """
  try:
    return template.format(image_id=image_id)
  except (AttributeError, LookupError, ValueError) as error:
    raise ValueError(
      f"file is {template!r}, which cannot be filled with the image_id "
      f"{image_id!r} ({error}); expected one such as {{image_id}}.jpg."
    ) from None


class TextVqa(Task):
  """TextVQA's `TextVQA_0.5.1_*.json`; pictures are `{image_id}.jpg`.

  LLaVA shows what an OCR system has read, in a second line of the question:

  "what brand is it?"  ->  "What brand is it?\nReference OCR token: ACME, 12"
  """

  def __init__(self, annotations: str, images: str, ocr: str | None = None):
    """Reads the questions, and LLaVA's form of them where it is asked for.

    Args:
      annotations: the official json.
      images: folder of the pictures.
      ocr: LLaVA's jsonl of questions, `llava_textvqa_val_v051_ocr.jsonl`.
    """
    known = {} if ocr is None else _with_ocr(ocr)
    rows = []
    for row in load(annotations).rows("data"):
      image, question = row.id("image_id"), row.text("question")
      key = str(image), question.lower()
      if ocr is not None and key not in known:
        raise ValueError(
          f"{ocr} has no question {question!r} about {image!r}, which is in "
          f"{annotations}; are both of one split?"
        )
      rows.append(
        {
          "file": f"{image}.jpg",
          "question": known.get(key, question),
          "question_id": row.id("question_id"),
          "answers": row.texts("answers"),
        }
      )
    super().__init__(rows, images, named("textvqa", annotations))


def _with_ocr(path: str) -> dict[tuple[str, str], str]:
  """LLaVA's first two lines of a question, by picture and question.

  Its `question_id` is the id of the picture; the last line of its `text` says
  how to answer, which is the task's to say.
  """
  questions = {}
  for row in load(path).rows():
    first, second, *_ = [*row.text("text").split("\n"), ""]
    read = second.startswith("Reference OCR token:")
    key = str(row.id("question_id")), first.strip().lower()
    questions[key] = f"{first}\n{second}" if read else first
  return questions


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
    super().__init__(rows, images, named("vizwiz", annotations))


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
    super().__init__(rows, images, named("hateful_memes", annotations))


TASKS = {
  "coco_captions": CocoCaptions,
  "karpathy": Karpathy,
  "vqa": Vqa,
  "textvqa": TextVqa,
  "vizwiz": VizWiz,
  "hateful_memes": HatefulMemes,
  "published": Published,
}
