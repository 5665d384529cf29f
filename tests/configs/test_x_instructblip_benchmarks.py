"""What X-InstructBLIP is asked: of all official files, small ones of theirs."""

import dataclasses
import json
from pathlib import Path

import pytest

from configs.x_instructblip import benchmarks
from mmjax.data.build import encoder
from mmjax.data.document import Text
from mmjax.data.instructions import plain_question
from mmjax.evaluation.chat import benchmark
from mmjax.evaluation.chat_tasks import PARSERS
from mmjax.evaluation.model import Model
from mmjax.text.prompts.cued import FORMATS
from mmjax.training.sources import make_tokenizer
from tests.data.test_discrn import row
from tests.data.test_published import FILES, write_rows

KINDS = ("image", "audio", "points", "video")
CAPTIONS = ("a short description", 80, 10, 1.0)
QUESTION = ("Question: {} Answer:", 10, 1, -1.0)
# What is asked, how long an answer may and has to be, the length penalty.
ASKED = {
  **dict.fromkeys(("coco", "flickr30k", "nocaps"), CAPTIONS),
  "nocaps_out_domain": CAPTIONS,
  "gqa": ("based on the given image respond to {}", 10, 1, -1.0),
  "okvqa": ("based on the given the image respond to {}", 10, 1, -1.0),
  "vizwiz": ("based on the given image respond to {}", 10, 1, -1.0),
  "snli_ve": ("{}", None, None, None),
  **dict.fromkeys(("audiocaps", "clotho_v1", "clotho_v2"), CAPTIONS),
  **dict.fromkeys(("audiocaps_qa", "clotho_aqa"), QUESTION),
  "esc50": ("describe the audio", None, None, None),
  "esc50_open": ("describe the audio", 80, 1, 1.0),
  **dict.fromkeys(("msrvtt", "msvd", "vatex"), CAPTIONS),
  "msrvtt_qa": ("based on the given video respond to {}", 10, 1, -1.0),
  "msvd_qa": QUESTION,
  "modelnet40": ("describe the 3d model", None, None, None),
  "modelnet40_open": ("describe the 3d model", 80, 1, 0.0),
  "objaverse": CAPTIONS,
  "objaverse_qa": ("based on the given input respond to {}", 80, 1, 0.0),
  "music_avqa": QUESTION,
  "vatex_with_sound": CAPTIONS,
  "discrn_objaverse": ("question: {} answer:", 10, 1, 1.0),
  "discrn_audiocaps": ("question: {} answer:", 10, 1, -1.0),
}


def caption_rows(name):
  if name == "coco_captions":
    domains = {1: "in-domain", 2: "out-domain"}
    return {
      "images": [
        {"id": key, "file_name": f"{key}.jpg", "domain": domain}
        for key, domain in domains.items()
      ],
      "annotations": [
        {"image_id": key, "id": key, "caption": "A cat."} for key in domains
      ],
    }
  sentences = [{"raw": "A cat."}, {"raw": "A pet."}]
  image = dict(split="test", filename="1.jpg", imgid=1, sentences=sentences)
  return {"images": [image]}


def question_rows(name, key):
  question = {"question_id": 1, "image_id": 9, "question": "What is it?"}
  if name == "gqa":
    return {"07": dict(question="What is it?", imageId="9", answer="cat")}
  if name == "vizwiz":
    answers = [{"answer": "cat"}] * 10
    return [dict(image="9.jpg", question="What is it?", answers=answers)]
  if key == "questions":
    return {"questions": [question]}
  return {"annotations": [question | dict(answers=[{"answer": "cat"}] * 10)]}


def save(source):
  """Writes the files that a source names, and makes its folders."""
  name = source["name"]
  for key in ("questions", "annotations"):
    if key not in source:
      continue
    path = Path(source[key])
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "published":
      content = FILES[source["data"]][0]
      if source["data"] == "msrvtt":
        videos = [{"video_id": "video0", "split": "test"}]
        content = content | dict(videos=videos)
      write_rows(path, source["data"], content)
    elif name == "discrn":
      starts = [30.0, 0]
      rows = [row(k, start_seconds=starts) for k in (0, 1)]
      path.write_text(json.dumps(rows))
    elif name in ("coco_captions", "karpathy"):
      path.write_text(json.dumps(caption_rows(name)))
    else:
      path.write_text(json.dumps(question_rows(name, key)))
  for folder in (
    *source.get("media", {}).values(),
    *source.get("folders", {}).values(),
    *([source["images"]] if "images" in source else []),
  ):
    Path(folder).mkdir(parents=True, exist_ok=True)


