"""Official files of tasks, asked of a model by a config."""

import dataclasses
import json

import numpy as np
import pytest

from mmjax.data.batching import stack
from mmjax.data.build import encoder
from mmjax.data.document import BadSample, Document, Text
from mmjax.data.tasks import Vqa
from mmjax.evaluation import in_context
from mmjax.evaluation.ledger import Memory
from mmjax.evaluation.model import Model
from mmjax.evaluation.paper_tasks import benchmark, evaluate_tasks
from mmjax.evaluation.support import cosine
from mmjax.evaluation.tasks import TASKS
from mmjax.text.tokenizer import drawn
from tests.data.pictures import encode, photo
from tests.systems.documents import SIDE, drawn_model


def write(folder, name, count, first=0):
  """VQAv2's two files with one picture a question."""
  questions, annotations = [], []
  for i in range(first, first + count):
    (folder / f"{i}.png").write_bytes(encode(photo(SIDE, SIDE, seed=i)))
    questions.append(
      dict(question_id=i, image_id=i, question=("red?", "a dog?")[i % 2])
    )
    answers = [dict(answer=("cat", "dog", "red")[i % 3])] * 10
    annotations.append(dict(question_id=i, answers=answers))
  paths = {}
  for key, rows in (("questions", questions), ("annotations", annotations)):
    path = folder / f"{name}_{key}.json"
    path.write_text(json.dumps({key: rows}))
    paths[key] = str(path)
  return dict(name="vqa", images=str(folder), file="{image_id}.png", **paths)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("vqa")
  return dict(
    queries=write(folder, "val", 4), support=write(folder, "train", 5, 2)
  )


@pytest.fixture(scope="module")
def model(files):
  tokenizer = drawn()
  read = encoder(
    tokenizer,
    dict(name="flamingo", length=64, media=2),
    transforms=(dict(name="square", size=SIDE),),
  )
  queries = _documents(files["queries"])
  module, params = drawn_model(stack([read.query(d) for d in queries]))
  return Model(module, params, read, tokenizer, batch_size=2)


def _documents(source):
  return list(Vqa(**{k: v for k, v in source.items() if k != "name"}))


def test_a_config_gives_what_the_call_gives(files, model):
  protocol = dict(shots=[0, 1], seeds=[3])
  told = []
  found = evaluate_tasks(
    model,
    {"vqav2": files},
    protocol=protocol,
    controls=["none", "no_query"],
    progress=lambda *counts: told.append(counts),
  )
  cells = [(r.task, r.shots, r.control) for r in found]
  kinds = ("none", "no_query")
  assert cells == [("vqav2", s, c) for s in (0, 1) for c in kinds]
  assert told[-1] == (16, 16)
  expected = in_context.evaluate(
    TASKS["vqav2"],
    _documents(files["queries"]),
    _documents(files["support"]),
    name="vqav2",
    protocol=in_context.Protocol(**protocol),
    # A task says how long its answers may get.
    generate=Model(
      **{f: getattr(model, f) for f in ("module", "params", "tokenizer")},
      encoder=model.encoder,
      max_new_tokens=TASKS["vqav2"].max_new_tokens,
      batch_size=2,
    ).generate,
  )
  ours = [r for r in found if r.control == "none"]
  for one, other in zip(ours, expected, strict=True):
    assert one.score == other.score
    assert one.records == other.records


@pytest.mark.parametrize("style", ["flamingo", "open_flamingo"])
def test_a_style_says_whether_the_end_of_an_answer_counts(
  model, tmp_path, style
):
  rows = []
  for i in range(4):
    (tmp_path / f"{i}.png").write_bytes(encode(photo(SIDE, SIDE, seed=i)))
    rows.append(dict(id=i, img=f"{i}.png", text="dog", label=i % 2))
  path = tmp_path / "dev.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  source = dict(
    name="hateful_memes", annotations=str(path), images=str(tmp_path)
  )
  (result,) = evaluate_tasks(
    model,
    {"hateful_memes": dict(queries=source, support=source)},
    protocol=dict(style=style, shots=[0]),
  )
  own = dataclasses.replace(model, score_end=style == "flamingo")
  space = " " if style == "flamingo" else ""
  found = own.score(result.prompts, [f"{space}no", f"{space}yes"])
  rows = found.total if style == "flamingo" else found.mean
  np.testing.assert_allclose([r["scores"] for r in result.records], rows)


def test_features_are_means_of_the_first_picture(files, model):
  documents = _documents(files["queries"])[:3]
  found = model.features(documents)
  pixels = np.stack([photo(SIDE, SIDE, seed=i) for i in range(3)])
  grid = model.module.apply(
    {"params": model.params}, pixels[:, None, None], method="encode"
  )
  expected = np.asarray(grid).mean(axis=(1, 2, 3))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match="'alone'.* have no media"):
    model.features([Document((Text("a"),), "alone")])


def test_rices_shows_what_looks_alike(files, model):
  (result,) = evaluate_tasks(
    model,
    {"mine": files | {"task": "vqav2", "count": 3}},
    protocol=dict(shots=[2], selection="rices"),
  )
  chosen = benchmark(**files, name="vqav2", count=3).queries
  support = _documents(files["support"])
  likeness = cosine(model.features(chosen), model.features(support))
  assert result.task == "mine" and len(result.records) == 3
  for row, record in zip(likeness, result.records):
    best = [support[i].id for i in np.argsort(row)[-2:]]
    assert record["support"] == best


