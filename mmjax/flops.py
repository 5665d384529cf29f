"""Floating-point operations of a function, counted in its traced program.

XLA's own count sees the body of a scan once; here it counts as often as it
runs. Matrix products and convolutions count, two operations a
multiply-add; the rest is below a percent of a large model. What a backward
pass does not need, such as gradients of frozen weights, was never traced.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend import core


def count(f: Callable, *args: Any) -> int:
  """Operations of `f(*args)`; the arguments may be shapes."""
  return sum(by_scope(f, *args).values())


def by_scope(f: Callable, *args: Any) -> Counter[str]:
  """Operations of `f(*args)` by the name of what they belong to.

  A name is that of the modules around an operation, as Flax and
  `jax.named_scope` give it: `/jvp(Flamingo)/.../resampler/.../mlp/up`, and
  with `transpose(...)` for the backward pass.
  """
  return _of_jaxpr(jax.make_jaxpr(f)(*args).jaxpr, "")


def _of_jaxpr(jaxpr: core.Jaxpr, scope: str) -> Counter[str]:
  total: Counter[str] = Counter()
  for equation in jaxpr.eqns:
    name = f"{scope}/{equation.source_info.name_stack}"
    total.update(_of_equation(equation, name))
  return total


def _of_equation(equation, scope: str) -> Mapping[str, int]:
  name, params = equation.primitive.name, equation.params
  if name == "dot_general":
    return {scope: _product(equation)}
  if name == "conv_general_dilated":
    return {scope: _convolution(equation)}
  if name == "while":
    raise ValueError("A while loop has no fixed count; use a scan.")
  inner = [_of_jaxpr(j, scope) for v in params.values() for j in _jaxprs(v)]
  if name == "cond":  # The larger branch counts.
    return max(inner, key=lambda branch: sum(branch.values()))
  times = params["length"] if name == "scan" else 1
  total: Counter[str] = Counter()
  for part in inner:
    total.update({name: n * times for name, n in part.items()})
  return total


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