@pytest.fixture
def tasks(tmp_path, monkeypatch):
  monkeypatch.setenv("MMJAX_DATA", str(tmp_path))
  config = benchmarks.evaluate(*KINDS)
  for task in config["tasks"].values():
    save(task["source"])
  # DisCRn looks for a file before it is asked about: LAVIS' names.
  for folder, end in dict(videos="mp4", audio="flac").items():
    for name in ("a0_30", "b0_0", "a1_30", "b1_0"):
      (tmp_path / "discrn" / folder / f"{name}.{end}").touch()
  for name in ("a0", "b0", "a1", "b1"):
    (tmp_path / "discrn/images" / f"{name}_2.jpeg").touch()
    points = tmp_path / "discrn/points" / name
    points.mkdir()
    (points / f"{name}_8192.npz").touch()
  return config["tasks"]


@pytest.fixture(scope="module")
def model():
  """As the config makes it, but that nothing is loaded."""
  config = benchmarks.evaluate(*KINDS)
  names = dict(name="drawn", reader=dict(name="drawn"))
  tokenizer = make_tokenizer(names)
  media = {
    "image": dict(name="pictures", transforms=[dict(name="square", size=32)]),
    "video": dict(
      name="pictures",
      transforms=[dict(name="square", size=32)],
      frames=2,
      fps=None,
    ),
    "audio": dict(name="sounds"),
    "points": dict(name="points", count=64),
  }
  prompt = dict(
    name="cued",
    media=dict.fromkeys(KINDS, 1),
    media_tokens=4,
    reader_length=16,
    start="",
    **config["prompt"],
  )
  read = encoder(tokenizer, prompt, media=media)
  return Model(None, {}, read, tokenizer, **config["model"])


def test_every_set_of_the_facts_is_asked(tasks):
  assert tasks.keys() == ASKED.keys()
  assert all(len(benchmarks.evaluate(kind)["tasks"]) >= 4 for kind in KINDS)


@pytest.mark.parametrize("name", ASKED)
def test_how_it_is_asked(name, tasks, model):
  each = benchmark(**tasks[name], name=name)
  ask, most, least, penalty = ASKED[name]
  query, record = each.queries[0], each.records[0]
  question = record.metadata.get("question", "")
  assert query.text == ask.format(plain_question(question))
  assert [isinstance(s, Text) for s in query.segments].count(True) == 1
  own = each.fit(model)
  assert (own.num_beams, own.repetition_penalty) == (5, 1.5)
  if most is None:
    assert each.task.candidate and record.metadata["choices"]
  else:
    assert own.max_new_tokens == most and own.min_new_tokens == least
    assert own.length_penalty == penalty
  # All of its media have room, each its frames, and the text behind them.
  written = own.encoder.prompt.query(query)
  kinds = [media.kind for media in query.media]
  alone = kinds == ["video"]
  frames = dict(image=1, points=1, audio=2, video=5 if alone else 2)
  assert len(written.media) == sum(frames[kind] for kind in kinds)
  assert own.encoder.readers["video"].frames == frames["video"]


@pytest.mark.parametrize(
  ("asked", "plain"),
  [
    ('What\'s in the U.S. (now): "this"?', "what's in the us now this?"),
    ("is  it red, or not?", "is it red, or not?"),
    ("word " * 60, " ".join(["word"] * 50)),
    ("...", ""),
  ],
)
def test_questions_are_those_of_lavis_processor(asked, plain):
  assert plain_question(asked) == plain


def test_candidates(tasks):
  found = {
    name: task["candidate"]
    for name, task in tasks.items()
    if "candidate" in task
  }
  assert found == {
    "snli_ve": "{answer}",
    "esc50": "an audio of {answer}",
    "modelnet40": " a 3d model of a {answer}",
  }


def test_discrn_has_its_request_before_the_media(tasks, model):
  each = benchmark(**tasks["discrn_audiocaps"], name="discrn")
  own = each.fit(model).encoder.prompt
  before = FORMATS["x_instructblip_asked"]
  assert own.format == dataclasses.replace(before, prefix=benchmarks.REQUEST)
  query = each.queries[0]
  written = own.query(query)
  request = model.tokenizer.encode(benchmarks.REQUEST)
  rest = model.encoder.prompt.query(query).tokens
  assert list(written.tokens) == [*request, *rest]
  # The connectors read another text than the question.
  read = model.tokenizer.reader.decode(written.texts[0])
  assert query.metadata["instruction"] == "a short description"
  plain = own.query(dataclasses.replace(query, metadata={}))
  assert read != model.tokenizer.reader.decode(plain.texts[0])


def test_saying_nothing_to_vizwiz_is_an_answer(tasks):
  each = benchmark(**tasks["vizwiz"], name="vizwiz")
  read = PARSERS[each.task.parse]
  assert read("") == "unanswerable" and read("a cat") == "a cat"
