"""BEATs: counts, tables, gates, padding, names; golden files hold its numbers.

`tests/golden/arrays/beats` compares with the original.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.convert.families import beats as family
from mmjax.convert.rules import ConversionError, load, save
from mmjax.data.audio import segments
from mmjax.encoders.beats import BEATs, Gate, beats, hidden_tokens
from mmjax.layers.fbank import samples_of
from mmjax.tree import count, flatten

SIZES = dict(width=24, num_heads=4, hidden=32, patch_width=16, conv_size=6)
TINY = BEATs(
  **SIZES, num_layers=2, conv_groups=4, num_buckets=16, max_distance=20
)


def shapes_of(model, frames=16):
  bank = jax.ShapeDtypeStruct((1, frames, 128), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), bank)
  return nn.unbox(variables)["params"]


def draw(*shape, seed=0):
  random = np.random.RandomState(seed)
  return random.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def params():
  random = np.random.RandomState(1)
  return jax.tree.map(
    lambda x: (0.3 * random.standard_normal(x.shape)).astype(np.float32),
    shapes_of(TINY),
  )


@functools.cache
def compiled():
  return jax.jit(lambda p, *x: TINY.apply({"params": p}, *x))


def test_published_count():
  assert count(shapes_of(beats())) == 90_311_792


@pytest.mark.parametrize("frames, tokens", [(512, 256), (998, 496)])
def test_published_tokens(frames, tokens):
  for shape in ((2, frames, 128), (2, samples_of(frames))):
    sound = jax.ShapeDtypeStruct(shape, jnp.float32)
    out, _ = jax.eval_shape(beats().init_with_output, jax.random.key(0), sound)
    assert out.shape == (2, tokens, 768)


def test_relative_positions_are_rows_of_one_table(params):
  bias = TINY.apply({"params": params}, 9, method="bias")
  exact = {d: abs(d) + (8 if d > 0 else 0) for d in range(-3, 4)}
  far = {4: 4, 5: 4, 6: 5, 7: 5, 8: 5}
  for d, row in far.items():
    exact |= {-d: row, d: row + 8}
  for query, key in np.ndindex(9, 9):
    row = params["relative_bias"][exact[key - query]]
    np.testing.assert_array_equal(bias[:, query, key], row)


def test_gates_against_numpy():
  query, kernel = draw(2, 3, 4, 6), draw(6, 8, seed=1)
  bias, scale = draw(8, seed=2), draw(4, seed=3)
  params = {"linear": {"kernel": kernel, "bias": bias}, "scale": scale}
  out = Gate().apply({"params": params}, query)
  assert out.shape == (2, 4, 3, 1)
  for b, l, n in np.ndindex(2, 3, 4):
    y = query[b, l, n] @ kernel + bias
    update, reset = 1 / (1 + np.exp(-y.reshape(2, 4).sum(axis=1)))
    expected = update * (reset * scale[n] - 1) + 2
    np.testing.assert_allclose(out[b, n, l, 0], expected, atol=1e-5)


def test_padding_changes_no_token_of_the_sound(params):
  """48 frames, of which 32 are real, alone and beside another row."""
  bank = draw(2, 48, 128)
  padding = np.zeros((2, 48), bool)
  padding[0, 32:] = True
  out = compiled()(params, bank, None, padding)
  short = compiled()(params, bank[:1, :32])
  np.testing.assert_allclose(out[:1, :16], short, atol=1e-5)
  whole = compiled()(params, bank)
  np.testing.assert_allclose(out[1], whole[1], atol=1e-5)
  assert np.abs(whole[0, :16] - out[0, :16]).max() > 1e-3
  other = bank.copy()
  other[0, 32:] = 9.0
  np.testing.assert_allclose(
    compiled()(params, other, None, padding)[0, :16], out[0, :16], atol=1e-6
  )


def test_nothing_but_padding_is_no_nan(params):
  out = compiled()(params, draw(1, 32, 128), None, np.ones((1, 32), bool))
  assert np.isfinite(out).all()


def test_tokens_are_hidden_by_their_share_of_the_frames():
  """Of 34 frames 2 do not share out; the second patch is cut after 6."""
  padding = np.arange(34) >= 22
  hidden = hidden_tokens(jnp.asarray(padding)[None], 16)
  np.testing.assert_array_equal(hidden[0], [False] * 11 + [True] * 5)
  with pytest.raises(ValueError, match="8 frames for 16 tokens"):
    hidden_tokens(jnp.zeros((1, 8), bool), 16)


def test_segments_are_the_bank_of_the_whole_wave(params):
  """Zeros come after standardising; one frame is a frame of another wave."""
  wave = 0.1 * draw(samples_of(70))
  cut, lengths = segments(wave, None, frames=32)
  assert cut.shape == (3, samples_of(32))
  run = jax.jit(
    lambda *x: TINY.apply({"params": params}, *x, method="filter_bank")
  )
  banks, whole = run(cut, lengths), run(wave[None])
  joined = np.asarray(banks).reshape(96, 128)
  np.testing.assert_allclose(joined[:70], whole[0], atol=1e-4)
  assert not joined[70:].any() and joined[:70].any(axis=1).all()
  np.testing.assert_allclose(
    compiled()(params, cut, lengths), compiled()(params, banks), atol=1e-4
  )


@pytest.mark.parametrize("samples", [0, 399, 1_600])
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_short_and_silent_sounds_are_numbers(params, samples, level):
  sound = segments(level * draw(samples), None, frames=16)
  out = compiled()(params, *sound)
  assert out.shape == (1, 8, 24) and np.isfinite(out).all()


def test_compile_time_does_not_grow_with_depth():
  def size(depth):
    model = BEATs(**SIZES, num_layers=depth, conv_groups=4, remat="full")
    bank = jnp.zeros((1, 16, 128))
    lowered = jax.jit(model.apply).lower({"params": shapes_of(model)}, bank)
    return len(lowered.as_text().splitlines())

  assert size(6) == size(2)


def test_gradients_reach_every_parameter(params):
  bank = draw(1, 32, 128)
  grads = jax.jit(
    jax.grad(lambda p: jnp.square(TINY.apply({"params": p}, bank)).sum())
  )(params)
  for path, grad in flatten(grads).items():
    rows = grad if path.startswith("layers/") else grad[None]
    assert np.isfinite(grad).all(), path
    # Softmax does not see what is added to all keys.
    if path != "layers/attention/key/bias":
      assert all(np.abs(row).max() > 0 for row in rows), path


@pytest.mark.parametrize(
  "args, match",
  [
    ([np.zeros((1, 8, 128), np.float32)], "16 frames or more"),
    ([np.zeros((1, 32, 120), np.float32)], "bands that part"),
    ([np.zeros((1, 32, 128), np.int32)], "dtype int32"),
    ([np.zeros((1, 1, 32, 128), np.float32)], r"\(1, 1, 32, 128\)"),
    ([np.zeros((1, 3000), np.int16)], "dtype int16"),
    ([np.zeros((1, 2000), np.float32)], "16 frames or more"),
    ([np.zeros((1, 32, 128), np.float32), np.zeros(1, int)], "lengths are of"),
    ([np.zeros((1, 3000), np.float32), np.zeros(2, int)], "lengths of shape"),
    (
      [np.zeros((1, 32, 128), np.float32), None, np.zeros((1, 8), bool)],
      r"padding of shape \(1, 8\)",
    ),
  ],
)
def test_other_arrays_are_refused(args, match, params):
  with pytest.raises(ValueError, match=match):
    TINY.apply({"params": params}, *args)


def test_a_width_that_does_not_part_into_heads():
  with pytest.raises(ValueError, match="18 does not part into 4"):
    shapes_of(BEATs(**SIZES | dict(width=18), num_layers=1))


CFG = dict(
  input_patch_size=16,
  embed_dim=512,
  conv_bias=False,
  encoder_layers=12,
  encoder_embed_dim=768,
  encoder_ffn_embed_dim=3072,
  encoder_attention_heads=12,
  activation_fn="gelu",
  layer_norm_first=False,
  deep_norm=True,
  conv_pos=128,
  conv_pos_groups=16,
  relative_position_embedding=True,
  num_buckets=320,
  max_distance=800,
  gru_rel_pos=True,
  encoder_layerdrop=0.05,
  finetuned_model=False,
)


def test_the_settings_of_a_checkpoint_are_the_published_encoder():
  assert BEATs(**family.settings(CFG)) == beats()


@pytest.mark.parametrize(
  "change, match",
  [
    (dict(layer_norm_first=True), "only False"),
    (dict(relative_position_embedding=False), "only True"),
    (dict(activation_fn="glu"), "activation_fn='glu'"),
    (dict(conv_poss=3), "Did you mean 'conv_pos'"),
  ],
)
def test_other_settings_are_refused(change, match):
  with pytest.raises(ValueError, match=match):
    family.settings(CFG | change)


def test_a_setting_that_is_missing():
  with pytest.raises(ValueError, match="lacks .'deep_norm'"):
    family.settings({k: v for k, v in CFG.items() if k != "deep_norm"})


@pytest.fixture
def state(params):
  return save(params, family.beats(2))


def test_weights_go_there_and_back_bit_by_bit(params, state):
  heads = {"predictor.weight": draw(3, 24), "label_embs_concat": draw(2, 2)}
  back = load(
    state | heads,
    family.beats(2),
    params,
    ignore=lambda key: bool(family.HEADS.fullmatch(key)),
  )
  jax.tree.map(np.testing.assert_array_equal, back, params)
  again = save(back, family.beats(2))
  assert again.keys() == state.keys()
  assert all(again[k].tobytes() == v.tobytes() for k, v in state.items())
  with pytest.raises(ConversionError, match="predictor.weight"):
    load(state | heads, family.beats(2), params)


def test_every_layer_repeats_the_table(params, state):
  name = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
  for i in range(2):
    np.testing.assert_array_equal(
      state[name.format(i)], params["relative_bias"]
    )
  changed = state | {name.format(1): state[name.format(1)] + 1e-6}
  with pytest.raises(ConversionError, match="but differ"):
    load(changed, family.beats(2), params)


def test_names_of_the_original(state):
  shapes = {
    "patch_embedding.weight": (16, 1, 16, 16),
    "layer_norm.weight": (16,),
    "post_extract_proj.weight": (24, 16),
    "encoder.pos_conv.0.weight_g": (1, 1, 6),
    "encoder.pos_conv.0.weight_v": (24, 6, 6),
    "encoder.layers.1.self_attn.grep_linear.weight": (8, 6),
    "encoder.layers.1.self_attn.grep_a": (1, 4, 1, 1),
  }
  assert {k: state[k].shape for k in shapes} == shapes


def test_options_change_the_parameters():
  """Without a projection where there is nothing to project; no gates."""
  sizes = SIZES | dict(patch_width=24)
  model = BEATs(
    **sizes, num_layers=2, conv_groups=4, gated=False, patch_bias=True
  )
  paths = flatten(shapes_of(model))
  assert "patch/bias" in paths and "patch/bias" not in flatten(shapes_of(TINY))
  assert not any(p.startswith(("projection", "layers/gate")) for p in paths)
