"""Names of machines."""

import math

import pytest

from mmjax.plan import topology
from mmjax.plan.chips import CHIPS
from mmjax.plan.gpu import description


@pytest.mark.parametrize(
  "name,chip,slices,per_slice,size",
  [
    ("v4:4x4x4", "v4", 1, 64, 64),
    ("v5e:16x16", "v5e", 1, 256, 256),
    ("2*v5e:16x16", "v5e", 2, 256, 512),
    ("v5p:8x8x8", "v5p", 1, 512, 512),
    ("V6E:4x8", "v6e", 1, 32, 32),
    # Two devices a chip.
    ("tpu7x:2x2x1", "tpu7x", 1, 8, 8),
    ("h100:8", "h100", 1, 8, 8),
    ("h200:4x8", "h200", 4, 8, 32),
    ("4*h200:8", "h200", 4, 8, 32),
  ],
)
def test_names(name, chip, slices, per_slice, size):
  found = topology.parse(name)
  assert found.chip.name == chip
  assert (found.slices, found.per_slice, found.size) == (
    slices,
    per_slice,
    size,
  )


@pytest.mark.parametrize(
  "name,says",
  [
    ("", "is no topology"),
    ("v5e", "is no topology"),
    ("v5e-256", "is no topology"),
    ("v5e:16x", "is no topology"),
    ("v5f:16x16", "Did you mean"),
    ("v5e:16", "2 dims"),
    ("v5p:8x8", "3 dims"),
    ("v5e:3x3", "2x2 chips"),
    ("v5e:0x4", "size of 0"),
    ("0*v5e:4x4", "size of 0"),
    ("h200:2x4x8", "nodes"),
    ("2*h200:4x8", "nodes"),
  ],
)
def test_names_that_are_refused(name, says):
  with pytest.raises(ValueError, match=says):
    topology.parse(name)


def test_the_ridges_are_those_of_the_reference():
  """FLOPs a byte of memory; see the makers' own figures."""
  ridge = {name: c.flops / c.bandwidth for name, c in CHIPS.items()}
  for name, known in dict(a100=153, h100=295, h200=206, b200=281).items():
    assert math.isclose(ridge[name], known, rel_tol=0.01), name
  for name, known in dict(v5e=241, v5p=166, v6e=560).items():
    assert math.isclose(ridge[name], known, rel_tol=0.01), name


def test_every_gpu_has_a_description():
  for chip in CHIPS.values():
    if chip.platform == "cuda":
      assert f"memory_bandwidth: {int(chip.bandwidth)}" in description(chip)


def test_a_missing_compiler_says_what_to_install(monkeypatch):
  monkeypatch.setattr(topology, "installed", lambda package: False)
  for name, file in (("v5e:4x4", "tpu"), ("h200:8", "cuda")):
    with pytest.raises(topology.NotInstalled, match=f"requirements-{file}.txt"):
      topology.parse(name).devices()
