"""Benchmarks in their official files, asked of models that are a function."""

import dataclasses
import json
import threading
from concurrent import futures

import numpy as np
import pytest

from mmjax.data.encoder import Encoder
from mmjax.data.image import Square
from mmjax.data.readers import Pictures
from mmjax.evaluation import chat_table
from mmjax.evaluation.chat import benchmark, evaluate_chat
from mmjax.evaluation.judge import Judging
from mmjax.evaluation.ledger import Memory, Share
from mmjax.evaluation.model import Model
from mmjax.evaluation.tasks import METRICS
from mmjax.text.prompts.flamingo import Flamingo
from mmjax.text.tokenizer import drawn
from tests.evaluation import chat_files


@dataclasses.dataclass(frozen=True)
class Says(Model):
  """A model that is a function of the document."""

  says: object = None

  def generate(self, documents):
    return [self.says(d) for d in documents]


def model(says):
  tokenizer = drawn()
  prompt = Flamingo(tokenizer, length=64, media=1)
  read = Encoder(prompt, {"image": Pictures((Square(16),))})
  return Says(None, {}, read, tokenizer, batch_size=2, says=says)


def run(folder, tasks, says, **settings):
  memory = Memory(folder / "answers", {})
  return evaluate_chat(model(says), tasks, memory=memory, **settings)


def test_how_each_benchmark_is_asked(tmp_path):
  short = "\nAnswer the question using a single word or phrase."
  expected = {
    "gqa": "Is it round?" + short,
    "pope": "Is there a apple in the image?" + short,
    "mme": "Is it a artwork?" + short,
    "textvqa": "What does acme say?\nReference OCR token: ACME, 12" + short,
    "scienceqa": "Context: N/A\nQuestion: What is it?\nOptions: (A) a pear "
    "(B) an apple\nAnswer with the option's letter from the given choices "
    "directly.",
    "llava_bench_coco": "What is it?",
    "llava_bench_wild": "Who drew it?",
  }
  for name, text in expected.items():
    each = benchmark(getattr(chat_files, name)(tmp_path), name)
    query = each.queries[0]
    # The picture first, and nothing that gives the answer away.
    assert [type(s).__name__ for s in query.segments] == ["Media", "Text"]
    assert query.text == text and not query.segments[1].target


def test_questions_are_capitalised_as_in_llavas_files(tmp_path):
  source = chat_files.textvqa(tmp_path)
  del source["ocr"]
  found = []
  for name in ("textvqa", "vqav2"):
    asked = benchmark(source, task=name).queries[0].text.split("\n")[0]
    found.append(asked)
  assert found == ["What does acme say?", "what does ACME say?"]


def test_scores_by_hand(tmp_path):
  names = ("gqa", "pope", "mme", "textvqa", "scienceqa")
  tasks = {n: dict(source=getattr(chat_files, n)(tmp_path)) for n in names}
  # Always the same: "Yes" is right about round fruit and half of the rest.
  found = run(tmp_path, tasks, lambda d: "Yes.", published="LLaVA-1.5-7B")
  scores = {r.task: r.scores for r in found}
  assert scores["gqa"] == {"accuracy": 50}
  assert scores["pope"]["random/f1"] == pytest.approx(200 / 3)
  assert scores["mme"]["perception"] == 50 + 50
  assert scores["textvqa"] == {"accuracy": 0}
  assert scores["scienceqa"]["average"] == 0
  failed = {r.task: r.failed for r in found}
  assert failed == dict(gqa=0, pope=0, mme=0, textvqa=0, scienceqa=3)
  letters = dict(scienceqa=tasks["scienceqa"])
  (found,) = run(tmp_path / "b", letters, lambda d: "A")
  assert found.scores["IMG"] == 0 and found.scores["average"] == (
    pytest.approx(200 / 3)
  )
  record = found.records[0]
  assert record["raw"] == "A" and record["score"] == 0
  assert record["answers"] == ["B"] and record["question_id"] == "4"


def test_vqa_accuracy_is_the_official_one(tmp_path):
  source = chat_files.textvqa(tmp_path)
  (found,) = run(
    tmp_path, dict(textvqa=dict(source=source)), lambda d: "The ACME."
  )
  rows = [dict(prediction="The ACME.", answers=["acme"] * 10)] * 2
  assert found.scores["accuracy"] == METRICS["vqa"](rows)[0] == 100


def test_a_run_that_was_killed_goes_on(tmp_path):
  tasks = {
    n: dict(source=getattr(chat_files, n)(tmp_path)) for n in ("pope", "mme")
  }
  asked, told = [], []

  def says(document, dies=10**6):
    if len(asked) >= dies:
      raise KeyboardInterrupt
    asked.append(document.id)
    return ("Yes", "No", "maybe")[len(document.text) % 3]

  straight = run(tmp_path / "straight", tasks, says)
  asked.clear()
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path / "cut", tasks, lambda d: says(d, dies=14))
  again = run(tmp_path / "cut", tasks, says, progress=lambda *n: told.append(n))
  assert [r.summary() for r in again] == [r.summary() for r in straight]
  assert [r.records for r in again] == [r.records for r in straight]
  assert len(asked) == len(set(asked)) == 20
  assert told[0] == (12, 20) and told[-1] == (20, 20)


def test_a_count_is_part_of_a_greater_one(tmp_path):
  source, asked = chat_files.pope(tmp_path), []
  counted = {}
  for count in (3, 8):
    (found,) = run(
      tmp_path,
      dict(pope=dict(source=source, count=count)),
      lambda d: asked.append(d.id) or "no",
    )
    counted[count] = {r["id"] for r in found.records}
  assert counted[3] < counted[8] and len(asked) == 8


