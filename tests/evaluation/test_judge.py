"""Judges that say what a test lets them say."""

import dataclasses
import json
import types

import pytest

from mmjax.evaluation.judge import Judging, ask_endpoint, judge, messages, parse


@pytest.mark.parametrize(
  ("said", "expected"),
  [
    ("8 7\nBoth are right.", (8, 7)),
    ("8, 7.5\n", (8, 7.5)),
    ("10 10", (10, 10)),
    ("\n 9  8 \nwhy", (9, 8)),
    ("8/10 7/10\n", None),
    ("Assistant 1: 8\n7", None),
    ("8\n7", None),
    ("8 7 6", None),
    ("11 7", None),
    ("-1 -1", None),
    ("nan inf", None),
    ("", None),
  ],
)
def test_two_numbers_in_the_first_line(said, expected):
  assert parse(said) == expected


RECORDS = [
  dict(
    id=f"q/{i}",
    question=f"What is {i}?",
    context="A cat.\n\ncat: [0, 0, 1, 1]",
    reference="A cat.",
    prediction="A dog.",
    category=category,
  )
  for i, category in enumerate(("conv", "conv", "detail"))
]


def run(folder, ask, judging, records=RECORDS):
  path = folder / "judgings.jsonl"
  return judge(records, ask, "judge_coco.txt", judging, path)


def test_what_a_judge_is_told():
  system, user = messages(RECORDS[0], "Judge.", "Give two numbers.")
  assert system == {"role": "system", "content": "Judge."}
  assert user["role"] == "user"
  assert user["content"] == (
    "[Context]\nA cat.\n\ncat: [0, 0, 1, 1]\n\n[Question]\nWhat is 0?\n\n"
    "[Assistant 1]\nA cat.\n\n[End of Assistant 1]\n\n"
    "[Assistant 2]\nA dog.\n\n[End of Assistant 2]\n\n"
    "[System]\nGive two numbers.\n\n"
  )


def test_relative_scores_by_hand(tmp_path):
  said = iter(["8 6", "2 4", "10 5", "8 8", "2 2", "perhaps"])
  found = run(tmp_path, lambda _: next(said), Judging(repeats=2))
  # Ratios of means, of each repeat: (6 + 4) / (8 + 2), then 100.
  assert found.scores["conv"] == 100 and found.spread["conv"] == 0
  assert found.scores["detail"] == 50 and "detail" not in found.spread
  # 15 / 20 and 10 / 10.
  assert found.scores["all"] == pytest.approx((75 + 100) / 2)
  assert found.spread["all"] == pytest.approx(12.5)
  assert found.failed == 1 and found.pairs[2] == [(10, 5), None]
  assert next(iter(found.scores)) == "all"


def test_failures_are_no_minus_one(tmp_path):
  found = run(tmp_path, lambda _: "I cannot.", Judging())
  assert found.scores == found.spread == {} and found.failed == 3


def test_a_judgement_is_asked_for_once(tmp_path):
  asked = []

  def ask(said):
    if len(asked) == 2:
      raise ConnectionError("the endpoint went")
    asked.append(said)
    return "8 7\nwhy"

  with pytest.raises(ConnectionError):
    run(tmp_path, ask, Judging())
  more = []
  found = run(tmp_path, lambda said: more.append(said) or "8 7", Judging())
  assert len(more) == 1 and more[0] not in asked
  assert found.scores["all"] == 87.5
  # Another answer, judge or repeat is another question.
  changed = [RECORDS[0] | dict(prediction="A cat.")]
  for judging, records in (
    (Judging(), changed),
    (Judging(model="other"), RECORDS[:1]),
    (Judging(repeats=2), RECORDS[:1]),
  ):
    more.clear()
    run(tmp_path, lambda said: more.append(said) or "8 7", judging, records)
    assert len(more) == 1
  lines = (tmp_path / "judgings.jsonl").read_text().splitlines()
  assert json.loads(lines[0])["text"] == "8 7\nwhy" and len(lines) == 6


def test_a_rule_of_ones_own(tmp_path):
  rule = tmp_path / "rule.txt"
  rule.write_text("Only two numbers.\n")
  told = []
  run(
    tmp_path, lambda said: told.append(said) or "1 1", Judging(rule=str(rule))
  )
  assert told[0][1]["content"].endswith("[System]\nOnly two numbers.\n\n")
  with pytest.raises(ValueError, match="Cannot read what a judge is told"):
    run(tmp_path, lambda _: "", Judging(rule=str(tmp_path / "none.txt")))
  with pytest.raises(ValueError, match="repeats is 0"):
    Judging(repeats=0)


def test_an_endpoint_is_asked_as_the_config_says():
  calls = []

  def complete(messages, **fields):
    calls.append((messages, fields))
    return types.SimpleNamespace(text="8 7")

  judging = Judging(model="m", temperature=0.5, max_tokens=9)
  ask = ask_endpoint(types.SimpleNamespace(complete=complete), judging)
  assert ask([dict(role="user", content="a")]) == "8 7"
  (((_, fields)),) = calls
  known = dataclasses.asdict(judging)
  assert fields == {k: known[k] for k in ("model", "temperature", "max_tokens")}
