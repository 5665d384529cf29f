"""Small slices of the benchmarks' official files."""

import json

import pytest

from mmjax.data import build, chat_tasks, tasks
from mmjax.data.document import BadSample
from tests.data.mutations import spoiled
from tests.evaluation import chat_files


def pairs(document):
  return [
    (s.text, s.target) for s in document.segments if not hasattr(s, "kind")
  ]


def test_gqa(tmp_path):
  source = build.documents(chat_files.gqa(tmp_path))
  assert pairs(source[0]) == [("Is it round?", False), ("yes", True)]
  assert source[0].metadata["question_id"] == "07001"
  assert source[1].metadata["answers"] == ["apple"]
  assert source[1].media[0].load()[:4] == b"\xff\xd8\xff\xe0"


def test_pope_joins_its_splits(tmp_path):
  source = build.documents(chat_files.pope(tmp_path))
  about = [(d.metadata["split"], d.metadata["answer"]) for d in source]
  assert about[:2] == [("random", "yes"), ("random", "no")]
  assert [s for s, _ in about[::4]] == ["random", "popular", "adversarial"]
  assert pairs(source[0])[0] == ("Is there a apple in the image?", False)
  assert len({d.id for d in source}) == len(about) == 12


def test_mme_finds_pictures_in_both_layouts(tmp_path):
  source = build.documents(chat_files.mme(tmp_path))
  found = [source[i].metadata for i in range(len(source))]
  places = {m["category"]: m["picture"] for m in found}
  assert places["artwork"] == "artwork/1" and len(found) == 8
  # How to answer is said by the task.
  assert found[0]["question"] == "Is it a artwork?"
  assert [m["answer"] for m in found[:2]] == ["yes", "no"]
  assert all(source[i].media[0].load() for i in range(len(source)))


def test_scienceqa_as_it_is_asked_zero_shot(tmp_path):
  source = build.documents(chat_files.scienceqa(tmp_path))
  seen, text = source[0], source[1]
  assert pairs(seen) == [
    (
      "Context: N/A\nQuestion: What is it?\nOptions: (A) a pear (B) an apple",
      False,
    ),
    ("The answer is B.", True),
  ]
  assert len(seen.media) == 1 and not text.media
  assert text.metadata["answers"] == ["A"] and text.metadata["has_text"]
  assert text.metadata["grade"] == "grade8"
  assert pairs(text)[0][0].startswith("Context: Ann sells pears.\nQuestion: ")


def test_scienceqa_as_it_is_learned(tmp_path):
  source = chat_files.scienceqa(tmp_path) | dict(format="QCM-LEA")
  seen, text = list(build.documents(source))[:2]
  assert pairs(seen) == [
    ("What is it?\nContext: N/A\nOptions: (A) a pear (B) an apple", False),
    ("Fruit grows.\nOn trees. It is red. The answer is B.", True),
  ]
  # A lecture that is not there leaves no space.
  assert pairs(text)[1] == ("Think. The answer is A.", True)
  source |= dict(format="QCM-ALE")
  last = list(build.documents(source))[2]
  assert pairs(last)[1] == ("The answer is A.", True)


def test_llava_bench_of_coco_and_in_the_wild(tmp_path):
  coco = build.documents(chat_files.llava_bench_coco(tmp_path))
  first = coco[0].metadata
  assert first["context"] == (
    "A apple.\nOne apple.\n\napple: [0.1, 0.2, 0.5, 1]"
  )
  assert [d.metadata["category"] for d in coco] == ["conv", "detail", "complex"]
  assert first["reference"] == "It is a apple."
  wild = build.documents(chat_files.llava_bench_wild(tmp_path))
  assert wild[0].metadata["context"] == "Someone has drawn it."
  assert wild[0].media[0].load()


def test_textvqa_with_what_an_ocr_system_has_read(tmp_path):
  source = build.documents(chat_files.textvqa(tmp_path))
  assert pairs(source[0])[0][0] == (
    "What does acme say?\nReference OCR token: ACME, 12"
  )
  assert pairs(source[1])[0][0] == "What brand is it?"
  other = tmp_path / "none.jsonl"
  other.write_text("")
  with pytest.raises(ValueError, match="has no question 'what does"):
    tasks.TextVqa(**named(chat_files.textvqa(tmp_path)) | dict(ocr=str(other)))


def named(source):
  return {k: v for k, v in source.items() if k != "name"}


@pytest.mark.parametrize(
  "make",
  [
    chat_files.gqa,
    chat_files.pope,
    chat_files.scienceqa,
    chat_files.llava_bench_coco,
  ],
)
def test_any_value_of_a_wrong_kind_is_a_named_error(tmp_path, make):
  source = make(tmp_path)
  name = source.pop("name")
  errors = 0
  for file in chat_files.files(source):
    sound = file.read_text()
    lines = file.suffix == ".jsonl" or name == "pope"
    content = (
      [*map(json.loads, sound.splitlines())] if lines else json.loads(sound)
    )
    for _, changed in spoiled(content):
      text = (
        "\n".join(map(json.dumps, changed)) if lines else json.dumps(changed)
      )
      file.write_text(text)
      try:
        made = chat_tasks.CHAT_TASKS[name](**source)
        for i in range(len(made)):
          made[i]
      except ValueError as error:
        errors += 1
        assert str(error)
    file.write_text(sound)
  assert errors > 20


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("Is it?\tYes\n", "1 questions; MME asks two"),
    ("Is it?\tYes\nIs it?\tperhaps\n", "expected a question, a tab"),
    ("Is it? Yes\nIs it? No\n", "expected a question, a tab"),
    ("\tYes\n\tNo\n", "expected a question, a tab"),
  ],
)
def test_damaged_questions_of_mme(tmp_path, text, said):
  source = named(chat_files.mme(tmp_path))
  path = tmp_path / "mme" / "existence" / "1.txt"
  path.write_text(text)
  with pytest.raises(ValueError, match=said):
    chat_tasks.Mme(**source)
  path.write_bytes(b"\xff\xfe\x00")
  with pytest.raises(ValueError, match="Cannot read questions"):
    chat_tasks.Mme(**source)


def test_files_that_do_not_belong_together(tmp_path):
  source = named(chat_files.mme(tmp_path))
  next((tmp_path / "mme" / "existence").glob("1.jpg")).unlink()
  with pytest.raises(ValueError, match="There is no picture"):
    chat_tasks.Mme(**source)
  with pytest.raises(ValueError, match="There is no folder"):
    chat_tasks.Mme(str(tmp_path / "none"))
  source = named(chat_files.scienceqa(tmp_path))
  with pytest.raises(ValueError, match="split of .*'tset'. Did you mean 'test"):
    chat_tasks.ScienceQa(**source, split="tset")
  with pytest.raises(ValueError, match="output of ScienceQA's format 'LAE'"):
    chat_tasks.ScienceQa(**source, format="QCM-LAE")
  source = named(chat_files.llava_bench_coco(tmp_path))
  empty = tmp_path / "empty.jsonl"
  empty.write_text("")
  for key, said in (("reference", "no answer to"), ("context", "says nothing")):
    with pytest.raises(ValueError, match=said):
      chat_tasks.LlavaBench(**source | {key: str(empty)})


def test_a_name_that_leads_out_is_refused(tmp_path):
  source = named(chat_files.pope(tmp_path))
  path = chat_files.files(source)[0]
  path.write_text(path.read_text().replace("COCO_val2014", "../COCO"))
  made = chat_tasks.Pope(**source)
  with pytest.raises(BadSample, match="below"):
    made[0]
