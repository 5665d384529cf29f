"""A table of features in an encoder's place."""

import jax.numpy as jnp
import numpy as np

from mmjax.encoders.features import FeatureTable


def test_keys_outside_the_table_do_not_pass_for_others():
  table = jnp.arange(12.0).reshape(3, 2, 2)
  encoder = FeatureTable(size=3, tokens=2, width=2)
  keys = jnp.array([2, -1, 3])
  found = encoder.apply({"params": {"table": table}}, keys)
  np.testing.assert_array_equal(found[0], table[2])
  assert not found[1].any()
  assert np.isnan(found[2]).all()
