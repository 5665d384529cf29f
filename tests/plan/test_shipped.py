"""Every full-size config compiles for the machine that it names, and fits."""

import pytest

from benchmarks.plans import PLANS, run
from mmjax.plan.topology import installed

pytestmark = [
  pytest.mark.heavy,
  pytest.mark.skipif(
    not installed("libtpu"), reason="needs libtpu: requirements-tpu.txt"
  ),
]
# Half a minute each; the others take one or two.
QUICK = ("open_flamingo_3b", "open_flamingo_9b")


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.long)
    for name in PLANS
  ],
)
def test_it_fits(name):
  found = run(*PLANS[name])
  assert found["fits"] and not found["unchecked"]
  for step in found["programs"]:
    assert step["memory"]["compiled"]
    # No collective brings a whole stack of parameters together at once.
    largest = max(row["bytes"] for row in found["parameters"])
    gathered = [c for c in step["talk"] if c["kind"] == "all-gather"]
    assert all(c["bytes"] / c["runs"] < largest / 4 for c in gathered)
