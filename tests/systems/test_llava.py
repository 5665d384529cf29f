"""LLaVA says the same however its conversations are laid out."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from mmjax.systems import llava
from tests.systems import conversations as c

# Of 12, 14, 5 and 10 places; three pictures at most.
ONE, TWO = (3, 9, -1, 7, -2, 8), (-3, 5, 6, -1, 11, 12, 13, 14)
TEXT, LAST = (5, 6, 11, 12, 13), (4, 2, 17, 18, 19, -2)
ROWS = [[ONE], [TWO], [TEXT], [LAST]]


def of_places(batch, number=1):
  """Whether a place is of its row's conversation `number`."""
  return np.asarray(batch["segments"]) == number


@pytest.fixture(scope="module")
def expected():
  """Logits of each conversation alone in its row."""
  _, params, logits = c.model()
  batch = c.batch(ROWS)
  out = np.asarray(logits(params, batch))
  return [x[real] for x, real in zip(out, of_places(batch))]


def carrying(what, batch):
  """A model for batches that bring keys or features, and such a batch."""
  if what == "values":
    return llava.build(c.MODEL), batch
  image = dict(batch["media"]["image"])
  values = image.pop("values")
  if what == "keys":
    table = dict(name="features", size=9, tokens=c.Q, width=8)
    image["keys"] = np.full(values.shape[:2], -1)
    module = llava.build(c.MODEL | dict(encoder=table))
  else:
    image["features"] = np.zeros((*values.shape[:3], c.Q, 8), np.float32)
    module = llava.build(c.MODEL | dict(encoder=None))
  return module, batch | dict(media=dict(image=image))


def same(found, expected, atol=1e-4):
  np.testing.assert_allclose(found, expected, atol=atol, rtol=0)


def test_padding_changes_nothing(expected):
  _, params, logits = c.model()
  batch = c.batch(ROWS, left=True)
  out = np.asarray(logits(params, batch))
  real = of_places(batch)
  for row, (x, own) in enumerate(zip(out, real)):
    same(x[own], expected[row])
  batch["tokens"][~real] = 33
  batch["targets"][~real] = 21
  again = np.asarray(logits(params, batch))
  np.testing.assert_array_equal(again[real], out[real])


def test_slots_that_no_picture_is_in_are_not_read(expected):
  _, params, logits = c.model()
  batch = c.batch(ROWS)
  image = batch["media"]["image"]
  image["values"][~image["mask"]] = 77
  out = np.asarray(logits(params, batch))
  for row, own in enumerate(of_places(batch)):
    np.testing.assert_array_equal(out[row][own], expected[row])


def test_pictures_are_those_of_their_row(expected):
  """Rows without any stand between them, in any order."""
  _, params, logits = c.model()
  for order in ([2, 0, 3, 1], [3, 2, 1, 0]):
    batch = c.batch([ROWS[i] for i in order])
    out = np.asarray(logits(params, batch))
    for i, x, own in zip(order, out, of_places(batch)):
      same(x[own], expected[i])


PACKED = [[ONE, LAST], [TEXT, TWO], [TEXT, TEXT], []]


def test_packed_rows_are_the_conversations_alone(expected):
  _, params, logits = c.model()
  batch = c.batch(PACKED)
  assert batch["media"]["image"]["index"].max() == 3
  out = np.asarray(logits(params, batch))
  where = {ONE: 0, TWO: 1, TEXT: 2, LAST: 3}
  for r, row in enumerate(PACKED):
    for number, conversation in enumerate(row, 1):
      own = of_places(batch, number)[r]
      same(out[r][own], expected[where[conversation]])


def test_packed_rows_have_the_loss_of_the_conversations_alone():
  module, params, _ = c.model()
  loss = jax.jit(lambda p, b: llava.loss(module, p, b))
  alone = loss(params, c.batch(ROWS))
  packed = loss(params, c.batch([[TEXT, TWO], [ONE, LAST], [], []]))
  for name, (total, count) in alone.items():
    assert packed[name][1] == count > 10
    np.testing.assert_allclose(packed[name][0], total, rtol=1e-5)


def test_pictures_of_one_conversation_do_not_reach_another():
  _, params, logits = c.model()
  batch = c.batch(PACKED)
  before = np.asarray(logits(params, batch))
  batch["media"]["image"]["values"][0, :2] ^= 255  # Those of ONE.
  after = np.asarray(logits(params, batch))
  moved = np.abs(after - before).max(axis=-1) > 1e-5
  # From the first picture on, and in its own conversation alone.
  assert moved[0, 2:12].all()
  moved[0, 2:12] = False
  assert not moved.any()


def test_the_order_of_pictures_matters(expected):
  _, params, logits = c.model()
  swapped = [3, 9, -2, 7, -1, 8]
  batch = c.batch([[swapped], [TWO], [TEXT], [LAST]])
  out = np.asarray(logits(params, batch))
  assert np.abs(out[0, 11] - expected[0][-1]).max() > 1e-2
  same(out[0, :2], expected[0][:2])


def test_a_row_without_room_for_pictures_is_text(expected):
  _, params, logits = c.model()
  batch = c.batch([[TEXT]] * 4)
  without = {k: v for k, v in batch.items() if k != "media"}
  none = c.batch([[TEXT]] * 4, media=0)
  more = c.batch([[(*TEXT, *LAST[:5])]] * 4)
  assert none["media"]["image"]["values"].shape[1] == 0
  for given in (without, none, more):
    out = np.asarray(logits(params, given))
    same(out[:, : len(TEXT)], np.stack([expected[2]] * 4))


@pytest.mark.parametrize("carried", ["values", "keys", "features"])
def test_a_model_has_all_its_parts_whatever_it_is_first_shown(carried):
  """A mixture may begin with a dataset of text."""
  shapes = []
  for media in (0, c.MEDIA):
    batch = c.batch([[TEXT]] * 2, media=media)
    module, given = carrying(carried, batch)
    like = jax.eval_shape(module.init, jax.random.key(0), given)["params"]
    shapes.append(jax.tree.map(lambda x: x.shape, nn.unbox(like)))
  assert shapes[0] == shapes[1]
  assert ("encoder" in shapes[0]) == (carried != "features")
  assert {"connector", "lm"} <= shapes[0].keys()


@pytest.mark.parametrize("tokens", [3, 5])
def test_another_number_of_places_than_tokens_is_no_number(tokens):
  _, params, logits = c.model()
  batch = c.batch([[(-1, 3, 4)]] * 4, tokens=tokens)
  out = np.asarray(logits(params, batch))
  assert np.isnan(out[:, tokens]).all()