def judged(tmp_path):
  names = ("llava_bench_coco", "llava_bench_wild")
  return {n: dict(source=getattr(chat_files, n)(tmp_path)) for n in names}


def test_llava_bench_is_judged(tmp_path):
  told = []

  def ask(judging):
    def say(messages):
      told.append(messages[1]["content"])
      return "8 6\nfine" if "It is a apple" in told[-1] else "perhaps"

    assert judging == Judging(model="m", repeats=2)
    return say

  settings = dict(judge=dict(model="m", repeats=2), published="LLaVA-13B")
  coco, wild = run(
    tmp_path, judged(tmp_path), lambda d: "A fruit.", ask=ask, **settings
  )
  assert coco.metric == "judge m" and coco.count == 3
  assert coco.scores == dict(all=75, conv=75, detail=75, complex=75)
  assert coco.spread["all"] == 0 and coco.failed == 0
  assert wild.scores == {} and wild.failed == 2
  assert coco.records[0]["judged"] == [(8, 6), (8, 6)]
  assert "boxes" not in told[0] and "its box" in told[0]
  assert "[Assistant 2]\nA fruit.\n" in told[0]
  # Judged again, nothing is asked.
  settings["ask"] = lambda judging: pytest.fail
  again = run(tmp_path, judged(tmp_path), pytest.fail, **settings)
  assert again[0].scores == coco.scores
  text = chat_table.markdown([coco])
  assert (
    "| llava_bench_coco | all | 75.0 ± 0.0 | 85.1 | -10.1 | 3 | 0 |" in text
  )


def test_one_of_two_processes_judges(tmp_path):
  barrier, told = threading.Barrier(2, timeout=60), []
  tasks = judged(tmp_path)

  def ask(judging):
    return lambda messages: told.append(messages) or "8 6"

  def one(index):
    share = Share(index, 2, barrier.wait)
    memory = Memory(tmp_path / "answers", {}, share)
    fruit = model(lambda d: "A fruit.")
    return evaluate_chat(fruit, tasks, memory=memory, ask=ask)

  with futures.ThreadPoolExecutor(2) as pool:
    first, second = pool.map(one, range(2))
  assert [r.scores["all"] for r in first] == [75, 75] and len(told) == 4
  assert [r.scores for r in second] == [{}, {}]


def test_without_a_judge_answers_are_kept(tmp_path, caplog):
  coco, _ = run(tmp_path, judged(tmp_path), lambda d: "A fruit.")
  assert coco.scores == {} and coco.records[0]["raw"] == "A fruit."
  assert "nothing judges it" in caplog.text
  assert "llava_bench_coco  -" in chat_table.table([coco])


def test_tables(tmp_path):
  tasks = {"a|b": dict(source=chat_files.gqa(tmp_path), task="gqa")}
  found = run(tmp_path, tasks, lambda d: "yes", published="LLaVA-1.5-13B")
  assert chat_table.table(found).splitlines() == [
    "task  score     result  published  difference  questions  not read",
    "a|b   accuracy    50.0       63.3       -13.3          2         0",
  ]
  row = chat_table.markdown(found).splitlines()[2]
  assert row == "| a\\|b | accuracy | 50.0 | 63.3 | -13.3 | 2 | 0 |"
  json.dumps([r.summary() for r in found])


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (dict(published="LLaVA-1.5-8B"), "Did you mean 'LLaVA-1.5-7B'"),
    (dict(judge=dict(repeat=2)), "Did you mean 'repeats'"),
    (dict(tasks={}), "names no tasks"),
    (dict(tasks={"gqaa": dict(source={})}), "task 'gqaa'. Did you mean 'gqa'"),
  ],
)
def test_what_a_config_says_wrongly_is_named(tmp_path, change, said):
  settings = dict(tasks=dict(gqa=dict(source=chat_files.gqa(tmp_path))))
  with pytest.raises(ValueError, match=said):
    run(tmp_path, says=pytest.fail, **settings | change)


def test_bad_pictures_are_told_before_the_first_question(tmp_path):
  tasks = dict(gqa=dict(source=chat_files.gqa(tmp_path)))
  (tmp_path / "gqa" / "images" / "n161313.jpg").write_bytes(b"GIF89a")
  with pytest.raises(ValueError, match="1 of 1 of task 'gqa'.*repair"):
    run(tmp_path, tasks, pytest.fail)


def test_a_test_set_has_no_scores(tmp_path, caplog):
  source = chat_files.gqa(tmp_path)
  (path,) = chat_files.files(source)
  rows = json.loads(path.read_text())
  for row in list(rows.values())[:1]:
    del row["answer"]
  path.write_text(json.dumps(rows))
  with pytest.raises(ValueError, match="1 of 2 records of task 'gqa' have no"):
    run(tmp_path, dict(gqa=dict(source=source)), lambda d: "yes")
  for row in rows.values():
    row.pop("answer", None)
  path.write_text(json.dumps(rows))
  (found,) = run(tmp_path, dict(gqa=dict(source=source)), lambda d: "yes")
  assert found.scores == {} and "no answers to score" in caplog.text


def test_sampling_draws_anew_in_every_call(tmp_path):
  seeds = []

  @dataclasses.dataclass(frozen=True)
  class Draws(Says):
    def generate(self, documents):
      seeds.append(self.seed)
      return ["yes"] * len(documents)

  hot = dataclasses.replace(
    Draws(**vars(model(None))), temperature=1.0, batch_size=3
  )
  tasks = dict(pope=dict(source=chat_files.pope(tmp_path)))
  for folder in ("a", "b"):
    evaluate_chat(hot, tasks, memory=Memory(tmp_path / folder, {}))
  assert len(set(seeds)) == 4 and seeds[:4] == seeds[4:]
  assert np.all(np.array(seeds) >= 0)
