"""Tasks whose answer is the likeliest of a record's choices."""

import dataclasses
import json

import numpy as np
import pytest

from mmjax.evaluation.answers import Likelihoods
from mmjax.evaluation.chat import benchmark, evaluate_chat
from mmjax.evaluation.ledger import Memory
from mmjax.evaluation.model import Model
from tests.evaluation import chat_files
from tests.evaluation.test_chat import model

THINGS = ("apple", "pear", "dog")


@dataclasses.dataclass(frozen=True)
class Ranks(Model):
  """A model that finds one text the likeliest."""

  likes: str = ""
  asked: list = dataclasses.field(default_factory=list)

  def score(self, documents, answers):
    self.asked.append((self, [d.text for d in documents], list(answers)))
    row = [-1.0 - (answer != self.likes) for answer in answers]
    total = np.array([row] * len(documents))
    return Likelihoods(total, total)


def ranks(likes):
  plain = model(None)
  fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(Model)}
  return Ranks(**fields, likes=likes)


def source(folder):
  """SNLI-VE's form, of which gold labels may be anything."""
  rows = []
  for thing in THINGS:
    chat_files.picture(folder / "pictures" / f"{thing}.jpg", thing)
    said = dict(sentence2=f"Is it a {thing}?", gold_label=thing)
    rows.append(dict(Flickr30K_ID=thing, **said))
  path = folder / "rows.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  media = dict(image=str(folder / "pictures"))
  return dict(
    name="published", data="snli_ve", annotations=str(path), media=media
  )


def ask(folder, own, **task):
  task = dict(task="classes", source=source(folder), ask="{question}") | task
  memory = Memory(folder / "answers", {})
  (found,) = evaluate_chat(own, dict(mine=task), memory=memory)
  return found


def test_the_likeliest_choice_is_the_answer(tmp_path):
  own = ranks(" a pear.")
  found = ask(tmp_path, own, candidate="a {answer}.")
  assert {r["prediction"] for r in found.records} == {"pear"}
  assert found.scores == {"accuracy": pytest.approx(100 / 3)}
  # As templates join an answer to a question.
  answers = [f" a {thing}." for thing in sorted(THINGS)]
  assert [asked for *_, asked in own.asked] == [answers] * 2
  texts = [text for _, batch, _ in own.asked for text in batch]
  assert sorted(texts) == sorted(f"Is it a {thing}?" for thing in THINGS)


def test_answers_are_kept_by_what_they_depend_on(tmp_path):
  own = ranks(" a pear.")
  ask(tmp_path, own, candidate="a {answer}.")
  count = len(own.asked)
  ask(tmp_path, own, candidate="a {answer}.")
  assert len(own.asked) == count
  # Another way to write them, and other choices, are other questions.
  found = ask(tmp_path, own, candidate="{answer}")
  assert len(own.asked) > count
  assert {r["prediction"] for r in found.records} == {"apple"}
  count = len(own.asked)
  where = source(tmp_path) | dict(where=dict(gold_label="pear"))
  ask(tmp_path, own, source=where, candidate="a {answer}.")
  assert len(own.asked) > count
  count = len(own.asked)
  for changes in (
    dict(model=dict(score_end=False)),
    dict(prompt=dict(length=80)),
    dict(media=dict(image=dict(fps=2.0))),
  ):
    ask(tmp_path, own, candidate="a {answer}.", **changes)
    assert len(own.asked) > count, changes
    count = len(own.asked)


def test_a_task_changes_the_model_for_itself(tmp_path):
  own = ranks(" a pear.")
  ask(
    tmp_path,
    own,
    model=dict(num_beams=3, length_penalty=-1.0),
    prompt=dict(length=80),
    media=dict(image=dict(fps=2.0)),
  )
  used, *_ = own.asked[0]
  assert (used.num_beams, used.length_penalty) == (3, -1)
  assert used.encoder.prompt.length == 80
  assert used.encoder.readers["image"].fps == 2
  assert own.encoder.prompt.length == 64 and own.num_beams == 1


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(model=dict(num_beam=3)), "setting of a task's model 'num_beam'.*Did"),
    (dict(model=dict(module=3)), "setting of a task's model 'module'"),
    (dict(model=dict(num_beams="3")), "'num_beams' is '3', expected int"),
    (dict(model=dict(num_beams=0)), "num_beams is 0"),
    (dict(prompt=dict(lenght=80)), "no 'lenght'. Did you mean 'length'"),
    (dict(media=dict(sound=dict())), "Unknown kind of medium 'sound'"),
    (dict(media=dict(image=dict(frame=2))), "no 'frame'. Did you mean"),
    (dict(candidate="a sound"), "candidate is 'a sound'; expected a text"),
    (dict(candidate="a {}"), "candidate is 'a {}'; expected a text with {ans"),
  ],
)
def test_wrong_changes_are_named_before_anything_is_read(
  tmp_path, changes, said
):
  given = source(tmp_path)
  for path in (tmp_path / "pictures").iterdir():
    path.write_bytes(b"no picture")
  with pytest.raises(ValueError, match=said):
    ask(tmp_path, ranks(""), source=given, **changes)


def test_records_without_choices_cannot_be_ranked(tmp_path):
  given = chat_files.gqa(tmp_path)
  with pytest.raises(ValueError, match="has choices"):
    ask(tmp_path, ranks(""), source=given)
  each = benchmark(given, task="classes", name="mine")
  assert each.about["choices"] == [()]
