"""Decoding against what the whole model says in one pass."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.generation import sample
from mmjax.generation.beam import beam_search
from mmjax.generation.sample import Sampling, choose, generate
from mmjax.generation.score import score_answers
from mmjax.systems.flamingo import build

VOCAB, STOP, PAD = 7, 5, 0
CONFIG = dict(
  lm=dict(
    name="llama",
    vocab_size=VOCAB,
    width=16,
    num_layers=2,
    num_heads=2,
    hidden=16,
  ),
  resampler=dict(
    name="perceiver", width=8, depth=1, num_heads=2, head_dim=4, num_latents=2
  ),
  xattn=dict(every=1, hidden=16),
)


def make_batch(rows, width, left=False):
  """Rows of (tokens, index of the medium of each) padded to a width."""
  tokens = np.zeros((len(rows), width), np.int32)
  index, segments = np.zeros_like(tokens), np.zeros_like(tokens)
  for b, (ids, seen) in enumerate(rows):
    at = slice(width - len(ids), width) if left else slice(0, len(ids))
    tokens[b, at], index[b, at], segments[b, at] = ids, seen, 1
  features = np.random.RandomState(0).randn(len(rows), 2, 1, 3, 8)
  positions = np.maximum(np.cumsum(segments, 1) - 1, 0)
  media = dict(
    features=jnp.asarray(features, jnp.float32),
    mask=jnp.ones((len(rows), 2, 1), bool),
    index=jnp.asarray(index),
  )
  return dict(
    tokens=jnp.asarray(tokens),
    positions=jnp.asarray(positions),
    segments=jnp.asarray(segments),
    media=dict(image=media),
  )


ROWS = [([1, 2, 3, 4, 2], [0, 1, 1, 2, 2]), ([3, 1, 6], [1, 1, 1])]


@pytest.fixture(scope="module")
def model():
  module = build(CONFIG)
  batch = make_batch(ROWS, 5)
  params = nn.unbox(module.init(jax.random.key(0), batch))["params"]
  # Sharper than at first, with open gates, so that media and order matter.
  params = jax.tree.map(lambda x: x * 2.0, params)
  for gate in ("attention_gate", "mlp_gate"):
    params["blocks"][gate] += 0.8
  return module, params


@pytest.fixture(scope="module")
def log_probs(model):
  """(row, new tokens) -> log-probability of each next token."""
  module, params = model
  width = 10
  apply = jax.jit(lambda batch: module.apply({"params": params}, batch).logits)

  def ask(row, new=()):
    ids, seen = ROWS[row]
    rows = list(ROWS)
    rows[row] = (ids + list(new), seen + [seen[-1]] * len(new))
    logits = apply(make_batch(rows, width))[row, len(ids) + len(new) - 1]
    return np.asarray(jax.nn.log_softmax(logits))

  return ask


def greedy(log_probs, row, length):
  new = []
  while len(new) < length and (not new or new[-1] != STOP):
    new.append(int(log_probs(row, new).argmax()))
  return new


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("width", [5, 8])
def test_greedy_is_the_best_token_of_the_whole_model(
  model, log_probs, left, width
):
  batch = make_batch(ROWS, width, left)
  out = generate(*model, batch, Sampling(4, stop=(STOP,), pad=PAD))
  for row in range(2):
    expected = greedy(log_probs, row, 4)
    count = int(out.mask[row].sum())
    assert out.tokens[row, :count].tolist() == expected
    assert (out.tokens[row, count:] == PAD).all()
    each = [log_probs(row, expected[:i])[t] for i, t in enumerate(expected)]
    np.testing.assert_allclose(out.log_probs[row, :count], each, atol=1e-5)


def test_rows_end_with_their_stop_id(model, log_probs):
  free = []
  for row in range(2):
    free.append([])
    for _ in range(4):
      free[row].append(int(log_probs(row, free[row]).argmax()))
  stop = free[0][1]
  out = generate(
    *model, make_batch(ROWS, 5), Sampling(4, stop=(stop,), pad=PAD)
  )
  for row, new in enumerate(free):
    count = new.index(stop) + 1 if stop in new else 4
    assert out.tokens[row].tolist() == new[:count] + [PAD] * (4 - count)
    assert out.mask[row].tolist() == [True] * count + [False] * (4 - count)
    assert (out.log_probs[row, count:] == 0).all()
  assert not out.mask[0].all()


def test_beams_as_wide_as_the_tree_find_the_best_sequence(model, log_probs):
  length = 2
  beams = beam_search(
    *model,
    make_batch(ROWS, 5),
    max_new_tokens=length,
    num_beams=VOCAB,
    stop=STOP,
    length_penalty=0.0,
    pad=PAD,
  )
  for row in range(2):
    first = log_probs(row)
    scores = {(STOP,): first[STOP]}
    for a in set(range(VOCAB)) - {STOP}:
      second = log_probs(row, [a])
      scores |= {(a, b): first[a] + second[b] for b in range(VOCAB)}
    best = max(scores, key=scores.get)
    found = beams.tokens[row, 0].tolist()
    assert tuple(found[: len(best)]) == best
    np.testing.assert_allclose(beams.scores[row, 0], scores[best], atol=1e-5)


def test_one_beam_is_greedy(model, log_probs):
  beams = beam_search(
    *model, make_batch(ROWS, 5), max_new_tokens=3, num_beams=1, stop=-1
  )
  for row in range(2):
    new = []
    for _ in range(3):
      new.append(int(log_probs(row, new).argmax()))
    assert beams.tokens[row, 0].tolist() == new


@pytest.mark.parametrize("left", [False, True])
def test_scores_of_answers_are_sums_of_the_whole_model(model, log_probs, left):
  answers = [[1, 2, 3], [4], [6, 5]]
  table = np.zeros((3, 3), np.int32)
  for row, answer in zip(table, answers):
    row[: len(answer)] = answer
  lengths = np.array([3, 1, 2])
  got = score_answers(*model, make_batch(ROWS, 7, left), table, lengths)
  for row, (number, answer) in itertools.product(range(2), enumerate(answers)):
    expected = sum(
      log_probs(row, answer[:i])[token] for i, token in enumerate(answer)
    )
    np.testing.assert_allclose(got[row, number], expected, atol=1e-5)


def test_a_new_image_may_come_in_a_conversation(model):
  module, params = model
  # The second turn begins with text, which sees the picture of the first.
  whole = make_batch([([1, 2, 3, 4, 2, 6], [1, 1, 1, 1, 2, 2])], 6)
  expected = module.apply({"params": params}, whole).logits

  def turn(start, stop, number, index):
    part = {k: v[:, start:stop] for k, v in whole.items() if k != "media"}
    whose = jnp.array([index], jnp.int32)
    return medium(part | {"media": whole["media"]}, number, whose)

  state = sample.apply(module, params, "start", 1, 8, 3)
  _, state = sample.apply(
    module, params, "prefill", turn(0, 3, 0, [1, 1, 1]), state
  )
  second = turn(3, 5, 1, [0, 1])
  logits, state = sample.apply(module, params, "prefill", second, state)
  np.testing.assert_allclose(logits, expected[:, 4], atol=1e-5)
  token = whole["tokens"][:, 5:]
  logits, _ = sample.apply(module, params, "decode", token, state)
  np.testing.assert_allclose(logits[:, 0], expected[:, 5], atol=1e-5)


def medium(batch, number, index):
  """A turn of a conversation, cut out of a batch: one medium, its text."""
  image = batch["media"]["image"]
  own = dict(
    features=image["features"][:, number : number + 1],
    mask=image["mask"][:, number : number + 1],
    index=index,
  )
  return dict(batch, media=dict(image=own))


def test_a_conversation_goes_on_from_the_state(model, log_probs):
  module, params = model
  first, sampling = make_batch(ROWS, 5), Sampling(2, stop=(STOP,), pad=PAD)
  state = sample.apply(module, params, "start", 2, 5 + 2 + 2 + 2, 2)
  out = generate(*model, first, sampling, state=state)
  counts = out.mask.sum(axis=1)
  alone = generate(*model, first, sampling)
  assert (out.tokens == alone.tokens).all()
  assert (out.state.next_position == np.array([5, 3]) + counts).all()

  turn = {"tokens": jnp.array([[6, 1], [2, 0]])}
  turn["segments"] = jnp.array([[1, 1], [1, 0]])
  again = generate(*model, turn, sampling, state=out.state)
  for row, said in enumerate([[6, 1], [2]]):
    before = out.tokens[row, : counts[row]].tolist() + said
    new = []
    while len(new) < 2 and new[-1:] != [STOP]:
      new.append(int(log_probs(row, before + new).argmax()))
    assert again.tokens[row, : len(new)].tolist() == new


def test_a_conversation_without_room_is_refused(model):
  module, params = model
  batch, sampling = make_batch(ROWS, 5), Sampling(3)
  state = sample.apply(module, params, "start", 2, 8, 2)
  out = generate(*model, batch, sampling, state=state)
  turn = {k: batch[k] for k in ("tokens", "segments")}
  with pytest.raises(ValueError, match="no room for a prompt of 5"):
    generate(*model, turn, sampling, state=out.state)


def test_more_media_than_slots_say_so(model):
  module, params = model
  batch = make_batch(ROWS, 5)
  state = sample.apply(module, params, "start", 2, 30, 1)
  with pytest.raises(ValueError, match="2 media for a state with room for 1"):
    sample.apply(module, params, "prefill", batch, state)
  one = medium(batch, 0, jnp.minimum(batch["media"]["image"]["index"], 1))
  prefill = jax.jit(lambda *x: sample.apply(module, params, "prefill", *x))
  logits, state = prefill(one, state)
  assert np.isfinite(logits).all() and not state.overflowed
  logits, state = prefill(one, state)
  assert np.isnan(logits).all() and state.overflowed
  token = batch["tokens"][:, :1]
  logits, _ = sample.apply(module, params, "decode", token, state)
  assert np.isnan(logits).all()


def drawn(logits, count=4000, **options):
  """Frequencies of the tokens that `choose` draws."""
  sampling = Sampling(1, **options)
  keys = jax.random.split(jax.random.key(1), count)
  tokens = jax.vmap(lambda key: choose(logits[None], sampling, key)[0])(keys)
  return np.bincount(np.asarray(tokens), minlength=len(logits)) / count


@pytest.mark.parametrize(
  "options, kept",
  [
    (dict(temperature=1.0), [0, 1, 2, 3]),
    (dict(temperature=2.0), [0, 1, 2, 3]),
    (dict(temperature=1.0, top_k=2), [0, 1]),
    (dict(temperature=1.0, top_p=0.75), [0, 1]),
    (dict(temperature=1.0, top_p=0.5), [0]),
    (dict(temperature=1.0, top_k=3, top_p=0.99), [0, 1, 2]),
  ],
)
def test_sampling_follows_its_distribution(options, kept):
  logits = jnp.log(jnp.array([0.55, 0.25, 0.15, 0.05]))
  scaled = np.exp(np.asarray(logits) / options["temperature"])
  expected = np.zeros(4)
  expected[kept] = scaled[kept] / scaled[kept].sum()
  found = drawn(logits, **options)
  assert set(np.flatnonzero(found)) <= set(kept)
  np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize(
  "options",
  [
    dict(max_new_tokens=0),
    dict(max_new_tokens=1, temperature=-1.0),
    dict(max_new_tokens=1, top_p=0.0),
    dict(max_new_tokens=1, top_k=-2),
    dict(max_new_tokens=1, top_k=2),
    dict(max_new_tokens=1, top_p=0.5),
  ],
)
def test_senseless_settings_are_refused(options):
  with pytest.raises(ValueError, match="top_|max_new_tokens"):
    Sampling(**options)


def test_sampling_wants_a_key(model):
  with pytest.raises(ValueError, match="key"):
    generate(*model, make_batch(ROWS, 5), Sampling(2, temperature=1.0))


def test_every_token_and_row_is_drawn_anew(model):
  batch = make_batch([ROWS[0]] * 2, 5)

  def draw(seed):
    sampling = Sampling(8, temperature=1e3, pad=PAD)
    key = jax.random.key(seed)
    return generate(*model, batch, sampling, key=key).tokens.tolist()

  first, second = draw(0)
  assert first != second and len(set(first)) > 2 < len(set(second))
  assert draw(0) == [first, second] != draw(1)
