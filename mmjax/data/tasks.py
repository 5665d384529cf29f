"""Annotation files of benchmarks, in their official formats, as Documents.

Each is a source: `len(task)` and `task[i]`. A document is the picture, the
question where there is one, and one answer as the target; the metadata holds
`question`, `answer`, all `answers` and the ids that an evaluation server
wants. `episodes.ask` and `episodes.few_shot` write it with a template.
"""

import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax.data.document import Document, Media, Text
from mmjax.data.sources import below


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


class CocoCaptions(Task):
  """COCO's `captions_*.json`: one document an image, or one a caption.

  {"images": [{"id": 1, "file_name": "a.jpg"}],
   "annotations": [{"image_id": 1, "id": 7, "caption": "A cat."}]}
  """

  def __init__(self, annotations: str, images: str, per: str = "image"):
    if per not in ("image", "caption"):
      raise ValueError(f"per is {per!r}, expected 'image' or 'caption'.")
    content = load(annotations, "images", "annotations")
    captions = collections.defaultdict(list)
    for row in content["annotations"]:
      captions[get(row, "image_id", annotations)].append(
        get(row, "caption", annotations).strip()
      )
    rows = [
      {
        "file": get(row, "file_name", annotations),
        "image_id": get(row, "id", annotations),
        "answers": captions[row["id"]],
      }
      for row in content["images"]
    ]
    rows = [row for row in rows if row["answers"]]
    if per == "caption":
      rows = [{**row, "answer": a} for row in rows for a in row["answers"]]
    super().__init__(rows, images, "coco_captions")


class Karpathy(Task):
  """Karpathy's splits of COCO and Flickr30k: `dataset_*.json`."""

  def __init__(self, annotations: str, images: str, split: str = "test"):
    content = load(annotations, "images")
    rows = [
      {
        "file": "/".join(
          filter(None, (row.get("filepath"), get(row, "filename", annotations)))
        ),
        "image_id": row.get("cocoid", row.get("imgid", i)),
        "answers": [
          get(s, "raw", annotations).strip()
          for s in get(row, "sentences", annotations)
        ],
      }
      for i, row in enumerate(content["images"])
      if row.get("split") == split
    ]
    super().__init__(rows, images, f"karpathy_{split}")


class Vqa(Task):
  """VQAv2 and OK-VQA: questions, and annotations where they are public.

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
    if annotations is not None:
      for row in load(annotations, "annotations")["annotations"]:
        answers[get(row, "question_id", annotations)] = [
          str(get(a, "answer", annotations))
          for a in get(row, "answers", annotations)
        ]
    rows = []
    for row in load(questions, "questions")["questions"]:
      key = get(row, "question_id", questions)
      if annotations is not None and key not in answers:
        raise ValueError(f"{annotations} has no answers to question {key}.")
      rows.append(
        {
          "file": file.format(image_id=get(row, "image_id", questions)),
          "question": get(row, "question", questions).strip(),
          "question_id": key,
          "answers": answers.get(key, []),
        }
      )
    super().__init__(rows, images, "vqa")


class TextVqa(Task):
  """TextVQA's `TextVQA_0.5.1_*.json`; pictures are `{image_id}.jpg`."""

  def __init__(self, annotations: str, images: str):
    rows = [
      {
        "file": f"{get(row, 'image_id', annotations)}.jpg",
        "question": get(row, "question", annotations).strip(),
        "question_id": row.get("question_id", i),
        "answers": [str(a) for a in row.get("answers", [])],
      }
      for i, row in enumerate(load(annotations, "data")["data"])
    ]
    super().__init__(rows, images, "textvqa")


class VizWiz(Task):
  """VizWiz's `train.json`, `val.json` and `test.json`: a list of rows."""

  def __init__(self, annotations: str, images: str):
    rows = [
      {
        "file": get(row, "image", annotations),
        "image": row["image"],
        "question": get(row, "question", annotations).strip(),
        "question_id": i,
        "answers": [
          str(get(a, "answer", annotations)) for a in row.get("answers", [])
        ],
      }
      for i, row in enumerate(load(annotations))
    ]
    super().__init__(rows, images, "vizwiz")


class HatefulMemes(Task):
  """The Hateful Memes jsonl: `id`, `img`, `text`, and `label` (0 or 1)."""

  def __init__(self, annotations: str, images: str):
    rows = []
    for row in load(annotations):
      label = row.get("label")
      rows.append(
        {
          "file": get(row, "img", annotations),
          "text": get(row, "text", annotations),
          "meme_id": get(row, "id", annotations),
          "label": label,
          "answers": [] if label is None else [("no", "yes")[int(label)]],
        }
      )
    super().__init__(rows, images, "hateful_memes")


def load(path: str, *keys: str) -> Any:
  """A json, or the rows of a jsonl.

  Raises:
    ValueError: when it is not there, is no JSON, or lacks one of `keys`.
  """
  try:
    text = Path(path).read_text(encoding="utf-8")
    if str(path).endswith(".jsonl"):
      return [json.loads(line) for line in text.splitlines() if line.strip()]
    content = json.loads(text)
  except (OSError, ValueError, RecursionError) as error:
    raise ValueError(f"Cannot read annotations {path}: {error}") from None
  missing = [
    k for k in keys if not isinstance(content, dict) or k not in content
  ]
  if missing or (not keys and not isinstance(content, list)):
    raise ValueError(
      f"{path} has no {missing or 'list of rows'}; is it the right file?"
    )
  return content


def get(row: Any, key: str, path: str) -> Any:
  """A field that the format promises."""
  if not isinstance(row, dict) or key not in row:
    raise ValueError(f"{path} has a row without {key!r}: {str(row)[:100]}")
  return row[key]


TASKS = {
  "coco_captions": CocoCaptions,
  "karpathy": Karpathy,
  "vqa": Vqa,
  "textvqa": TextVqa,
  "vizwiz": VizWiz,
  "hateful_memes": HatefulMemes,
}
