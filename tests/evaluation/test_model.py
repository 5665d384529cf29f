"""A system's answers and likelihoods, against all of it in one pass."""

import dataclasses
import json
import time

import jax
import numpy as np
import pytest
import tokenizers
from jax.sharding import PartitionSpec as P
from tokenizers import models, pre_tokenizers

from mmjax.data.batching import stack
from mmjax.data.build import encoder
from mmjax.data.document import Document, Media, Text
from mmjax.data.encoder import Encoder
from mmjax.data.tasks import Vqa
from mmjax.evaluation import in_context, tasks, vqa
from mmjax.evaluation.model import Model
from mmjax.losses.token import cross_entropy
from mmjax.sharding import make_mesh
from mmjax.text.tokenizer import Tokenizer
from tests import eight_devices
from tests.data.pictures import encode, photo
from tests.systems.documents import LM, SIDE, drawn_model

PIECES = ("<unk>", "\n", "▁", "▁Answer", ":", "▁cat", "cat", "▁red", "▁dog")


def pieces() -> Tokenizer:
  """As LLaMA's: a text gets a space before it unless it goes on."""
  backend = tokenizers.Tokenizer(
    models.Unigram([(p, -1.0 - i / 100) for i, p in enumerate(PIECES)], 0)
  )
  backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
  backend.decoder = tokenizers.decoders.Metaspace(prepend_scheme="always")
  return Tokenizer(backend, added=("<EOC>", "<image>"))


def ask(*parts, name="") -> Document:
  media = {i: Media("image", photo(SIDE, SIDE, seed=i)) for i in range(9)}
  return Document(tuple(media.get(p) or Text(p) for p in parts), id=name)


DOCUMENTS = [
  ask(0, "Answer:", name="a"),
  ask(1, "Answer: cat", 2, "Answer:", name="b"),
  ask(3, "Answer: red", name="c"),
]
ANSWERS = (" cat", "cat", " red dog")


@pytest.fixture(scope="module")
def model():
  return make_model()


def make_model() -> Model:
  tokenizer = pieces()
  read = encoder(
    tokenizer,
    dict(name="flamingo", length=32, media=2, image_as_text=False),
    transforms=(dict(name="square", size=SIDE),),
  )
  lm = LM | dict(vocab_size=tokenizer.vocab_size, num_layers=1)
  batch = stack([read.query(d) for d in DOCUMENTS])
  module, params = drawn_model(batch, lm=lm)
  return Model(module, params, read, tokenizer, max_new_tokens=4, batch_size=2)


@pytest.mark.parametrize("end", [True, False])
def test_likelihoods_are_those_of_the_documents_of_training(model, end):
  """The same ids as in training: ` cat` goes on from its question."""
  apply = jax.jit(lambda batch: model.module.apply({"params": params}, batch))
  params, expected, counts = model.params, {}, {}
  for document in DOCUMENTS:
    for answer in ANSWERS:
      said = (*document.segments, Text(answer, target=True))
      whole = dataclasses.replace(document, segments=said)
      batch = stack([model.encoder(whole)])
      if not end:
        batch["weights"] *= batch["targets"] != model.tokenizer.id("<EOC>")
      total, count = cross_entropy(
        apply(batch).logits, batch["targets"], batch["weights"]
      )
      expected[document.id, answer] = -float(total)
      counts[answer] = float(count)
  found = dataclasses.replace(model, score_end=end).score(DOCUMENTS, ANSWERS)
  assert counts == {" cat": 1 + end, "cat": 1 + end, " red dog": 2 + end}
  for i, document in enumerate(DOCUMENTS):
    for j, answer in enumerate(ANSWERS):
      wanted = expected[document.id, answer]
      np.testing.assert_allclose(found.total[i, j], wanted, rtol=1e-4)
      mean = wanted / counts[answer]
      np.testing.assert_allclose(found.mean[i, j], mean, rtol=1e-4)


def test_an_answer_without_a_token(model):
  model.score(DOCUMENTS, ("", " cat"))  # its end
  with pytest.raises(ValueError, match="has no token"):
    dataclasses.replace(model, score_end=False).score(DOCUMENTS, ("", " cat"))


