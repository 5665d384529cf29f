import json

import pytest

from mmjax.data import tasks
from mmjax.data.document import BadSample, Text
from tests.data.mutations import spoiled
from tests.data.pictures import encode, photo


@pytest.fixture
def folder(tmp_path):
  for name in ("a.jpg", "COCO_val2014_000000000009.jpg", "sub.jpg"):
    (tmp_path / name).write_bytes(encode(photo(), "JPEG"))

  def save(name, content):
    (tmp_path / name).write_text(json.dumps(content))
    return str(tmp_path / name)

  return str(tmp_path), save


def texts(document):
  return [(s.text, s.target) for s in document.segments if isinstance(s, Text)]


def test_coco_captions(folder):
  images, save = folder
  path = save(
    "c.json",
    {
      "images": [
        {"id": 1, "file_name": "a.jpg"},
        {"id": 2, "file_name": "none.jpg"},
      ],
      "annotations": [
        {"image_id": 1, "id": 7, "caption": "A cat. "},
        {"image_id": 1, "id": 8, "caption": "One cat."},
      ],
    },
  )
  source = tasks.CocoCaptions(path, images)
  assert len(source) == 1
  assert source[0].metadata["answers"] == ["A cat.", "One cat."]
  assert texts(source[0]) == [("A cat.", True)]
  assert source[0].media[0].load()[:2] == b"\xff\xd8"
  each = tasks.CocoCaptions(path, images, per="caption")
  assert [texts(each[i])[0][0] for i in range(2)] == ["A cat.", "One cat."]


def test_images_of_a_domain_of_nocaps(folder):
  images, save = folder
  path = save(
    "n.json",
    {
      "images": [
        {"id": i, "file_name": "a.jpg", "domain": domain}
        for i, domain in enumerate(("in-domain", "out-domain", "in-domain"))
      ],
      "annotations": [
        {"image_id": i, "id": i, "caption": f"A cat {i}."} for i in range(3)
      ],
    },
  )
  source = tasks.CocoCaptions(path, images, domain="in-domain")
  assert [source[i].metadata["image_id"] for i in range(len(source))] == [0, 2]
  assert len(tasks.CocoCaptions(path, images)) == 3
  with pytest.raises(ValueError, match="domain of .*'out-domain'"):
    tasks.CocoCaptions(path, images, domain="outdomain")


def test_coco_tells_what_does_not_belong_together(folder, caplog):
  images, save = folder
  rows = [{"id": i, "file_name": "a.jpg"} for i in (1, 2)]
  captions = [{"image_id": i, "id": i, "caption": "A cat."} for i in (1, 3)]
  content = {"images": rows, "annotations": captions}
  assert len(tasks.CocoCaptions(save("c.json", content), images)) == 1
  told = [r.getMessage() for r in caplog.records]
  assert len(told) == 2 and "such as 2" in told[0] and "such as 3" in told[1]
  content["images"] = [rows[0], rows[0]]
  with pytest.raises(ValueError, match=r"images \[1\] more than once"):
    tasks.CocoCaptions(save("c.json", content), images)


def test_karpathy(folder):
  images, save = folder
  rows = [
    {
      "filename": "a.jpg",
      "split": split,
      "cocoid": 5,
      "sentences": [{"raw": "x"}],
    }
    for split in ("train", "test")
  ]
  source = tasks.Karpathy(save("k.json", {"images": rows}), images)
  assert len(source) == 1 and source[0].metadata["image_id"] == 5


def test_vqa_joins_questions_and_answers(folder):
  images, save = folder
  question = {"question_id": 90, "image_id": 9, "question": "What is it? "}
  questions = save("q.json", {"questions": [question]})
  answers = [{"answer": a} for a in ("cat", "a cat", "cat")]
  annotations = save(
    "a.json", {"annotations": [{"question_id": 90, "answers": answers}]}
  )
  document = tasks.Vqa(questions, images, annotations)[0]
  assert texts(document) == [("What is it?", False), ("cat", True)]
  assert document.metadata["answers"] == ["cat", "a cat", "cat"]
  assert document.metadata["question_id"] == 90
  document.media[0].load()
  unanswered = tasks.Vqa(questions, images)[0]
  assert texts(unanswered) == [("What is it?", False)]
  with pytest.raises(ValueError, match="no answers to question 90"):
    tasks.Vqa(questions, images, save("e.json", {"annotations": []}))


def test_textvqa_and_vizwiz(folder):
  images, save = folder
  row = {"question": "Brand?", "image_id": "a", "question_id": 3}
  path = save("t.json", {"data": [row | {"answers": ["x", "y"]}]})
  assert tasks.TextVqa(path, images)[0].metadata["answers"] == ["x", "y"]
  row = {"image": "a.jpg", "question": "Colour?"}
  path = save("v.json", [row | {"answers": [{"answer": "red"}]}, row])
  source = tasks.VizWiz(path, images)
  assert texts(source[0]) == [("Colour?", False), ("red", True)]
  assert texts(source[1]) == [("Colour?", False)]


