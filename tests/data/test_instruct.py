"""Pictures in words, requests, and which answers are training data."""

import json
import re
import shutil

import pytest

from mmjax.data.instruct import answers, pictures, plan, prompts
from mmjax.data.instruct.answers import KINDS
from mmjax.data.instruct.pictures import Box, Picture
from mmjax.data.instruct.reasons import Rejected
from mmjax.endpoint import Completion

DOG = Box("dog", (0.25, 0.5, 0.75, 0.9))
PICTURE = Picture("1", "a.jpg", ("A dog.", "It sleeps."), (DOG,))
DIALOGUE = (
  "Question:\nWhat is it?\n===\nAnswer:\nA dog.\n===\n"
  "Question:\nWhere?\n===\nAnswer:\nOn a sofa.\n\nAsleep.\n==="
)


def coco(folder, captions=None, instances=None):
  """COCO's files: two pictures, of which one has boxes."""
  folder.mkdir(exist_ok=True)
  images = [
    {"id": 9, "file_name": "000000000009.jpg", "width": 640, "height": 480},
    {"id": 25, "file_name": "000000000025.jpg", "width": 100, "height": 50},
  ]
  said = [
    {"image_id": 9, "id": 1, "caption": " A dog\non a sofa. "},
    {"image_id": 25, "id": 2, "caption": "A cat."},
    {"image_id": 9, "id": 3, "caption": "A brown dog sleeps."},
  ]
  boxes = [
    {"image_id": 9, "category_id": 18, "bbox": [160, 240, 320, 192]},
    {"image_id": 9, "category_id": 18, "bbox": [600, -5, 80.5, 25]},
    {"image_id": 9, "category_id": 18, "bbox": [5, 5, 0, 9]},
    {"image_id": 9, "category_id": 18, "bbox": [0, 0, 9, 9], "iscrowd": 1},
  ]
  files = {
    "captions.json": captions or {"images": images, "annotations": said},
    "instances.json": instances
    or {"annotations": boxes, "categories": [{"id": 18, "name": "dog"}]},
  }
  for name, content in files.items():
    (folder / name).write_text(json.dumps(content))
  return [str(folder / name) for name in files]


def test_coco_is_joined_by_image(tmp_path, caplog):
  dog, cat = pictures.read(*coco(tmp_path))
  assert dog.id == "000000000009" and dog.image == "000000000009.jpg"
  assert dog.context(boxes=True).split("\n") == [
    "A dog on a sofa.",
    "A brown dog sleeps.",
    "",
    "dog: [0.250, 0.500, 0.750, 0.900]",
    "dog: [0.938, 0.000, 1.000, 0.042]",
  ]
  assert dog.context(boxes=False) == "A dog on a sofa.\nA brown dog sleeps."
  assert cat.context(boxes=True) == "A cat."
  assert "1 boxes without an area" in caplog.text


def test_coco_without_boxes(tmp_path):
  dog, _ = pictures.read(coco(tmp_path)[0])
  assert not dog.boxes


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(captions={"images": []}), "'annotations' is 'None'"),
    (dict(captions={"images": [], "annotations": []}), "same split"),
    (
      dict(
        captions={
          "images": [{"id": 9, "file_name": "a.jpg"}],
          "annotations": [],
        }
      ),
      "'width' is 'None'",
    ),
    (
      dict(
        instances={
          "categories": [],
          "annotations": [{"image_id": 9, "category_id": 1}],
        }
      ),
      "no category 1",
    ),
    (
      dict(
        instances={
          "categories": [{"id": 1, "name": "dog"}],
          "annotations": [
            {"image_id": 9, "category_id": 1, "bbox": [float("nan"), 1, 2, 3]}
          ],
        }
      ),
      "'bbox' is",
    ),
    (dict(instances={"categories": [], "annotations": []}), "same split"),
  ],
)
def test_other_files_than_cocos_are_refused(tmp_path, change, message):
  with pytest.raises(ValueError, match=message):
    pictures.read(*coco(tmp_path, **change))