def test_documents_after_which_answers_differ(model):
  with pytest.raises(ValueError, match="Score them apart"):
    model.score([*DOCUMENTS, ask("Answer:", 0)], ANSWERS)


def test_one_answer_a_document_whatever_the_batch(model):
  found = model.generate(DOCUMENTS)
  assert len(found) == 3 and all("<EOC>" not in text for text in found)
  for number, document in enumerate(DOCUMENTS):
    assert model.generate([document]) == [found[number]]


def test_the_next_batch_is_read_before_this_one_is_done(model, monkeypatch):
  read, known = [], Encoder.query

  def query(self, document, *rest):
    read.append(document.id)
    return known(self, document, *rest)

  monkeypatch.setattr(Encoder, "query", query)
  batches = model._batches([*DOCUMENTS, *DOCUMENTS])
  for asked in (4, 6, 6):
    _, count = next(batches)
    deadline = time.monotonic() + 60
    while len(read) < asked and time.monotonic() < deadline:
      time.sleep(0.01)
    assert count == 2 and len(read) == asked
  assert not [*batches]


def test_what_is_too_long_is_told_or_an_error(model, caplog):
  documents = [*DOCUMENTS, ask(*range(3), "Answer:", name="long")]
  strict = dataclasses.replace(model, overflow="error")
  with pytest.raises(ValueError, match="'long' has .* 3 media; 32 and 2 fit"):
    strict.generate(documents)
  with pytest.raises(ValueError, match="overflow is 'right'"):
    dataclasses.replace(model, overflow="right")
  found = model.generate(documents)
  assert "1 of 4 documents did not fit 32 tokens and 2 media" in caplog.text
  assert "'long'" in caplog.text
  assert found[3:] == model.generate([ask(1, 2, "Answer:")])


def test_annotations_to_scores(model, tmp_path):
  """VQAv2's files, support examples, a real model, the official score."""
  for i in range(3):
    (tmp_path / f"{i}.png").write_bytes(encode(photo(seed=i)))
  questions = [
    dict(question_id=i, image_id=i, question="cat red") for i in range(3)
  ]
  answers = [
    dict(question_id=i, answers=[dict(answer=a) for a in ["cat"] * 9 + ["dog"]])
    for i in range(3)
  ]
  for name, rows in (("questions", questions), ("annotations", answers)):
    (tmp_path / f"{name}.json").write_text(json.dumps({name: rows}))
  records = Vqa(
    str(tmp_path / "questions.json"),
    str(tmp_path),
    str(tmp_path / "annotations.json"),
    file="{image_id}.png",
  )
  documents = [records[i] for i in range(len(records))]
  task = tasks.TASKS["vqav2"]
  (result,) = in_context.evaluate(
    task,
    documents[:2],
    documents,
    generate=model.generate,
    protocol=in_context.Protocol(shots=(1,)),
  )
  said = model.generate(result.prompts)
  assert [r["raw"] for r in result.records] == said
  each = [vqa.accuracy(r["prediction"], r["answers"]) for r in result.records]
  assert result.score == pytest.approx(100 * np.mean(each))
  for prompt, record in zip(result.prompts, result.records):
    assert len(prompt.media) == 2 and record["id"] not in record["support"]


def check_mesh():
  """Of a process with eight devices: the same answers as from one of them."""
  alone = make_model()
  mesh = make_mesh({"data": 4, "fsdp": -1})
  params = jax.device_put(alone.params, jax.NamedSharding(mesh, P()))
  cut = dataclasses.replace(alone, params=params, mesh=mesh)
  # Two rows are not cut over eight devices: eight are.
  assert (alone.rows, cut.rows) == (2, 8)
  beams = [dataclasses.replace(m, num_beams=2) for m in (alone, cut)]
  said = [m.generate(DOCUMENTS) for m in beams]
  assert said[0] == said[1]
  scores = [m.score(DOCUMENTS, ANSWERS).total for m in (alone, cut)]
  np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5)
  features = [m.features(DOCUMENTS) for m in (alone, cut)]
  np.testing.assert_allclose(features[1], features[0], rtol=1e-4, atol=1e-6)


@pytest.mark.heavy
def test_devices_share_the_rows_of_a_batch():
  eight_devices.run(
    "from tests.evaluation import test_model\ntest_model.check_mesh()"
  )
