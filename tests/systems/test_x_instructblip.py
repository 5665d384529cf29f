"""Media of four kinds in one sequence, from files to answers.

tests/golden compares parts and layout with the original.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import tree
from mmjax.data import build
from mmjax.data.batching import pack, stack
from mmjax.evaluation.model import Model
from mmjax.systems import x_instructblip
from mmjax.training.checks import check_media
from tests.data import kinds as k
from tests.text.words import words

WIDTH = 16
QFORMER = dict(
  name="qformer",
  width=WIDTH,
  qformer=dict(
    features_width=8,
    width=8,
    num_layers=2,
    num_heads=2,
    num_queries=2,
    vocab_size=14,
    max_positions=8,
  ),
)
MODEL = dict(
  lm=dict(
    name="llama",
    vocab_size=14,
    width=WIDTH,
    num_layers=2,
    num_heads=2,
    hidden=24,
  ),
  encoders=dict(
    vit=dict(
      name="vit",
      image_size=8,
      patch=4,
      width=8,
      num_layers=1,
      num_heads=2,
    ),
    beats=dict(
      name="custom_beats",
      width=8,
      num_layers=1,
      num_heads=2,
      hidden=16,
      patch_width=8,
      conv_size=6,
      conv_groups=2,
      num_buckets=16,
      max_distance=20,
    ),
    shapes=dict(
      name="custom_pointbert",
      width=8,
      num_layers=1,
      num_heads=2,
      groups=4,
      group_size=4,
      group_width=8,
      projection=8,
    ),
  ),
  media=dict(
    image=dict(connector=QFORMER, encoder="vit"),
    video=dict(connector=QFORMER, encoder="vit"),
    audio=dict(connector=QFORMER, encoder="beats"),
    points=dict(
      connector=dict(
        name="pooled_projection",
        width=WIDTH,
        features_width=8,
        num_queries=2,
        inner=4,
      ),
      encoder="shapes",
    ),
  ),
)
DOCUMENTS = [
  k.document(k.sound(0.2), k.image(), question="a dog", answer="cat sits"),
  k.document(k.image(1), k.image(2), question="cat", answer="a"),
  k.document(k.video(3), k.cloud(), question="x runs a", answer="dog runs x"),
  k.document(question="a cat", answer="sits"),
]


def tokenizer():
  made = words(added=())
  made.reader = words(added=())
  return made


def make():
  """What reads documents, the system, and its parameters."""
  encoder = build.encoder(
    tokenizer(), k.PROMPT | dict(length=32, reader_length=6), media=k.MEDIA
  )
  module = x_instructblip.build(MODEL)
  batch = stack([encoder(DOCUMENTS[0])])
  shapes = jax.eval_shape(module.init, jax.random.key(0), batch)["params"]
  rng = np.random.default_rng(0)

  def draw(path, x):
    # Variances are positive; scales near 1 keep norms alive.
    around = path.endswith(("scale", "var"))
    return jnp.float32(around + 0.3 * rng.uniform(-1, 1, x.shape))

  flat = tree.flatten(nn.unbox(shapes)).items()
  params = tree.unflatten({path: draw(path, x) for path, x in flat})
  return encoder, module, params


@pytest.fixture(scope="module")
def made():
  return make()


@pytest.fixture(scope="module")
def losses(made):
  """Sums of a batch, and the gradients of all connectors; compiled once."""
  _, module, params = made
  connectors = {k: v for k, v in params.items() if k.startswith("connectors")}

  @jax.jit
  def of_batch(batch):
    def total(own):
      found = x_instructblip.loss(module, params | own, batch)
      sums = {name: value for name, (value, _) in found.items()}
      return sums["loss"], sums

    (_, sums), gradients = jax.value_and_grad(total, has_aux=True)(connectors)
    return sums, gradients

  return of_batch


def test_packed_rows_have_the_loss_of_single_documents(made, losses):
  encoder, *_ = made
  examples = [encoder(document) for document in DOCUMENTS]
  slots = {
    name: dataclasses.replace(own, count=2 * own.count)
    for name, own in encoder.slots.items()
  }
  row, dropped = pack(examples, 96, slots)
  assert not dropped and row["segments"].max() == 4
  found, _ = losses(stack([row]))
  alone, _ = losses(stack(examples))
  for key, value in alone.items():
    np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)


def test_no_row_reads_what_another_has(made, losses):
  """Nor does any frame read the instruction of another's."""
  encoder, *_ = made
  examples = [encoder(document) for document in DOCUMENTS]
  together, _ = losses(stack(examples))
  others = [losses(stack([example] * 4))[0] for example in examples]
  for key, value in together.items():
    expected = sum(float(x[key]) for x in others) / 4
    np.testing.assert_allclose(value, expected, rtol=1e-5, err_msg=key)


