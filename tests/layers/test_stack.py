"""A scanned stack, with layers between, against a Python loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.layers.linear import dense
from mmjax.layers.stack import (
  REMAT,
  Injection,
  Segment,
  scan_layers,
  segments,
  stacked_init,
)


@pytest.mark.parametrize(
  "num_layers, before, expected",
  [
    (8, (), [Segment(1, 8, None)]),
    (8, (0, 4), [Segment(2, 4, 0)]),
    (8, (3, 7), [Segment(2, 4, 3)]),
    (8, (0, 3, 6), [Segment(2, 3, 0), Segment(1, 2, 0)]),
    (4, (0, 1, 2, 3), [Segment(4, 1, 0)]),
    (8, (4,), [Segment(1, 8, 4)]),
    (6, (2, 3), [Segment(1, 2, None), Segment(1, 1, 0), Segment(1, 3, 0)]),
    (1, (0,), [Segment(1, 1, 0)]),
  ],
)
def test_segments(num_layers, before, expected):
  assert segments(num_layers, before) == expected


@pytest.mark.parametrize("before", [(1, 0), (0, 0), (-1,), (4,), (0, 9)])
def test_injections_out_of_place(before):
  with pytest.raises(ValueError, match="ascending"):
    segments(4, before)


def run(xs, x):
  y = jnp.tanh(x @ xs["kernel"])
  return x + y, y.sum()


def inject(xs, x):
  return x * xs["scale"] + 1.0


def unrolled(xs, x, injected, before):
  ys = []
  for i in range(xs["kernel"].shape[0]):
    if i in before:
      x = inject({"scale": injected["scale"][before.index(i)]}, x)
    x, y = run({"kernel": xs["kernel"][i]}, x)
    ys.append(y)
  return x, jnp.stack(ys)


@pytest.mark.parametrize(
  "before", [(), (0,), (2,), (5,), (0, 2, 4), (1, 3, 5), (0, 1, 4), (2, 3)]
)
def test_a_scan_is_the_loop(before):
  random = np.random.RandomState(0)
  xs = {"kernel": jnp.asarray(random.standard_normal((6, 4, 4)), jnp.float32)}
  scale = jnp.asarray(random.rand(len(before), 4) + 0.5, jnp.float32)
  x = jnp.asarray(random.standard_normal((2, 4)), jnp.float32)
  injection = Injection(inject, {"scale": scale}, before) if before else None
  out, ys = scan_layers(run, xs, x, injection=injection)
  expected, expected_ys = unrolled(xs, x, {"scale": scale}, before)
  np.testing.assert_allclose(out, expected, rtol=1e-5)
  np.testing.assert_allclose(ys, expected_ys, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("remat", [r for r in REMAT if r != "none"])
def test_remat_changes_no_gradient(remat):
  """In float64: what is computed again may be rounded otherwise."""

  def total(xs, remat):
    out, _ = scan_layers(run, xs, x, injection=injection, remat=remat)
    return (out**2).sum()

  random = np.random.RandomState(0)
  with jax.enable_x64(True):
    xs = {"kernel": jnp.asarray(random.standard_normal((4, 3, 3)))}
    x = jnp.asarray(random.standard_normal((2, 3)))
    injection = Injection(inject, {"scale": jnp.ones((2, 3))}, (1, 3))
    found = jax.grad(total)(xs, remat)["kernel"]
    expected = jax.grad(total)(xs, "none")["kernel"]
  assert found.dtype == np.float64
  np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_an_unknown_remat_names_the_nearest():
  with pytest.raises(ValueError, match="Did you mean 'full'"):
    scan_layers(run, {"kernel": jnp.ones((1, 1, 1))}, jnp.ones(1), remat="ful")


def test_layers_are_drawn_apart_and_named():
  init = stacked_init(dense(4, 3, ("embed", "mlp")), 5, jnp.ones((1, 4)))
  boxed = init(jax.random.key(0))["kernel"]
  kernel = nn.unbox(boxed)
  assert boxed.names == ("layers", "embed", "mlp")
  assert kernel.shape == (5, 4, 3)
  assert len({float(x) for x in kernel[:, 0, 0]}) == 5
