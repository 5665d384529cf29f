"""A table of features in an encoder's place."""

import jax.numpy as jnp
import numpy as np

from mmjax.encoders.features import FeatureTable, principal


def test_keys_outside_the_table_do_not_pass_for_others():
  table = jnp.arange(12.0).reshape(3, 2, 2)
  encoder = FeatureTable(size=3, tokens=2, width=2)
  keys = jnp.array([2, -1, 3])
  found = encoder.apply({"params": {"table": table}}, keys)
  np.testing.assert_array_equal(found[0], table[2])
  assert not found[1].any()
  assert np.isnan(found[2]).all()


def test_principal_components_of_features():
  random = np.random.RandomState(0)
  spread = np.array([0.5, 4.0, 1.0, 2.0])
  turn = np.linalg.qr(random.randn(4, 4))[0]
  features = (random.randn(50, 6, 4) * spread) @ turn + 3.0
  reduction = principal(features, 2)
  reduced = reduction(features)
  assert reduced.shape == (50, 6, 2) and reduced.dtype == np.float16
  flat = reduced.reshape(-1, 2).astype(np.float64)
  np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-3)
  # The two widest directions, the widest first; their mean variance is 1.
  variance = flat.var(axis=0)
  np.testing.assert_allclose(variance.mean(), 1, rtol=1e-2)
  np.testing.assert_allclose(variance[0] / variance[1], 4, rtol=0.3)
  along = np.abs(turn[[1, 3]] @ reduction.components)
  assert along[0, 0] > 5 * along[1, 0] and along[1, 1] > 5 * along[0, 1]
  # An eigenvector has no sign; the largest entry is made positive.
  columns = reduction.components.T
  assert all(column[np.abs(column).argmax()] > 0 for column in columns)
  mirrored = principal(-features, 2).components
  np.testing.assert_allclose(mirrored, reduction.components, rtol=1e-4)