def test_hateful_memes(folder, tmp_path):
  images, _ = folder
  path = tmp_path / "m.jsonl"
  rows = [
    {"id": 1, "img": "a.jpg", "label": label, "text": "hi {x}"}
    for label in (0, 1)
  ]
  path.write_text("\n".join(map(json.dumps, rows)))
  source = tasks.HatefulMemes(str(path), images)
  assert [source[i].metadata["answer"] for i in range(2)] == ["no", "yes"]
  assert source[0].metadata["text"] == "hi {x}"


ROW = {"question": "a", "image_id": "b", "question_id": 1, "answers": ["x"]}


@pytest.mark.parametrize(
  ("task", "content"),
  [
    (
      tasks.CocoCaptions,
      {
        "images": [{"id": 1, "file_name": "a"}],
        "annotations": [{"image_id": 1, "caption": "x"}],
      },
    ),
    (
      tasks.Karpathy,
      {
        "images": [
          {
            "filename": "a",
            "filepath": "b",
            "split": "test",
            "cocoid": 1,
            "sentences": [{"raw": "x"}],
          }
        ]
      },
    ),
    (tasks.TextVqa, {"data": [ROW]}),
    (tasks.Vqa, {"questions": [ROW | {"image_id": 1}]}),
    (
      tasks.VizWiz,
      [{"image": "a", "question": "b", "answers": [{"answer": "x"}]}],
    ),
  ],
)
def test_any_value_of_a_wrong_kind_is_a_named_error(folder, task, content):
  images, save = folder
  errors = 0
  for _, changed in spoiled(content):
    path = save("spoiled.json", changed)
    try:
      source = task(path, images)
      for i in range(len(source)):
        assert source[i].media
    except ValueError as error:
      errors += 1
      assert str(error)
  assert errors > 20


def test_lines_end_at_newlines_only(folder, tmp_path):
  images, _ = folder
  path = tmp_path / "m.jsonl"
  path.write_text('{"id": 1, "img": "a.jpg", "text": "a\u2028b"}\n')
  assert tasks.HatefulMemes(str(path), images)[0].metadata["text"] == "a\u2028b"


def test_a_mark_at_the_beginning_and_a_broken_line(folder, tmp_path):
  images, _ = folder
  row = '{"id": 1, "img": "a.jpg", "text": "a"}\r\n'
  path = tmp_path / "m.jsonl"
  path.write_text("\ufeff" + row + "\r\n" + row)
  assert len(tasks.HatefulMemes(str(path), images)) == 2
  path.write_text(row + "\n" + row[:9])
  with pytest.raises(ValueError, match=r"m\.jsonl, line 3: "):
    tasks.HatefulMemes(str(path), images)


@pytest.mark.parametrize(
  "file",
  ["{id}.jpg", "{0}.jpg", "{image_id.jpg", "{image_id.x}", "{image_id:q}"],
)
def test_a_template_of_files_that_cannot_be_filled(folder, file):
  images, save = folder
  question = {"question_id": 90, "image_id": 9, "question": "What is it?"}
  path = save("q.json", {"questions": [question]})
  with pytest.raises(ValueError, match="file is .* image_id 9"):
    tasks.Vqa(path, images, file=file)


def test_answers_that_are_there_twice(folder):
  images, save = folder
  question = {"question_id": 90, "image_id": 9, "question": "What is it?"}
  answers = [{"question_id": 90, "answers": [{"answer": a}]} for a in "ab"]
  with pytest.raises(ValueError, match="answers question 90 twice"):
    tasks.Vqa(
      save("q.json", {"questions": [question]}),
      images,
      save("a.json", {"annotations": answers}),
    )


def test_hostile_names_and_files(folder):
  images, save = folder
  row = {"question": "?", "answers": []}
  source = tasks.VizWiz(save("v.json", [row | {"image": "../x"}]), images)
  with pytest.raises(BadSample, match="below"):
    source[0]
  with pytest.raises(ValueError, match=r"v\.json: 'data' is 'None'"):
    tasks.TextVqa(save("v.json", []), images)
  with pytest.raises(ValueError, match="'image' is 'None'"):
    tasks.VizWiz(save("v.json", [row]), images)
  with pytest.raises(ValueError, match="Cannot read"):
    tasks.VizWiz(f"{images}/none.json", images)
  with pytest.raises(ValueError, match="no folder"):
    tasks.VizWiz(save("v.json", [row | {"image": "a"}]), "/nowhere")