def rows(folder, *content):
  path = folder / "rows.jsonl"
  path.write_text("".join(f"{json.dumps(row)}\n" for row in content))
  return str(path)


def test_a_jsonl(tmp_path, caplog):
  box = {"category": "dog", "box": [0, 0.5, 1, 1]}
  path = rows(
    tmp_path,
    {"id": 7, "image": "x/a.png", "captions": ["A dog."], "boxes": [box]},
    {"id": "b", "image": "b.png", "captions": ["A cat.", " "]},
    {"id": "c", "image": "c.png", "captions": []},
  )
  assert pictures.read(path) == [
    Picture("7", "x/a.png", ("A dog.",), (Box("dog", (0, 0.5, 1, 1)),)),
    Picture("b", "b.png", ("A cat.",)),
  ]
  assert "1 pictures without a caption" in caplog.text
  with pytest.raises(ValueError, match="leave out"):
    pictures.read(path, "instances.json")


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"image": "a.jpg", "captions": ["A."]}, "'id' is 'None'"),
    ({"id": 1, "captions": ["A."]}, "'image' is 'None'"),
    ({"id": 1, "image": "a.jpg", "captions": "A."}, "'captions' is 'A.'"),
    ({"id": 1, "image": "a.jpg", "captions": []}, "no picture with a"),
    ({"id": 1, "image": "a.jpg", "captions": ["A"], "boxes": 3}, "'boxes'"),
    *(
      (
        {
          "id": 1,
          "image": "a.jpg",
          "captions": ["A."],
          "boxes": [{"category": "dog", "box": box}],
        },
        "box",
      )
      for box in ([0, 0, 1], [10, 20, 30, 40], [0.5, 0, 0.5, 1], ["0"] * 4)
    ),
  ],
)
def test_bad_rows_are_refused(tmp_path, row, message):
  with pytest.raises(ValueError, match=message):
    pictures.read(rows(tmp_path, row))


def test_an_id_of_two_pictures_is_refused(tmp_path):
  row = {"id": 1, "image": "a.jpg", "captions": ["A."]}
  with pytest.raises(ValueError, match=r"\['1'\] more than once"):
    pictures.read(rows(tmp_path, row, {**row, "id": "1"}))


