"""Who computes an attention, and that it says why."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers import cudnn, dispatch, dot_product
from mmjax.layers.dispatch import attention, choose, describe
from mmjax.layers.dot_product import Problem, Visibility, rises
from mmjax.lms import LMS

# What a LLaMA-7B asks for in training.
USUAL = Problem(
  batch=8,
  length=2048,
  keys=2048,
  heads=32,
  kv_heads=32,
  head_dim=128,
  dtype="bfloat16",
  segmented=True,
  causal=True,
  own=True,
)
CACHED = dict(length=1, own=False)


@pytest.mark.parametrize(
  "changes, platform, path, why",
  [
    ({}, "tpu", "splash", "fastest"),
    ({}, "gpu", "cudnn", "fastest"),
    ({}, "cpu", "plain", "no other for cpu"),
    (dict(kv_heads=8), "tpu", "splash", "fastest"),
    (dict(kv_heads=8), "gpu", "cudnn", "fastest"),
    (dict(head_dim=64), "tpu", "splash", "fastest"),
    (dict(head_dim=80), "tpu", "splash", "fastest"),
    (dict(head_dim=80), "gpu", "cudnn", "fastest"),
    (dict(head_dim=192), "gpu", "plain", "heads of 192"),
    (dict(head_dim=20), "tpu", "plain", "heads of 20"),
    (dict(biased=True), "tpu", "plain", "a bias is added"),
    (dict(biased=True), "gpu", "plain", "a bias would be rounded"),
    (dict(dtype="float32"), "tpu", "splash", "fastest"),
    (dict(dtype="float32"), "gpu", "plain", "not float32"),
    (dict(dtype="float16"), "tpu", "plain", "not float16"),
    (dict(length=577, keys=577), "tpu", "splash", "fastest"),
    (dict(length=257, keys=257), "tpu", "plain", "padded to 384"),
    (dict(length=32, keys=32), "tpu", "plain", "padded to 128"),
    (dict(length_parts=4), "tpu", "splash", "fastest"),
    (dict(length_parts=16, length=576), "tpu", "plain", "on each of 16"),
    (dict(length=577, keys=577), "gpu", "plain", "even lengths, not 577"),
    (
      dict(length=577, keys=577, segmented=False, causal=False),
      "gpu",
      "cudnn",
      "fastest",
    ),
    (dict(placed=False), "tpu", "plain", "no mesh in scope"),
    (dict(placed=False), "gpu", "cudnn", "fastest"),
    (CACHED, "tpu", "plain", "the keys are not those"),
    (CACHED, "gpu", "plain", "the keys are not those"),
  ],
)
def test_choices(changes, platform, path, why):
  found, reason = choose(platform, dataclasses.replace(USUAL, **changes))
  assert found == path and why in reason


@pytest.mark.parametrize(
  "changes, platform, path, why",
  [
    (dict(biased=True), "tpu", "splash", "splash refuses.*a bias is added"),
    ({}, "cpu", "splash", "on cpu: it runs on tpu"),
    ({}, "tpu", "cudnn", "on tpu: it runs on gpu"),
    (dict(dtype="float32"), "gpu", "cudnn", "cudnn refuses float32.*bfloat16"),
    ({}, "tpu", "splish", "Unknown attention path 'splish'.*'splash'"),
  ],
)
def test_a_path_that_is_asked_for_and_refuses(changes, platform, path, why):
  with pytest.raises(ValueError, match=why):
    choose(platform, dataclasses.replace(USUAL, **changes), path)


def test_a_path_that_is_asked_for():
  assert choose("tpu", USUAL, "plain")[0] == "plain"
  assert choose("tpu", USUAL, "splash")[0] == "splash"
  # It is for training; the steps of generation are plain all the same.
  cached = dataclasses.replace(USUAL, **CACHED)
  assert choose("cpu", cached, "splash")[0] == "plain"


def test_what_a_visibility_asks_for():
  x = jnp.zeros((2, 5, 4, 8))
  ones = jnp.ones((2, 5), jnp.int32)
  free = describe(x, x[:, :, :2], Visibility())
  assert free == Problem(2, 5, 5, 4, 2, 8, "float32", own=True)
  among = describe(x, x, Visibility.among(ones, ones))
  assert among.own and among.segmented and among.causal
  # Keys of a cache may be as many as the queries and yet others.
  cached = Visibility(ones, ones, ones, ones, causal=True)
  masked = Visibility(table=ones[:, None, None] > 0)
  for visible in (cached, masked):
    assert not describe(x, x, visible).own
  assert not describe(x, x[:, :3], Visibility()).own


def test_a_choice_is_logged_once(caplog, monkeypatch):
  monkeypatch.setattr(dispatch, "_said", set())
  x = jnp.zeros((1, 3, 2, 8))
  with caplog.at_level(logging.INFO):
    for _ in range(2):
      attention(x, x, x, Visibility())
  assert caplog.messages == [
    "Attention of float32 [batch 1, length 3/3, heads 2/2 of 8] on cpu is "
    "plain: there is no other for cpu"
  ]


@pytest.mark.parametrize(
  "segments, positions, expected",
  [
    ([1, 1, 0, 2, 2], [0, 1, 0, 0, 1], True),
    ([0, 0, 1, 1, 0], [0, 0, 0, 1, 1], True),
    ([1, 1, 1], [4, 7, 9], True),
    ([0, 0, 0], [0, 0, 0], True),
    ([1, 2, 1], [0, 0, 1], False),
    ([1, 1, 1], [0, 2, 1], False),
    ([1, 1, 1], [0, 1, 1], False),
    ([2, 2, 1], [0, 1, 0], False),
    ([1, 0, 1], [0, 0, 0], False),
  ],
)
def test_rows_in_order(segments, positions, expected):
  found = rises(jnp.array([segments]), jnp.array([positions]))
  assert found.tolist() == [expected]
  if expected:
    # Then a place in the row says as much as a position.
    segments, positions = jnp.array([segments]), jnp.array([positions])
    by_row = Visibility.among(segments, jnp.arange(segments.shape[1])[None])
    np.testing.assert_array_equal(
      by_row.dense(), Visibility.among(segments, positions).dense()
    )


def test_a_model_hands_its_path_to_every_layer():
  sizes = dict(vocab_size=7, width=16, num_layers=2, num_heads=2, hidden=8)
  tokens = jnp.zeros((1, 4), jnp.int32)
  model = LMS["llama"](**sizes, attention="splash")
  params = model.init(jax.random.key(0), tokens, tokens, tokens + 1)
  with pytest.raises(ValueError, match="splash refuses.*length 4/4"):
    model.apply(params, tokens, tokens, tokens + 1)
  cache = model.apply(params, 1, 4, method="empty_cache")
  out, _ = model.apply(params, tokens, tokens, tokens + 1, cache)
  assert np.isfinite(out).all()


@pytest.mark.skipif(
  jax.default_backend() != "gpu", reason="cuDNN needs an NVIDIA GPU"
)
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_cudnn_gives_what_the_plain_path_gives(kv_heads):
  random = np.random.RandomState(0)
  segments = jnp.asarray(np.repeat([[1, 2, 0]], [100, 90, 66], axis=1))
  positions = jnp.asarray(np.r_[np.arange(100), np.arange(156)])[None]
  visible = Visibility.among(segments, positions).written()
  query, key, value = (
    jnp.asarray(random.standard_normal((1, 256, n, 64)), jnp.bfloat16)
    for n in (4, kv_heads, kv_heads)
  )

  def plain(*arrays):
    return dot_product.attend(*arrays, mask=visible.dense())

  def fused(*arrays):
    return cudnn.attend(*arrays, visible)

  def outcome(attend, *arrays):
    out, pull = jax.vjp(attend, *arrays)
    return out, *pull(jnp.ones_like(out))

  expected = outcome(plain, query, key, value)
  for a, b in zip(outcome(fused, query, key, value), expected):
    np.testing.assert_allclose(
      *(np.asarray(x, np.float32) for x in (a, b)), atol=2e-2
    )
