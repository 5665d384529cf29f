"""Floating-point operations of a function, counted in its traced program.

XLA's own count sees the body of a scan once; here it counts as often as it
runs. Matrix products and convolutions count, two operations a
multiply-add; the rest is below a percent of a large model. What a backward
pass does not need, such as gradients of frozen weights, was never traced.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core


def count(f: Callable, *args: Any) -> int:
  """Operations of `f(*args)`; the arguments may be shapes."""
  return of_jaxpr(jax.make_jaxpr(f)(*args).jaxpr)


def of_jaxpr(jaxpr: core.Jaxpr) -> int:
  """Operations of a program; the larger branch of a condition counts."""
  return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> int:
  name, params = equation.primitive.name, equation.params
  if name == "dot_general":
    return _product(equation)
  if name == "conv_general_dilated":
    return _convolution(equation)
  inner = [of_jaxpr(j) for value in params.values() for j in _jaxprs(value)]
  if name == "while":
    raise ValueError("A while loop has no fixed count; use a scan.")
  if name == "cond":
    return max(inner)
  return sum(inner) * (params["length"] if name == "scan" else 1)


def _jaxprs(value: Any) -> list:
  if isinstance(value, core.ClosedJaxpr):
    return [value.jaxpr]
  if isinstance(value, core.Jaxpr):
    return [value]
  if isinstance(value, tuple | list):
    return [j for v in value for j in _jaxprs(v)]
  return []


def _product(equation) -> int:
  (contracted, _), _ = equation.params["dimension_numbers"]
  left = equation.invars[0].aval.shape
  out = equation.outvars[0].aval.shape
  return 2 * math.prod(out) * math.prod(left[d] for d in contracted)


def _convolution(equation) -> int:
  """Terms whose value and weight are both there.

  What padding or dilation puts in between are zeros and no terms. So a
  convolution and its two gradients, which have the same terms, count the
  same, whatever the program that computes them.
  """
  x, kernel = (v.aval.shape for v in equation.invars)
  out, params = equation.outvars[0].aval.shape, equation.params
  numbers = params["dimension_numbers"]
  # Batch and channels come first in a spec; each output sums over channels.
  terms = math.prod(out[d] for d in numbers.out_spec[:2])
  terms *= kernel[numbers.rhs_spec[1]]
  for i, (a, b, c) in enumerate(
    zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:])
  ):
    start = np.arange(out[c]) * params["window_strides"][i]
    tap = np.arange(kernel[b]) * params["rhs_dilation"][i]
    place = start[:, None] + tap - params["padding"][i][0]
    value, hole = np.divmod(place, params["lhs_dilation"][i])
    terms *= int(((hole == 0) & (value >= 0) & (value < x[a])).sum())
  return 2 * terms
