"""Slices of benchmarks in their official files, of the drawn set's pictures.

Each function writes below a folder and returns the source that a config names.
"""

import json
from pathlib import Path

from mmjax.data import drawn
from tests.data.pictures import encode

# An apple, a pear and a dog, by their code points.
THINGS = {"apple": "1f34e", "pear": "1f350", "dog": "1f415"}


def picture(path: Path, thing: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  (concept,) = [c for c in drawn.concepts() if c.id == THINGS[thing]]
  kind = "PNG" if path.suffix == ".png" else "JPEG"
  path.write_bytes(encode(drawn.image(concept, "noto"), kind))


def save(path: Path, content) -> str:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content))
  return str(path)


def save_lines(path: Path, rows) -> str:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("\n".join(map(json.dumps, rows)) + "\n")
  return str(path)


def files(source: dict) -> list[Path]:
  """The annotation files that a source names."""
  found = []
  for value in source.values():
    paths = value.values() if isinstance(value, dict) else [value]
    found += [Path(p) for p in paths if str(p).endswith((".json", ".jsonl"))]
  return found


def gqa(folder: Path) -> dict:
  folder = folder / "gqa"
  picture(folder / "images" / "n161313.jpg", "apple")
  rows = {
    "07001": dict(question="Is it round?", imageId="n161313", answer="yes"),
    "07002": dict(question="Which fruit?", imageId="n161313", answer="apple"),
  }
  path = save(folder / "testdev_balanced_questions.json", rows)
  return dict(name="gqa", questions=path, images=str(folder / "images"))


def pope(folder: Path) -> dict:
  folder, names = folder / "pope", {}
  for i, thing in enumerate(("apple", "pear")):
    picture(folder / "images" / f"COCO_val2014_{i:012d}.jpg", thing)
  for split in ("random", "popular", "adversarial"):
    rows = [
      dict(
        question_id=2 * i + j + 1,
        image=f"COCO_val2014_{i:012d}.jpg",
        text=f"Is there a {asked} in the image?",
        label="yes" if asked == thing else "no",
      )
      for i, thing in enumerate(("apple", "pear"))
      for j, asked in enumerate((thing, "dog"))
    ]
    names[split] = save_lines(folder / f"coco_pope_{split}.json", rows)
  return dict(name="pope", annotations=names, images=str(folder / "images"))


def mme(folder: Path) -> dict:
  """Two categories of either layout; one of them is of cognition."""
  root = folder / "mme"
  for category, apart, thing in (
    ("artwork", True, "apple"),
    ("code_reasoning", False, "pear"),
    ("existence", False, "apple"),
    ("existence", False, "dog"),
  ):
    number = 2 if thing == "dog" else 1
    pictures = root / category / ("images" if apart else "")
    texts = root / category / ("questions_answers_YN" if apart else "")
    picture(pictures / f"{number}.jpg", thing)
    how = "Please answer yes or no."
    lines = (f"Is it a {category}?  {how}\tYes", f"Is it a car? {how}\tNo")
    texts.mkdir(exist_ok=True)
    (texts / f"{number}.txt").write_text("\n".join(lines) + "\n")
  return dict(name="mme", folder=str(root))


def scienceqa(folder: Path) -> dict:
  folder = folder / "scienceqa"
  picture(folder / "images" / "test" / "4" / "image.png", "apple")
  common = dict(
    question="What is it?",
    choices=["a pear", "an apple"],
    hint="",
    image=None,
    lecture="",
    solution="",
    subject="natural science",
    grade="grade2",
  )
  problems = {
    "4": common
    | dict(
      answer=1,
      image="image.png",
      lecture="Fruit grows.\nOn trees.",
      solution="It is red.",
    ),
    "9": common
    | dict(
      answer=0,
      hint="Ann sells pears.",
      solution="Think.",
      subject="social science",
      grade="grade8",
    ),
    "11": common | dict(answer=0, subject="language science", grade="grade12"),
    "12": common | dict(answer=0),
  }
  splits = {"train": ["12"], "test": ["4", "9", "11"]}
  return dict(
    name="scienceqa",
    problems=save(folder / "problems.json", problems),
    splits=save(folder / "pid_splits.json", splits),
    images=str(folder / "images"),
  )


def llava_bench_coco(folder: Path) -> dict:
  folder = folder / "coco"
  image = "000000441147.jpg"
  picture(folder / "images" / f"COCO_val2014_{image}", "apple")
  questions = [
    dict(question_id=i, image=image, text="What is it?", category=category)
    for i, category in enumerate(("conv", "detail", "complex"))
  ]
  context = dict(
    id="441147",
    image=image,
    captions=["A apple.", "One apple."],
    instances=[dict(category="apple", bbox=[0.1, 0.2, 0.5, 1])],
  )
  answers = [dict(question_id=i, text="It is a apple.") for i in range(3)]
  return dict(
    name="llava_bench",
    questions=save_lines(folder / "qa90_questions.jsonl", questions),
    context=save_lines(folder / "caps_boxes_coco2014_val_80.jsonl", [context]),
    reference=save_lines(folder / "qa90_gpt4_answer.jsonl", answers),
    images=str(folder / "images"),
    file="COCO_val2014_{image_id}",
  )


def llava_bench_wild(folder: Path) -> dict:
  folder = folder / "wild"
  picture(folder / "images" / "001.jpg", "pear")
  question = dict(image="001.jpg", text="Who drew it?", category="conv")
  caption = dict(image="001.jpg", caption="Someone has drawn it.")
  answer = dict(question_id=0, text="Someone.", answer_id="x")
  return dict(
    name="llava_bench",
    questions=save_lines(
      folder / "questions.jsonl", [question | dict(question_id=0)]
    ),
    context=save_lines(folder / "context.jsonl", [caption]),
    reference=save_lines(folder / "answers_gpt4.jsonl", [answer]),
    images=str(folder / "images"),
  )


def textvqa(folder: Path) -> dict:
  folder = folder / "textvqa"
  rows, asked = [], []
  for i, question in enumerate(("what does ACME say?", "what brand is it?")):
    picture(folder / "images" / f"a{i}.jpg", "apple")
    rows.append(
      dict(
        question=question,
        image_id=f"a{i}",
        question_id=i,
        answers=["acme"] * 10,
      )
    )
    read = "" if i else "\nReference OCR token: ACME, 12"
    how = "\nAnswer the question using a single word or phrase."
    asked.append(
      dict(
        question_id=f"a{i}",
        image=f"a{i}.jpg",
        text=question.capitalize() + read + how,
      )
    )
  return dict(
    name="textvqa",
    annotations=save(folder / "TextVQA_0.5.1_val.json", dict(data=rows)),
    images=str(folder / "images"),
    ocr=save_lines(folder / "llava_textvqa_val_v051_ocr.jsonl", asked),
  )
