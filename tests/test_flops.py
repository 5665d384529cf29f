import jax
import jax.numpy as jnp
import pytest

from mmjax import flops


def test_a_scan_counts_every_turn():
  def run(x, layers):
    return jax.lax.scan(lambda x, w: (x @ w, None), x, layers)[0].sum()

  x, layers = jnp.ones((3, 4)), jnp.ones((5, 4, 4))
  forward = 2 * 3 * 4 * 4 * 5
  assert flops.count(run, x, layers) == forward
  # The gradient of x, which is frozen, is needed by all turns but the first.
  assert flops.count(jax.grad(run, argnums=1), x, layers) == 3 * forward
  assert flops.count(jax.grad(run), x, layers) == 2 * forward


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_and_their_gradients(groups):
  def run(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (1, 1),
      "VALID",
      feature_group_count=groups,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ).sum()

  x, kernel = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 4 // groups, 8))
  forward = 2 * (2 * 4 * 4 * 8) * (9 * 4 // groups)
  assert flops.count(run, x, kernel) == forward
  # The program of the kernel's gradient is one convolution of the same size.
  assert flops.count(jax.grad(run, argnums=1), x, kernel) in (
    forward,
    2 * forward,
  )


def test_a_loop_without_length_is_an_error():
  def run(x):
    return jax.lax.while_loop(lambda x: x[0, 0] < 3, lambda x: x @ x, x)

  with pytest.raises(ValueError, match="scan"):
    flops.count(run, jnp.ones((2, 2)))