def test_splits_have_ids_of_their_own(files):
  queries, support = (_documents(files[k]) for k in ("queries", "support"))
  assert queries[0].id == "vqa/val_questions/0"
  assert not {d.id for d in queries} & {d.id for d in support}


def test_a_count_is_drawn_once(files):
  some = benchmark(**files, name="vqav2", count=2)
  again = benchmark(**files, name="vqav2", count=2)
  ids = [d.id for d in some.queries]
  assert ids == [d.id for d in again.queries] and len(set(ids)) == 2
  assert len(some.support) == 5
  for wrong in (0, -1):
    with pytest.raises(ValueError, match=f"'vqav2' asks {wrong} queries"):
      benchmark(**files, name="vqav2", count=wrong)
  assert benchmark(**files, task="coco", max_new_tokens=7).task.metric == (
    "cider"
  )


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (dict(tasks={}), "names no tasks"),
    (dict(tasks={"vqav": {}}), "needs 'queries', 'support'"),
    (dict(controls=["nothing"]), "control"),
    (dict(protocol=dict(shot=[1])), "'shots'"),
  ],
)
def test_what_a_config_says_wrongly_is_named(files, model, change, said):
  settings = dict(tasks={"vqav2": files}) | change
  with pytest.raises(ValueError, match=said):
    evaluate_tasks(model, **settings)


def test_a_task_that_is_not_known_is_named(files, model):
  with pytest.raises(ValueError, match="vqav2"):
    evaluate_tasks(model, {"vqav": files})


@pytest.fixture
def damaged(tmp_path):
  """Two tasks; a query of one and an example of the other are damaged."""
  tasks = {}
  for name in ("vqav2", "okvqa"):
    folder = tmp_path / name
    folder.mkdir()
    queries, support = write(folder, "val", 3), write(folder, "train", 3, 3)
    tasks[name] = dict(queries=queries, support=support, task="vqav2")
  (tmp_path / "vqav2" / "1.png").write_bytes(b"")
  (tmp_path / "okvqa" / "4.png").unlink()
  return tasks


class Silent(Model):
  """Fails the test when it is asked anything."""

  def generate(self, documents):
    raise AssertionError("asked")

  features = generate


def test_answers_that_are_known_are_not_asked_for(model, files, tmp_path):
  settings = dict(protocol=dict(shots=[1]), controls=["none", "no_query"])
  straight = evaluate_tasks(model, {"vqav2": files}, **settings)
  keep = Memory(tmp_path, {}).generate
  first = evaluate_tasks(model, {"vqav2": files}, remember=keep, **settings)
  keep, silent = Memory(tmp_path, {}).generate, Silent(**vars(model))
  again = evaluate_tasks(silent, {"vqav2": files}, remember=keep, **settings)
  for each in (first, again):
    assert [r.records for r in each] == [r.records for r in straight]


@pytest.mark.parametrize("selection", ["random", "rices"])
def test_bad_pictures_are_told_before_the_first_question(
  model, damaged, selection, caplog
):
  silent = Silent(**vars(model))
  with pytest.raises(ValueError, match="Nothing was evaluated") as error:
    evaluate_tasks(
      silent, damaged, protocol=dict(shots=[0, 2], selection=selection)
    )
  said = str(error.value)
  assert "1 of 6 of task 'vqav2' (vqa/val_questions/1:1.png has 0 byt" in said
  assert "1 of 6 of task 'okvqa' (Cannot read " in said
  assert "okvqa/4.png: No such file" in said and "repair the files" in said
  for name in ("1.png", "4.png"):
    assert caplog.text.count(name) == 1


def test_pictures_that_are_never_shown_are_not_read(model, damaged):
  tasks = {"okvqa": damaged["okvqa"]}
  (result,) = evaluate_tasks(model, tasks, protocol=dict(shots=[0]))
  assert len(result.records) == 3


def test_what_is_needed_is_what_prompts_show(files):
  each = benchmark(**files, name="vqav2")
  for shots in ([0], [0, 1], [2], [4]):
    protocol = in_context.Protocol(shots=shots, seeds=[0, 7], pool=5)
    seen = set()
    in_context.evaluate(
      *(each.task, each.queries, each.support),
      protocol=protocol,
      generate=lambda documents: [
        seen.update(m.payload.path for d in documents for m in d.media)
        or ["cat"] * len(documents)
      ][0],
    )
    found = in_context.needed(each.task, each.queries, each.support, protocol)
    assert seen == {m.payload.path for d in found for m in d.media}


def test_a_picture_that_leads_out_names_its_task(model, damaged):
  source = damaged["okvqa"]["support"]
  source["file"] = "../{image_id}.png"
  with pytest.raises(ValueError, match=r"Task 'okvqa': '\.\./3\.png'.*repair"):
    evaluate_tasks(model, damaged)


def test_a_picture_that_goes_in_the_meantime_names_its_task(model, damaged):
  def lose(self, documents):
    raise BadSample("a.png ends.")

  lost = type("Lost", (Model,), {"generate": lose})(**vars(model))
  del damaged["vqav2"]
  with pytest.raises(ValueError, match="Task 'okvqa': a.png ends. .*repair"):
    evaluate_tasks(lost, damaged, protocol=dict(shots=[0]))
