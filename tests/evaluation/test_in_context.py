"""Few-shot evaluation with models that can be predicted by hand."""

import json

import numpy as np
import pytest

from mmjax.data.document import Document, Text
from mmjax.evaluation import answers, controls, in_context, tasks
from mmjax.evaluation.in_context import Protocol
from tests.evaluation.seeing import (
  EXAMPLES,
  NAMES,
  QUERIES,
  TASK,
  Seeing,
  image,
  render,
)


def test_prompts_of_the_paper():
  model = Seeing()
  in_context.evaluate(
    TASK,
    QUERIES[:1],
    EXAMPLES[:1] * 2,
    generate=model.generate,
    protocol=Protocol(shots=(0, 1)),
  )
  ask = "Question: What is it? Answer:"
  example = f"{ask} cat<EOC>"
  # Zero shots keep two examples without their pictures.
  assert render(model.asked[0]) == example * 2 + f"<image>{ask}"
  assert render(model.asked[1]) == f"<image>{example}<image>{ask}"


def test_prompts_of_open_flamingo():
  model = Seeing()
  in_context.evaluate(
    tasks.Task("vqa", "exact"),
    QUERIES[:1],
    EXAMPLES[:2],
    generate=model.generate,
    protocol=Protocol(style="open_flamingo", shots=(2,)),
  )
  first, second, query = render(model.asked[0]).split("\n")
  assert query == "<image>Question:What is it? Short answer:"
  assert {first, second} == {
    f"{query}cat<EOC>",
    f"{query}dog<EOC>",
  }


def test_dialogue_prompt():
  style = tasks.STYLES["flamingo"]
  fields = {
    "dialogue": tasks.dialogue("a dog runs", [("is it big?", "no")]),
    "question": "is it wet?",
  }
  assert style.templates["visdial"].ask(fields) == (
    "a dog runs Question: is it big? Answer: no Question: is it wet? Answer:"
  )


def test_scores_records_and_controls():
  model = Seeing()
  label = lambda d: d.metadata["answer"]  # noqa: E731
  progress = []
  results = in_context.evaluate(
    TASK,
    QUERIES,
    EXAMPLES,
    name="naming",
    generate=model.generate,
    protocol=Protocol(shots=(0, 4), seeds=(0, 1), batch_size=3),
    controls=controls.standard(label=label),
    progress=lambda done, total: progress.append((done, total)),
  )
  scores = {(r.shots, r.control): r.score for r in results}
  for shots in (0, 4):
    assert scores[shots, "none"] == 100
    for control in ("no_query", "wrong_query", "text_only"):
      assert scores[shots, control] == 0
    assert scores[shots, "blank_support"] == 100
  assert progress[-1] == (2 * 5 * 2 * 8, 2 * 5 * 2 * 8)
  assert [p[0] for p in progress] == sorted(p[0] for p in progress)
  (result,) = (r for r in results if (r.shots, r.control) == (4, "none"))
  assert result.seeds == {0: 100, 1: 100} and result.deviation == 0
  assert [d.id for d in result.prompts] == [r["id"] for r in result.records]
  assert len(result.records) == 16
  record = result.records[0]
  assert record["prediction"] == "cat" and record["raw"].startswith(" cat Q")
  assert record["score"] == 100 and len(set(record["support"])) == 4
  json.dumps(result.summary())


def test_records_are_written_as_lines(tmp_path):
  results = in_context.evaluate(
    TASK,
    QUERIES,
    EXAMPLES,
    generate=Seeing().generate,
    protocol=Protocol(shots=(1,)),
  )
  answers.write_records(results, tmp_path / "records.jsonl")
  lines = (tmp_path / "records.jsonl").read_text().splitlines()
  assert [json.loads(x)["id"] for x in lines] == [q.id for q in QUERIES]


def test_episodes_that_hold_their_support():
  episodes = [
    Document(
      (
        image(3),
        Text("Output:"),
        Text(" owl", end=True),
        image(i % 3),
        Text("Output:"),
        Text(f" {NAMES[i % 3]}", target=True),
      ),
      f"e/{i}",
      {"answer": NAMES[i % 3]},
    )
    for i in range(6)
  ]
  model, progress = Seeing(), []
  results = in_context.evaluate_episodes(
    tasks.Task("caption", "exact"),
    episodes,
    name="episodes",
    shots=1,
    generate=model.generate,
    controls=controls.standard(label=lambda d: d.metadata["answer"]),
    batch_size=4,
    progress=lambda done, total: progress.append((done, total)),
  )
  scores = {r.control: r.score for r in results}
  assert scores.pop("none") == scores.pop("blank_support") == 100
  assert set(scores.values()) == {0}
  assert progress[0] == (4, 30) and progress[-1] == (30, 30)
  assert render(model.asked[0]) == "<image>Output: owl<EOC><image>Output:"
  assert results[0].records[0]["shots"] == 1