def test_what_ships():
  """2, 3 and 3 examples, and the two lists of questions."""
  found = prompts.load()
  shots = {kind: len(found.kinds[kind].shots) for kind in KINDS}
  assert shots == {"conversation": 2, "detail": 3, "reasoning": 3}
  assert len(set(prompts.brief_questions())) == 11
  assert len(set(found.questions)) == 16
  # What the endpoint did, and no fault of the model, has no note.
  own = {"truncated", "empty", "format", "turns", "source", "placeholder"}
  assert found.notes.keys() == own | {"characters"}
  with_boxes = {
    kind: all(": [" in shown for shown, _ in found.kinds[kind].shots)
    for kind in KINDS
  }
  assert with_boxes == {kind: KINDS[kind].boxes for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_request(kind):
  found = prompts.load()
  messages = plan.Job(PICTURE, kind).messages(found, "Be brief.")
  roles = ["system", *["user", "assistant"] * len(found.kinds[kind].shots)]
  assert [m["role"] for m in messages] == [*roles, "user"]
  expected = "A dog.\nIt sleeps.\n\n"
  if KINDS[kind].boxes:
    expected += "dog: [0.250, 0.500, 0.750, 0.900]\n\n"
  assert messages[-1]["content"] == expected + "Be brief."


@pytest.fixture
def copied(tmp_path):
  return shutil.copytree(prompts.ASSETS, tmp_path / "mine")


def test_a_copy_can_be_changed(copied):
  same = prompts.load(copied)
  assert same.digest == prompts.load().digest
  (copied / "detail" / "system.txt").write_text("Describe.")
  (copied / "detail" / "1.json").unlink()
  found = prompts.load(copied)
  assert found.kinds["detail"].system == "Describe."
  assert len(found.kinds["detail"].shots) == 2
  assert found.digest != same.digest


SHOT = {"captions": ["A."], "answer": "A scene."}


@pytest.mark.parametrize(
  ("file", "content", "message"),
  [
    ("detail/system.txt", None, "copy it and change the copy"),
    ("detail/system.txt", " \n", "is empty"),
    ("questions/detail.txt", "", "has no question"),
    ("notes.json", '{"sorce": "x"}', "Did you mean 'source'"),
    ("notes.json", '{"source": 3}', "no reason with a text"),
    ("notes.json", "[]", "no JSON object"),
    ("detail/1.json", "{", "is no JSON"),
    ("detail/1.json", json.dumps({**SHOT, "answer": 3}), "'answer' is '3'"),
    ("detail/1.json", json.dumps({**SHOT, "captions": []}), "no captions"),
    (
      "detail/1.json",
      json.dumps({**SHOT, "answer": "The captions say so."}),
      "no example of detail: source",
    ),
    ("reasoning/1.json", json.dumps(SHOT), "no example of reasoning: format"),
    ("conversation/1.json", b"\xff", "Cannot read"),
  ],
)
def test_a_copy_that_is_none(copied, file, content, message):
  path = copied / file
  path.unlink()
  if content is not None:
    path.write_bytes(
      content if isinstance(content, bytes) else content.encode()
    )
  with pytest.raises(ValueError, match=message):
    prompts.load(copied)


def test_answers_are_read():
  said = Completion(DIALOGUE, "stop")
  found = answers.turns("conversation", said)
  assert found == [
    ("What is it?", "A dog."),
    ("Where?", "On a sofa.\n\nAsleep."),
  ]
  one = Completion("Question: Why?\n===\nAnswer: So.\n", "stop")
  assert answers.turns("reasoning", one) == [("Why?", "So.")]
  said = Completion(" A dog.\n\nIt sleeps. ", "stop")
  assert answers.turns("detail", said, "Describe.") == [
    ("Describe.", "A dog.\n\nIt sleeps.")
  ]


def test_written_turns_are_read():
  found = [("What is it?", "A dog."), ("Where?", "There.")]
  said = Completion(answers.write(found), "stop")
  assert answers.turns("conversation", said) == found


BLOCK = "Question:\nWhy?\n===\nAnswer:\n{}\n==="


@pytest.mark.parametrize(
  ("kind", "text", "finish", "reason"),
  [
    ("detail", "A dog.", "length", "truncated"),
    ("conversation", DIALOGUE, "length", "truncated"),
    ("detail", "A dog.", "content_filter", "filtered"),
    ("detail", "", "stop", "empty"),
    ("conversation", " \n", "stop", "empty"),
    ("detail", "A dog. \ud83d", "stop", "characters"),
    ("conversation", BLOCK.format(""), "stop", "empty"),
    ("conversation", "Question:\n===\nAnswer:\nA.\n===", "stop", "empty"),
    ("conversation", "Sure! " + DIALOGUE, "stop", "format"),
    ("conversation", DIALOGUE + "\nI hope this helps.", "stop", "format"),
    ("conversation", "A dog sleeps.", "stop", "format"),
    ("conversation", "Question: What?\nAnswer: A dog.", "stop", "format"),
    ("conversation", "===", "stop", "format"),
    ("conversation", DIALOGUE.replace("===\nAnswer", "Answer"), "", "format"),
    ("conversation", DIALOGUE + "\nQuestion:\nWho?\n===", "stop", "turns"),
    ("conversation", "Answer:\nA.\n===\nQuestion:\nQ?\n===", "", "turns"),
    ("conversation", "Question:\nA?\n===\nQuestion:\nB?\n===", "", "turns"),
    ("reasoning", DIALOGUE, "stop", "turns"),
    ("reasoning", "Because of the rain.", "stop", "format"),
    ("detail", BLOCK.format("A dog."), "stop", "format"),
    ("detail", "**Answer:** A dog.", "stop", "format"),
    ("detail", "The caption says that a dog sleeps.", "stop", "source"),
    ("detail", "Its bounding box is large.", "stop", "source"),
    ("detail", "It lies at [0.25, 0.5, 0.75, 0.9].", "stop", "source"),
    ("detail", "Given the coordinates, it is left.", "stop", "source"),
    ("reasoning", BLOCK.format("As the captions say."), "stop", "source"),
    ("detail", "<image> A dog.", "stop", "placeholder"),
    ("conversation", BLOCK.format("A <Image>."), "stop", "placeholder"),
  ],
)
def test_what_is_no_training_data(kind, text, finish, reason):
  with pytest.raises(Rejected) as raised:
    answers.turns(kind, Completion(text, finish), "Describe.")
  assert raised.value.reason == reason


@pytest.mark.parametrize(
  "text",
  [
    "Two boxes of apples stand on the shelf.",
    "A woman coordinates the players.",
    "Her shoes match in colour, a well coordinated outfit.",
    "The score is 3.5, the other one 0.5.",
  ],
)
def test_innocent_words_are_no_sources(text):
  assert answers.turns("detail", Completion(text, ""), "Describe.")


def test_the_picture_is_before_or_after_the_first_question():
  found = {
    json.dumps(
      answers.conversations(
        [("What?", "A dog."), ("Where?", "There.")],
        plan.Job(Picture(str(i), "", ("A.",)), "detail").chance(0),
      )
    )
    for i in range(20)
  }
  rest = [
    {"from": "gpt", "value": "A dog."},
    {"from": "human", "value": "Where?"},
    {"from": "gpt", "value": "There."},
  ]
  assert found == {
    json.dumps([{"from": "human", "value": first}, *rest])
    for first in ("<image>\nWhat?", "What?\n<image>")
  }


def test_draws_depend_on_the_job_and_the_seed_alone():
  job = plan.Job(PICTURE, "detail")
  values = [job.chance(0).random(), job.chance(1).random()]
  values += [plan.Job(PICTURE, "reasoning").chance(0).random()]
  assert len(set(values)) == 3
  assert values[0] == job.chance(0).random()
  # The same in every version of Python, or data sets would change.
  assert values[0] == pytest.approx(0.07349482560623954)


def many(count):
  return [Picture(str(i), f"{i}.jpg", ("A.",)) for i in range(count)]


def test_a_larger_limit_has_the_pictures_of_a_smaller_one():
  few = plan.jobs(many(50), ["detail"], limit=10)
  more = plan.jobs(many(50)[::-1], ["detail"], limit=20)
  assert more[:10] == few and len(more) == 20
  assert few != plan.jobs(many(50), ["detail"], limit=10, seed=1)
  assert [job.picture.id for job in few] != [str(i) for i in range(10)]


def test_jobs_are_refused():
  with pytest.raises(ValueError, match="Did you mean 'detail'"):
    plan.jobs(many(1), ["details"])
  with pytest.raises(ValueError, match="limit is 0"):
    plan.jobs(many(1), ["detail"], limit=0)
  with pytest.raises(ValueError, match="expected 0 or more"):
    plan.Prices(-1, 0)


def test_an_estimate():
  found = prompts.load()
  wanted = plan.jobs(many(30), KINDS)
  estimates = plan.estimate(wanted, found)
  assert list(estimates) == list(KINDS)
  for kind, row in estimates.items():
    characters = sum(
      len(m["content"]) for m in plan.Job(many(1)[0], kind).messages(found)
    )
    assert row.requests == 30
    assert row.prompt_tokens == 30 * -(-characters // 4)
  prices = plan.Prices(2.0, 8.0)
  text = plan.table(estimates, prices)
  total = sum(estimates.values(), plan.Estimate())
  cost = (2 * total.prompt_tokens + 8 * total.completion_tokens) / 1e6
  assert f"{cost:.2f}" in text and "4 characters a token" in text
  assert re.search(r"together +90 ", text)
  assert "cost" not in plan.table(estimates)
