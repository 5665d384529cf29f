"""Whether two texts are the same, as RapidFuzz 3.14.6 says."""

import pytest

from mmjax.data.instruct.agreement import agree, partial_ratio, plain


@pytest.mark.parametrize(
  ("a", "b", "percent"),
  [
    ("chair", "a red chair", 100.0),
    ("a red chair", "chair", 100.0),
    ("", "", 100.0),
    ("", "chair", 0.0),
    ("abcd", "dcba", 40.0),
    ("xyz", "abc", 0.0),
    ("wooden", "woden table", 90.9090909),
    ("two armrests", "it has two arm rests", 91.6666667),
    ("dog", "dig", 66.6666667),
  ],
)
def test_partial_ratio(a, b, percent):
  assert partial_ratio(a, b) == pytest.approx(percent)


@pytest.mark.parametrize(
  ("a", "b", "same"),
  [
    ("The Chair.", "a wooden chair with arms", True),
    ("wooden", "Wooden!", True),
    ("stone", "a wooden chair", False),
    ("a", "a wooden chair", False),
    ("...", "a wooden chair", False),
    ("", "", False),
    ("unknown", "two", False),
  ],
)
def test_agreement(a, b, same):
  assert agree(a, b) == agree(b, a) == same


def test_plain():
  assert plain(" The (red)  Chair, an old one. ") == "red chair old one"