@pytest.mark.parametrize(
  "style,template,text,clean",
  [
    ("flamingo", "vqa", " a cat Question: what", "a cat"),
    ("flamingo", "vqa", " red, white<EOC> x", "red, white"),
    ("flamingo", "caption", " a dog Output: a cat", "a dog"),
    ("open_flamingo", "vqa", "red, white Short answer:", "red"),
    ("open_flamingo", "vqa", "two Answer: three", "two"),
    ("open_flamingo", "caption", 'a "big" dog Output:', "a big dog"),
    ("open_flamingo", "caption", "a dog<|endofchunk|><image>", "a dog"),
    ("flamingo", "vqa", "", ""),
  ],
)
def test_cleaning(style, template, text, clean):
  task = tasks.Task(template, "exact")
  assert tasks.STYLES[style].clean(task, text) == clean


# The paper's ablations: COCO, OKVQA, VQAv2, MSVDQA, VATEX, overall score.
ABLATIONS = """
86.5 42.1 55.8 36.3 53.4 70.7 | 84.2 43.0 53.9 34.5 46.0 67.3
66.3 39.2 51.6 32.0 41.6 60.9 | 79.5 41.4 53.5 33.9 47.6 66.4
54.1 36.5 52.7 31.4 23.5 53.4 | 76.1 39.8 52.1 33.2 40.8 62.9
78.4 40.5 52.9 35.9 47.5 66.5 | 80.6 41.5 53.4 32.9 50.7 66.9
79.2 36.1 50.8 32.2 47.8 63.1 | 71.5 38.1 50.2 29.1 42.3 59.8
82.3 42.7 55.1 34.6 50.8 68.8 | 83.7 41.0 55.8 34.5 49.7 68.2
78.6 42.2 54.7 35.2 44.7 66.6 | 83.2 41.7 55.6 31.5 48.3 66.7
76.5 41.6 53.4 33.2 44.5 64.9 | 73.8 40.5 52.8 31.1 42.9 62.7
74.8 31.5 45.6 26.9 50.1 57.8 | 81.2 33.7 47.4 31.0 53.9 62.7
81.1 40.4 54.1 36.0 50.2 67.9 | 84.4 42.2 54.4 35.1 51.4 69.0
70.0 40.9 52.0 32.1 46.8 63.5 | 85.0 41.6 55.2 36.7 50.6 69.6
81.3 43.3 55.6 36.8 52.7 70.4 | 81.3 34.4 47.1 30.9 53.9 62.8
74.5 41.6 52.7 31.4 35.8 61.4 | 83.5 40.6 55.1 34.6 50.7 68.1
69.3 29.9 46.1 28.1 45.5 55.9 | 83.0 42.5 53.3 35.1 51.1 68.6
61.4 37.9 50.9 27.9 29.7 54.7 | 76.3 41.5 53.4 32.5 46.1 64.9
"""


def test_overall_score_of_every_ablation():
  rows = [r.split() for r in ABLATIONS.replace("\n", "|").split("|") if r]
  assert len(rows) == 30
  # The paper's own rounding: 67.3 where its five scores give 67.46, the rest
  # closer.
  for row in rows:
    *scores, overall = map(float, row)
    made = tasks.overall_score(dict(zip(tasks.STATE_OF_THE_ART, scores)))
    assert made == pytest.approx(overall, abs=0.165), row


def test_bad_input_is_named():
  with pytest.raises(ValueError, match="'generate'"):
    in_context.evaluate(TASK, QUERIES, EXAMPLES)
  with pytest.raises(ValueError, match="'score'"):
    in_context.evaluate(tasks.classes(NAMES), QUERIES, EXAMPLES)
  with pytest.raises(ValueError, match="No queries"):
    in_context.evaluate(TASK, [], EXAMPLES, generate=Seeing().generate)
  with pytest.raises(ValueError, match="features"):
    in_context.evaluate(
      TASK,
      QUERIES,
      EXAMPLES,
      generate=Seeing().generate,
      protocol=Protocol(selection="rices"),
    )
  with pytest.raises(ValueError, match=r"\[7, 2\] for 8 documents"):
    in_context.evaluate(
      TASK,
      QUERIES,
      EXAMPLES,
      generate=Seeing().generate,
      protocol=Protocol(shots=(1,), selection="rices"),
      features=lambda documents: np.ones((len(documents) - 1, 2)),
    )
  with pytest.raises(ValueError, match="'flamingo'"):
    Protocol(style="flaming")
  with pytest.raises(ValueError, match="1 answers for 8"):
    in_context.evaluate(
      TASK,
      QUERIES,
      EXAMPLES,
      generate=lambda documents: ["cat"],
      protocol=Protocol(shots=(0,)),
    )
  with pytest.raises(ValueError, match="coco"):
    tasks.overall_score({"coco": 1.0})
  with pytest.raises(ValueError, match="all different"):
    tasks.classes(["cat", "cat"])
