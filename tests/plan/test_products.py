"""Products in programs, counted beforehand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from mmjax import flops
from mmjax.plan import hlo, products


def in_program(f, *shapes) -> int:
  given = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
  text = jax.jit(f).lower(*given).compile().as_text()
  return products.operations(hlo.parse(text))


def traced(f, *shapes) -> int:
  return flops.count(f, *[jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes])


def convolve(stride, padding, hole=1):
  return lambda x, k: lax.conv_general_dilated(
    *(x, k, (stride, stride), padding),
    lhs_dilation=(hole, hole),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


@pytest.mark.parametrize(
  "f", [convolve(1, "SAME"), convolve(2, "VALID"), convolve(1, [(2, 1)] * 2, 2)]
)
def test_convolutions(f):
  shapes = (2, 9, 7, 4), (3, 3, 4, 8)
  assert in_program(f, *shapes) == traced(f, *shapes) > 0


def test_loops_count_as_often_as_they_run():
  def f(x, w):
    body = lambda x, w: (convolve(1, "SAME")(x, w), None)  # noqa: E731
    return lax.scan(body, x, w)[0]

  shapes = (1, 5, 5, 4), (6, 3, 3, 4, 4)
  assert in_program(f, *shapes) == traced(f, *shapes)


def line(kind, out, x, kernel, rest):
  return f"""HloModule m

ENTRY %main (a: f32[{x}], b: f32[{kernel}]) -> f32[{out}] {{
  %a = f32[{x}]{{0}} parameter(0)
  %b = f32[{kernel}]{{0}} parameter(1)
  ROOT %c = f32[{out}]{{0}} {kind}(%a, %b), {rest}
}}
"""


@pytest.mark.parametrize(
  "text,multiply_adds",
  [
    # A batch of 32 x 8 products [64 32] = [64 k] [k 32] with k = 16, as XLA
    # for TPUs writes them: dims of the batch are spatial, with holes.
    (
      line(
        *("convolution", "32,8,64,32", "32,64,8,16", "32,32,8,16"),
        "window={size=32x8 stride=31x7 lhs_dilate=32x8}, "
        "dim_labels=0b1f_0o1i->01bf",
      ),
      32 * 8 * 64 * 32 * 16,
    ),
    # Heads that are summed over: 8 of 64, from 32 x 320 rows to 1024.
    (
      line(
        *("convolution", "32,320,1024,1", "32,320,8,64", "1024,64,8,1"),
        "window={size=1x8}, dim_labels=0b1f_oi10->0bf1",
      ),
      32 * 320 * 1024 * 8 * 64,
    ),
    # Heads that are made: the window slides over the kernel's 8.
    (
      line(
        *("convolution", "32,320,8,64", "32,1024,320,1", "8,1024,1,64"),
        "window={size=1x8 pad=0_0x7_7 rhs_reversal=0x1}, "
        "dim_labels=0fb1_1i0o->0b1f",
      ),
      32 * 320 * 8 * 64 * 1024,
    ),
    (
      line(
        *("dot", "5,3,4", "5,3,7", "5,7,4"),
        "lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, "
        "rhs_contracting_dims={1}",
      ),
      5 * 3 * 4 * 7,
    ),
  ],
)
def test_products(text, multiply_adds):
  assert products.operations(hlo.parse(text)) == 2 * multiply_adds


def test_ends_of_a_window_fall_off():
  assert products._pairs(10, 3, 10, 1, 1, 1, 1) == 28
