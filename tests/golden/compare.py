"""Runs our module on a golden file's inputs and compares all outputs."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from mmjax.config import lookup
from tests.golden import (
  beats,
  eva_vit,
  flamingo,
  nfnet,
  pointbert,
  qformer,
  x_instructblip,
)
from tests.golden.file import Golden, read

# Component of a file to what yields (call, {output: array}).
COMPONENTS = {
  "beats": beats.check,
  "open_flamingo": flamingo.check,
  "flamingo_lucidrains": flamingo.check,
  "flamingo_mini": flamingo.check,
  "nfnet": nfnet.check,
  "qformer": qformer.check,
  "eva_vit": eva_vit.check,
  "pointbert": pointbert.check,
  "xinstructblip": x_instructblip.check,
}


@dataclasses.dataclass(frozen=True)
class Line:
  """One output: whether it is in tolerance, and by how much it differs."""

  name: str
  passed: bool
  said: str

  def __str__(self):
    return f"  {'ok ' if self.passed else 'OUT'} {self.name:32} {self.said}"


def compare(path) -> Iterator[Line]:
  """One line for every output that the file holds.

  Raises:
    ValueError: when the file has no output, or cannot be run.
  """
  golden = read(path)
  check = lookup(COMPONENTS, golden.component, "golden component")
  left = {
    (call, name) for call, named in golden.outputs.items() for name in named
  }
  if not left:
    raise ValueError("The file holds no output to compare with.")
  for call, outputs in check(golden):
    for name, ours in outputs.items():
      if (call, name) in left:
        left.remove((call, name))
        yield _line(golden, call, name, np.asarray(ours))
  for call, name in sorted(left):
    yield Line(_label(call, name), False, "nothing was computed for it")


def _label(call: str, name: str) -> str:
  return f"{call}.{name}" if call else name


def _line(golden: Golden, call: str, name: str, ours: np.ndarray) -> Line:
  expected, label = golden.outputs[call][name], _label(call, name)
  atol, rtol, peak = 0.0, 0.0, 0.0
  if expected.dtype.kind not in "iub":
    atol, rtol, peak = golden.tolerance(_label(call, name))
  if expected.size == ours.size == 1:
    ours = ours.reshape(expected.shape)
  if ours.shape != expected.shape:
    shapes = f"ours is {ours.shape}, theirs {expected.shape}"
    return Line(label, False, shapes)
  ours, expected = ours.astype(np.float64), expected.astype(np.float64)
  for whose, values in (("theirs", expected), ("ours", ours)):
    if bad := int((~np.isfinite(values)).sum()):
      return Line(label, False, f"{whose} has {bad} values that are not finite")
  difference = np.abs(ours - expected)
  atol += peak * np.abs(expected).max(initial=0.0)
  return Line(
    label,
    bool((difference <= atol + rtol * np.abs(expected)).all()),
    f"max|d| {difference.max(initial=0.0):.2e} of "
    f"{np.abs(expected).max(initial=0.0):.2e} (atol {atol:g}, rtol {rtol:g})",
  )
