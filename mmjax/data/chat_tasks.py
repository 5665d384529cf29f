"""Benchmarks that are asked as a chat, in their official files, as Documents.

Sources like those of `tasks.py`. The metadata hold the bare `question`, and
what a metric goes by: POPE's `split`, MME's `category` and `picture`,
ScienceQA's `subject`, LLaVA-Bench's `context` and `reference`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.config import lookup
from mmjax.data.annotations import Field, load, named
from mmjax.data.discrn import Discrn
from mmjax.data.tasks import Task, file_name

LETTERS = "ABCDE"
_YES_NO = {"yes": "yes", "no": "no"}


class Gqa(Task):
  """GQA's `*_balanced_questions.json`; pictures are `{imageId}.jpg`.

  {"201307251": {"question": "Is it red?", "imageId": "n1", "answer": "no"}}
  """

  def __init__(self, questions: str, images: str):
    rows = [
      {
        "file": f"{row.id('imageId')}.jpg",
        "question": row.text("question"),
        "question_id": key,
        "answers": [row.text("answer")] if "answer" in row else [],
      }
      for key, row in load(questions).items()
    ]
    super().__init__(rows, images, named("gqa", questions))


class Pope(Task):
  """POPE: is there such a thing in the picture? Three splits, a file each.

  {"question_id": 1, "image": "COCO_val2014_000000016631.jpg",
   "text": "Is there a person in the image?", "label": "yes"}

  The files are JSON lines whatever they are called; the published ones end in
  `.json`.
  """

  def __init__(self, annotations: Mapping[str, str], images: str):
    """Joins the files.

    Args:
      annotations: split ("random", "popular", "adversarial") to its file.
      images: folder of COCO's val2014.
    """
    rows = [
      {
        "file": row.text("image"),
        "question": row.text("text"),
        "question_id": row.id("question_id"),
        "split": split,
        "answers": [row.flag("label", _YES_NO)],
      }
      for split, path in annotations.items()
      for row in load(path, lines=True).rows()
    ]
    super().__init__(rows, images, "pope")


class Mme(Task):
  """MME's folder: a folder a category, a .txt of two questions a picture.

  existence/0006.jpg             or  artwork/images/1.jpg
  existence/0006.txt                 artwork/questions_answers_YN/1.txt
    Is it a cat? Please answer yes or no.<tab>Yes

  How to answer is said by the task, so that sentence is taken away.
  """

  _SAYS_HOW = "Please answer yes or no."
  _ENDINGS = (".jpg", ".png", ".jpeg")

  def __init__(self, folder: str):
    root = Path(folder)
    if not root.is_dir():
      raise ValueError(f"There is no folder {folder}; expected that of MME.")
    rows = []
    for category in sorted(p for p in root.iterdir() if p.is_dir()):
      apart = (category / "images").is_dir()
      pictures = category / "images" if apart else category
      texts = category / "questions_answers_YN" if apart else category
      for path in sorted(texts.glob("*.txt")):
        picture = self._picture(pictures, path.stem)
        about = {
          "file": str(picture.relative_to(root)),
          "category": category.name,
          "picture": f"{category.name}/{path.stem}",
        }
        rows += [about | row for row in self._questions(path)]
    super().__init__(rows, folder, "mme")

  def _picture(self, folder: Path, stem: str) -> Path:
    for ending in self._ENDINGS:
      if (folder / f"{stem}{ending}").is_file():
        return folder / f"{stem}{ending}"
    raise ValueError(
      f"There is no picture {folder / stem} ({', '.join(self._ENDINGS)}) for "
      "its questions; fetch MME again."
    )

  def _questions(self, path: Path) -> list[dict[str, Any]]:
    try:
      lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
      raise ValueError(f"Cannot read questions {path}: {error}") from None
    rows = []
    for line in filter(str.strip, lines):
      question, _, answer = line.rpartition("\t")
      if not question.strip() or answer.strip().lower() not in _YES_NO:
        raise ValueError(
          f"{path} has the line {line[:80]!r}; expected a question, a tab, and "
          "Yes or No."
        )
      question = question.replace(self._SAYS_HOW, "").strip()
      rows.append({"question": question, "answers": [answer.strip().lower()]})
    if len(rows) != 2:
      raise ValueError(
        f"{path} has {len(rows)} questions; MME asks two of every picture."
      )
    return rows


class ScienceQa(Task):
  """ScienceQA: `problems.json`, `pid_splits.json`, `<split>/<id>/image.png`.

  A format of the paper (arXiv 2209.09513) names what is asked and what is
  answered: Question, Context, Multiple options; Lecture, Explanation, Answer.

  QCM-LEA  "Which is it?\\nContext: N/A\\nOptions: (A) a (B) b"
           "A lecture. As it is blue. The answer is B."
  CQM-A    "Context: N/A\\nQuestion: Which is it?\\nOptions: (A) a (B) b"
           "The answer is B."
  """

  INPUTS = {
    "QCM": "{question}\nContext: {context}\nOptions: {options}",
    "CQM": "Context: {context}\nQuestion: {question}\nOptions: {options}",
  }
  OUTPUTS = {
    "A": "The answer is {answer}.",
    "ALE": "The answer is {answer}. BECAUSE: {lecture} {solution}",
    "LEA": "{lecture} {solution} The answer is {answer}.",
  }

  def __init__(
    self,
    problems: str,
    splits: str,
    images: str,
    split: str = "test",
    format: str = "CQM-A",
  ):
    """Reads the problems of a split.

    Args:
      problems: `problems.json`.
      splits: `pid_splits.json`.
      images: folder with a folder of pictures for every split.
      split: "train", "val" or "test".
      format: one of INPUTS and one of OUTPUTS; CQM-A is what LLaVA-1.5 is
        asked, QCM-LEA what LLaVA is trained on.
    """
    given, _, learned = format.partition("-")
    forms = (
      lookup(self.INPUTS, given, "input of ScienceQA's format"),
      lookup(self.OUTPUTS, learned, "output of ScienceQA's format"),
    )
    known, parts = dict(load(problems).items()), dict(load(splits).items())
    lookup(parts, split, f"split of {splits}")
    rows = []
    for key in load(splits).texts(split):
      if key not in known:
        raise ValueError(f"{splits} names problem {key}, {problems} does not.")
      rows.append(self._row(key, known[key], split, forms))
    super().__init__(rows, images, f"scienceqa/{split}")

  def _row(
    self, key: str, problem: Field, split: str, forms: tuple[str, str]
  ) -> dict[str, Any]:
    choices, number = problem.texts("choices"), problem.id("answer")
    if number not in range(min(len(choices), len(LETTERS))):
      raise ValueError(
        f"Problem {key} of ScienceQA has the answer {str(number)[:40]!r} and "
        f"{len(choices)} choices; expected 2 to {len(LETTERS)} of them, "
        "counted from 0."
      )
    # A file that does not say whether there is a picture has null there.
    image = None if problem.empty("image") else problem.text("image")
    fields = {
      "question": problem.text("question"),
      "context": problem.text("hint") or "N/A",
      "options": " ".join(f"({a}) {b}" for a, b in zip(LETTERS, choices)),
      "answer": LETTERS[number],
      "lecture": problem.text("lecture"),
      "solution": problem.text("solution"),
    }
    # As the conversion to LLaVA's files does it, once.
    asked, said = (f.format(**fields).replace("  ", " ").strip() for f in forms)
    return {
      "file": None if image is None else f"{split}/{key}/{image}",
      "question": asked,
      "question_id": key,
      "target": said.removesuffix(" BECAUSE:"),
      "answers": [fields["answer"]],
      "subject": problem.text("subject"),
      "grade": problem.text("grade"),
      "has_text": bool(problem.text("hint")),
      "has_image": image is not None,
    }


class LlavaBench(Task):
  """LLaVA-Bench: questions, what a judge is told, and reference answers.

  questions  {"question_id": 0, "image": "1.jpg", "text": "What is it?",
              "category": "conv"}
  context    {"image": "1.jpg", "caption": "A cat."}            in the wild
             {"image": "1.jpg", "captions": ["A cat."],              of COCO
              "instances": [{"category": "cat", "bbox": [0.1, 0.2, 0.5, 1]}]}
  reference  {"question_id": 0, "text": "It is a cat."}
  """

  def __init__(
    self,
    questions: str,
    context: str,
    reference: str,
    images: str,
    file: str = "{image_id}",
  ):
    """Joins the files.

    Args:
      questions: `qa90_questions.jsonl`, or `questions.jsonl` of the wild.
      context: `caps_boxes_coco2014_val_80.jsonl`, or `context.jsonl`.
      reference: `qa90_gpt4_answer.jsonl`, or `answers_gpt4.jsonl`.
      images: folder of the pictures.
      file: how a picture is called; "COCO_val2014_{image_id}" in COCO's.
    """
    told = {r.text("image"): _context(r) for r in load(context).rows()}
    replies = {
      r.id("question_id"): r.text("text") for r in load(reference).rows()
    }
    rows = []
    for row in load(questions).rows():
      key, image = row.id("question_id"), row.text("image")
      if image not in told:
        raise ValueError(f"{context} says nothing about {image}.")
      if key not in replies:
        raise ValueError(f"{reference} has no answer to question {key}.")
      rows.append(
        {
          "file": file_name(file, image),
          "question": row.text("text"),
          "question_id": key,
          "category": row.text("category"),
          "context": told[image],
          "reference": replies[key],
          "answers": [replies[key]],
        }
      )
    super().__init__(rows, images, named("llava_bench", questions))


def _context(row: Field) -> str:
  """What stands in for the picture: captions, and boxes where there are any."""
  if "captions" in row:
    captions = row.texts("captions")
  elif row.has_list("caption"):
    captions = row.texts("caption")
  else:
    captions = [row.text("caption")]
  boxes = [
    f"{x.text('category')}: {x.numbers('bbox')}"
    for x in row.rows("instances", default=[])
  ]
  return "\n".join(captions) + ("\n\n" + "\n".join(boxes) if boxes else "")


CHAT_TASKS = {
  "discrn": Discrn,
  "gqa": Gqa,
  "pope": Pope,
  "mme": Mme,
  "scienceqa": ScienceQa,
  "llava_bench": LlavaBench,
}
