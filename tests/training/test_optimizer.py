"""Recipes that would climb, stand still or are not whole."""

import jax.numpy as jnp
import pytest

from mmjax.training.optimizer import make_optimizer

GOOD = dict(
  name="adamw",
  clip_norm=1.0,
  schedule=dict(name="warmup_constant", peak=0.1, warmup=2),
)


def bent(**changes):
  return GOOD | {"schedule": GOOD["schedule"] | changes}


@pytest.mark.parametrize(
  "recipe, message",
  [
    (GOOD | dict(clip_norm=-1.0), "clip_norm is -1.0"),
    (GOOD | dict(clip_norm=float("nan")), "clip_norm is nan"),
    (bent(peak=-0.1), "peak is -0.1"),
    (bent(peak=float("inf")), "peak is inf"),
    (bent(peak="0.1"), "'peak' is '0.1', expected float"),
    (bent(warmup=-1), "warmup is -1"),
    (GOOD | dict(schedule=3), "is no dict"),
    ({"name": "adamw"}, "no 'schedule'"),
    ({"schedule": GOOD["schedule"]}, "no 'name'"),
  ],
)
def test_what_is_wrong_is_named(recipe, message):
  params = {"a": jnp.ones(2)}
  make_optimizer(GOOD, params, 10)
  with pytest.raises(ValueError, match=message):
    make_optimizer(recipe, params, 10)
