"""Dims that move, against what NumPy does when told by hand."""

import numpy as np
import pytest

from mmjax.convert.dims import rearrange
from mmjax.convert.rules import rearrange_back

X = np.arange(24)

CASES = {
  "F D -> D F": (X.reshape(4, 6), (6, 4), lambda x: x.T),
  "(N H) D -> D N H": (
    X.reshape(6, 4),
    (4, 2, 3),
    lambda x: x.reshape(2, 3, 4).transpose(2, 0, 1),
  ),
  "D (N H) -> N H D": (
    X.reshape(4, 6),
    (2, 3, 4),
    lambda x: x.reshape(4, 2, 3).transpose(1, 2, 0),
  ),
  "(X N H) D -> X D N H": (
    X.reshape(12, 2),
    (3, 2, 2, 2),
    lambda x: x.reshape(3, 2, 2, 2).transpose(0, 3, 1, 2),
  ),
  "(N X H) D -> X D N H": (
    X.reshape(12, 2),
    (3, 2, 2, 2),
    lambda x: x.reshape(2, 3, 2, 2).transpose(1, 3, 0, 2),
  ),
  "O I h w -> h w I O": (
    X.reshape(2, 3, 2, 2),
    (2, 2, 3, 2),
    lambda x: x.transpose(2, 3, 1, 0),
  ),
  "O () () () -> O": (X.reshape(24, 1, 1, 1), (24,), lambda x: x.ravel()),
}


@pytest.mark.parametrize("dims", CASES)
def test_there_and_back(dims):
  array, shape, by_hand = CASES[dims]
  moved = rearrange(array, dims, shape)
  np.testing.assert_array_equal(moved, by_hand(array))
  assert moved.shape == shape
  np.testing.assert_array_equal(rearrange_back(moved, dims), array)


@pytest.mark.parametrize(
  "dims, shape, given, message",
  [
    ("F D -> D F", (6, 5), (4, 6), "not"),
    ("F D -> D F", (24,), (4, 6), "on the right"),
    ("F D -> D F", (6, 4), (24,), "on the left"),
    ("(N H) D -> D N H", (4, 5, 3), (6, 4), "not"),
    (None, (5,), (4,), "expected shape"),
    ("O () -> O", (4,), (4, 2), "not"),
  ],
)
def test_sizes_that_do_not_agree(dims, shape, given, message):
  with pytest.raises(ValueError, match=message):
    rearrange(np.zeros(given), dims, shape)
