"""Runs our module on a golden file's inputs and compares all outputs."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from mmjax.config import lookup
from tests.golden import flamingo, nfnet
from tests.golden.file import Golden, read

# Component of a file to what yields (call, {output: array}).
COMPONENTS = {
  "open_flamingo": flamingo.check,
  "flamingo_lucidrains": flamingo.check,
  "flamingo_mini": flamingo.check,
  "nfnet": nfnet.check,
}


@dataclasses.dataclass(frozen=True)
class Line:
  """One output: its largest difference, and whether all are in tolerance."""

  name: str
  difference: float
  scale: float
  atol: float
  rtol: float
  passed: bool

  def __str__(self):
    verdict = "ok " if self.passed else "OUT"
    return (
      f"  {verdict} {self.name:32} max|d| {self.difference:.2e} of "
      f"{self.scale:.2e} (atol {self.atol:g}, rtol {self.rtol:g})"
    )


def compare(path) -> Iterator[Line]:
  """One line for every output that the file holds.

  Raises:
    ValueError: when the file has no output, or ours lacks one of its outputs.
  """
  golden = read(path)
  check = lookup(COMPONENTS, golden.component, "golden component")
  left = {
    (call, name) for call, named in golden.outputs.items() for name in named
  }
  if not left:
    raise ValueError(f"{path} holds no output to compare with.")
  for call, outputs in check(golden):
    for name, ours in outputs.items():
      if (call, name) in left:
        left.remove((call, name))
        yield _line(golden, call, name, np.asarray(ours))
  if left:
    raise ValueError(f"{path}: nothing was computed for {sorted(left)}.")


def _line(golden: Golden, call: str, name: str, ours: np.ndarray) -> Line:
  expected = golden.outputs[call][name]
  label = f"{call}.{name}" if call else name
  if expected.dtype.kind in "iub":
    atol, rtol = 0.0, 0.0
  else:
    atol, rtol = golden.tolerance(name)
  ours = ours.reshape(expected.shape) if expected.size == 1 else ours
  if ours.shape != expected.shape:
    raise ValueError(
      f"{golden.path} {label}: ours is {ours.shape}, theirs {expected.shape}."
    )
  ours, expected = ours.astype(np.float64), expected.astype(np.float64)
  difference = np.abs(ours - expected)
  passed = bool((difference <= atol + rtol * np.abs(expected)).all())
  return Line(
    label,
    float(difference.max(initial=0.0)),
    float(np.abs(expected).max(initial=0.0)),
    atol,
    rtol,
    passed,
  )
