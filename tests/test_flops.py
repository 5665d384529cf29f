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


def test_operations_by_the_modules_they_belong_to():
  def run(x, w):
    with jax.named_scope("first"):
      x = x @ w
    with jax.named_scope("second"):
      return jnp.sum((x @ w) ** 2)

  found = flops.by_scope(jax.grad(run, 1), jnp.ones((3, 4)), jnp.ones((4, 4)))
  one = 2 * 3 * 4 * 4
  sums = {
    name: sum(n for scope, n in found.items() if name in scope)
    for name in ("first", "second", "transpose")
  }
  # The first input is no result of the weights and gets no gradient.
  assert sums == {"first": 2 * one, "second": 3 * one, "transpose": 3 * one}


def test_the_larger_branch_counts():
  def run(x):
    return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x @ x @ x, x)

  assert flops.count(run, jnp.ones((2, 2))) == 2 * 2 * 2**3


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_a_convolution_and_its_gradients_have_the_same_terms(
  groups, stride, padding
):
  def run(x, kernel):
    y = jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      padding,
      feature_group_count=groups,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return (y * y).sum()  # Its gradient needs the forward pass.

  x, kernel = jnp.ones((2, 7, 8, 4)), jnp.ones((3, 5, 4 // groups, 8))
  rows = _terms(7, 3, stride, padding), _terms(8, 5, stride, padding)
  forward = 2 * (2 * 8 * 4 // groups) * rows[0] * rows[1]
  assert flops.count(run, x, kernel) == forward
  for argnums, times in ((0, 2), (1, 2), ((0, 1), 3)):
    grad = jax.grad(run, argnums)
    assert flops.count(grad, x, kernel) == times * forward


def _terms(size: int, kernel: int, stride: int, padding: str) -> int:
  """Pairs of a place and a tap along one dim that meet in some output."""
  out = -(-size // stride)
  before = max((out - 1) * stride + kernel - size, 0) // 2
  if padding == "VALID":
    out, before = (size - kernel) // stride + 1, 0
  return sum(
    0 <= o * stride + tap - before < size
    for o in range(out)
    for tap in range(kernel)
  )


def test_dilated_and_plain_kernels_agree_with_the_compiler():
  def run(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (2,), ((3, 1),), lhs_dilation=(3,), rhs_dilation=(2,)
    )

  x, kernel = jnp.ones((2, 4, 9)), jnp.ones((5, 4, 3))
  compiler = jax.jit(run).lower(x, kernel).cost_analysis()["flops"]
  assert flops.count(run, x, kernel) == compiler


def test_products_and_their_gradients():
  def run(x, w):
    y = jnp.einsum("BLD,BDF->BLF", x, w)
    return (y * y).sum()

  x, w = jnp.ones((2, 3, 4)), jnp.ones((2, 4, 5))
  forward = 2 * 2 * 3 * 4 * 5
  assert flops.count(run, x, w) == forward
  assert flops.count(jax.grad(run), x, w) == 2 * forward
  assert flops.count(jax.grad(run, 1), x, w) == 2 * forward
  assert flops.count(jax.grad(run, (0, 1)), x, w) == 3 * forward


def test_what_is_computed_again_counts_again():
  def run(x, w):
    return jnp.tanh(x @ w).sum()

  x, w = jnp.ones((3, 4)), jnp.ones((4, 5))
  kept = flops.count(jax.grad(run, 1), x, w)
  again = flops.count(jax.grad(jax.checkpoint(run), 1), x, w)
  assert again == kept + 2 * 3 * 4 * 5


def test_a_loop_without_length_is_an_error():
  def run(x):
    return jax.lax.while_loop(lambda x: x[0, 0] < 3, lambda x: x @ x, x)

  with pytest.raises(ValueError, match="scan"):
    flops.count(run, jnp.ones((2, 2)))
