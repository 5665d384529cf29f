"""Programs for a TPU or a GPU are compiled as for those who run them."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def all_passes():
  with pytest.MonkeyPatch.context() as patch:
    patch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)
    quick = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", quick)
