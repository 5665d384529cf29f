"""Matrix products and convolutions in a compiled program, counted.

What is traced says what all devices do together; the program says what each
of them does, parts that several do alike included. Kernels (custom calls) say
nothing of what they compute and are left out.
"""

import math
import re

import numpy as np

from mmjax.plan import hlo
from mmjax.plan.loops import executions

_WINDOW = re.compile(r"\bwindow=\{([^}]*)\}")
_LABELS = re.compile(r"\bdim_labels=(\w+)_(\w+)->(\w+)")
_CONTRACTED = re.compile(r"\blhs_contracting_dims=\{([\d,]*)\}")


def operations(module: hlo.Module) -> int:
  """Operations of one device, two a multiply-add, in a run of the program."""
  total = 0
  for name, times in executions(module).items():
    computation = module.computations[name]
    for instruction in computation.values():
      inside = hlo.fused(module, instruction)
      for scope, one in [
        (computation, instruction),
        *((inside, i) for i in inside.values()),
      ]:
        total += times * _operations(scope, one)
  return total


def _operations(scope: hlo.Computation, i: hlo.Instruction) -> int:
  if i.opcode == "convolution":
    return 2 * _terms(scope, i)
  if i.opcode != "dot":
    return 0
  left = scope[i.operands[0]].shapes[0].dims
  contracted = [int(d) for d in _CONTRACTED.search(i.rest)[1].split(",") if d]
  return 2 * math.prod((*i.shapes[0].dims, *(left[d] for d in contracted)))


def _terms(scope: hlo.Computation, i: hlo.Instruction) -> int:
  """Multiply-adds of a convolution whose value and weight are both there.

  XLA for TPUs writes every product as a convolution: dims of the batch are
  spatial dims of holes, which count for nothing.
  """
  x, kernel = (scope[name].shapes[0].dims for name in i.operands[:2])
  out = i.shapes[0].dims
  of_x, of_kernel, of_out = _LABELS.search(i.rest).groups()
  terms = out[of_out.index("b")] * out[of_out.index("f")]
  terms *= kernel[of_kernel.index("i")]
  window = _window(i.rest)
  for d in range(len(of_out) - 2):
    where = [text.index(str(d)) for text in (of_x, of_kernel, of_out)]
    terms *= _pairs(
      *(x[where[0]], kernel[where[1]], out[where[2]]),
      *(window[key][d] for key in ("stride", "pad", "lhs_dilate")),
      window["rhs_dilate"][d],
    )
  return terms


def _window(rest: str) -> dict[str, list[int]]:
  """Lists with a number for each spatial dim; of `pad`, that before."""
  found = _WINDOW.search(rest)
  given = dict(part.split("=") for part in found[1].split()) if found else {}
  dims = len(given.get("size", "").split("x"))
  defaults = dict(stride="1", pad="0_0", lhs_dilate="1", rhs_dilate="1")
  return {
    key: [
      int(part.split("_")[0])
      for part in given.get(key, "x".join([default] * dims)).split("x")
    ]
    for key, default in defaults.items()
  }


def _pairs(x, kernel, out, stride, pad, hole_x, hole_kernel) -> int:
  """Pairs of an output and a tap that hit a value along one dim."""
  place = np.arange(out)[:, None] * stride + np.arange(kernel) * hole_kernel
  value, hole = np.divmod(place - pad, hole_x)
  return int(((hole == 0) & (value >= 0) & (value < x)).sum())