def test_every_medium_and_its_question_matter(made, losses):
  encoder, *_ = made
  examples = [encoder(document) for document in DOCUMENTS]
  batch = stack(examples)
  before = float(losses(batch)[0]["loss"])
  for kind, media in batch["media"].items():
    for key in ("values", "text", *(["lengths"] if kind == "audio" else ())):
      if kind == "points" and key == "text":
        continue  # A projection reads none.
      changed = media | {key: media[key][:, ::-1] // 2 + 1}
      given = batch | {"media": batch["media"] | {kind: changed}}
      assert float(losses(given)[0]["loss"]) != before, (kind, key)


def test_gradients_reach_every_connector(made, losses):
  encoder, *_ = made
  batch = stack([encoder(document) for document in DOCUMENTS])
  flat = tree.flatten(losses(batch)[1])
  silent = {path for path, g in flat.items() if not np.abs(g).max() > 0}
  # Nothing reads what the last layer makes of the text.
  assert all("text" in path for path in silent), silent


@pytest.fixture(scope="module")
def model(made):
  encoder, module, params = made
  return Model(
    module,
    params,
    encoder,
    encoder.prompt.tokenizer,
    max_new_tokens=4,
    batch_size=3,
    overflow="error",
  )


def test_answers_are_those_of_the_whole_sequence(made, model):
  """Greedy, each token from a pass over all that is before it."""
  encoder, module, params = made
  asked = [document.query() for document in DOCUMENTS]
  answers = model.generate(asked)
  logits = jax.jit(lambda b: module.apply({"params": params}, b).logits)
  for document, answer in zip(asked, answers):
    example = stack([encoder.query(document)] * 3)
    count, ids = int((example["segments"][0] > 0).sum()), []
    for at in range(count, count + 4):
      best = int(np.argmax(logits(example)[0, at - 1]))
      ids.append(best)
      example["tokens"][:, at] = best
      example["segments"][:, at] = 1
      example["positions"][:, at] = at
    assert model._said(np.array(ids)).text == answer


@pytest.mark.parametrize("end", [None, True])
def test_classes_are_ranked_by_the_sum_of_their_tokens(
  made, model, losses, end
):
  """Without their end, as LAVIS', or with it where that is asked for."""
  encoder, *_ = made
  document = DOCUMENTS[0]
  classes = ["cat sits", "dog", "a x runs"]
  own = dataclasses.replace(model, score_end=end)
  found = own.score([document.query()], classes)
  texts = [
    k.document(*document.media, question="a dog", answer=answer)
    for answer in classes
  ]
  for i, text in enumerate(texts):
    batch = stack([encoder(text)] * 4)
    if not end:
      batch["weights"] *= ~np.isin(batch["targets"], model.stops)
    expected = losses(batch)[0]["loss"] / 4
    np.testing.assert_allclose(-found.total[0, i], expected, rtol=1e-5)


def test_five_beams(model):
  asked = [document.query() for document in DOCUMENTS[:2]]
  beams = dataclasses.replace(model, num_beams=5)
  best = beams.score([asked[0]], [*beams.generate(asked)[:1], "a"])
  assert best.total.shape == (1, 2)


def test_data_and_model_have_the_same_kinds(made):
  encoder, module, _ = made
  check_media(encoder, module, "x")
  wrong = dataclasses.replace(encoder.prompt, media_tokens=3)
  with pytest.raises(ValueError, match="leaves 3 .* x.media_tokens=2"):
    check_media(dataclasses.replace(encoder, prompt=wrong), module, "x")
  media = {n: e for n, e in MODEL["media"].items() if n != "points"}
  encoders = {n: e for n, e in MODEL["encoders"].items() if n != "shapes"}
  fewer = x_instructblip.build(MODEL | dict(media=media, encoders=encoders))
  with pytest.raises(ValueError, match=r"kinds \['points'\], the model reads"):
    check_media(encoder, fewer, "x")
