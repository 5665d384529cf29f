"""Schedules and updates, and recipes that would climb or stand still."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

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
    (bent(name="warmup_linear", final=-0.5), "final is -0.5"),
    (bent(name="exponential", every=0), "every is 0; expected 1"),
    (bent(name="exponential", factor=float("nan")), "factor is nan"),
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


def rates(name, steps, *, peak=0.8, warmup=4, total=12, **more):
  schedule = dict(name=name, peak=peak, warmup=warmup, **more)
  recipe = dict(name="adamw", schedule=schedule)
  _, found = make_optimizer(recipe, {"a": jnp.ones(2)}, total)
  return [float(found(step)) for step in steps]


@pytest.mark.parametrize(
  "name, more, after",
  [
    # The rate after the warmup, in steps 4, 8, 12 and 40 of 12.
    ("warmup_constant", {}, [0.8, 0.8, 0.8, 0.8]),
    ("warmup_cosine", {}, [0.8, 0.4, 0.0, 0.0]),
    ("warmup_cosine", dict(final=0.25), [0.8, 0.5, 0.2, 0.2]),
    ("warmup_linear", {}, [0.8, 0.4, 0.0, 0.0]),
    ("warmup_linear", dict(final=0.5), [0.8, 0.6, 0.4, 0.4]),
    ("exponential", dict(every=5), [0.8, 0.8, 0.08, 8e-8]),
    ("exponential", dict(factor=0.5, every=4), [0.8, 0.4, 0.2, 0.8 / 512]),
  ],
)
def test_schedules(name, more, after):
  np.testing.assert_allclose(
    rates(name, [0, 1, 3, 4, 8, 12, 40], **more),
    [0.0, 0.2, 0.6, *after],
    rtol=1e-5,
    atol=1e-7,
  )
  # Without a warmup the first step already learns.
  shifted = [0, 4, 8, 36]
  np.testing.assert_allclose(
    rates(name, shifted, warmup=0, total=8, **more),
    after,
    rtol=1e-5,
    atol=1e-7,
  )


def test_a_cosine_that_falls_once_an_epoch():
  name, more = "warmup_cosine_steps", dict(first=0.25, final=0.5, every=4)
  found = rates(name, [0, 1, 3, 4, 7, 8, 11, 12, 40], warmup=2, **more)
  third = 0.4 + 0.2 * (1 + np.cos(np.pi / 3))
  two_thirds = 0.4 + 0.2 * (1 + np.cos(2 * np.pi / 3))
  expected = [0.2, 0.5, 0.8, third, third, two_thirds, two_thirds, 0.4, 0.4]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  without = rates(name, [0, 4], warmup=0, every=4)
  np.testing.assert_allclose(without, [0.8, 0.6], rtol=1e-5)
  with pytest.raises(ValueError, match="beyond the first 3.*Raise `every`"):
    rates(name, [0], warmup=4, every=3)


def test_adamw_is_pytorchs_with_groups_and_clipping():
  random = np.random.RandomState(0)
  start = {k: random.randn(3, 4).astype(np.float32) for k in ("x", "y", "z")}
  recipe = dict(
    name="adamw",
    b2=0.95,
    clip_norm=2.0,
    weight_decay=[("x", 0.0), (".*", 0.1)],
    lr_scale=[("y", 0.5), (".*", 1.0)],
    schedule=dict(name="warmup_constant", peak=0.1, warmup=3),
  )
  params = jax.tree.map(jnp.asarray, start)
  tx, schedule = make_optimizer(recipe, params, 10)
  state, update = tx.init(params), jax.jit(tx.update)
  theirs = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in start.items()}
  groups = [
    dict(params=[theirs["x"]], weight_decay=0.0, lr=0.1),
    dict(params=[theirs["y"]], weight_decay=0.1, lr=0.05),
    dict(params=[theirs["z"]], weight_decay=0.1, lr=0.1),
  ]
  peer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
  warm = torch.optim.lr_scheduler.LambdaLR(peer, lambda n: min(n / 3, 1.0))
  for _ in range(6):
    grads = {k: random.randn(3, 4).astype(np.float32) for k in start}
    updates, state = update(grads, state, params)
    params = optax.apply_updates(params, updates)
    for name, value in theirs.items():
      value.grad = torch.tensor(grads[name])
    torch.nn.utils.clip_grad_norm_(theirs.values(), 2.0)
    peer.step()
    warm.step()
  for name, value in theirs.items():
    np.testing.assert_allclose(
      params[name], value.detach().numpy(), rtol=1e-4, atol=1e-6
    )


def test_lion_takes_the_sign():
  recipe = dict(
    name="lion", schedule=dict(name="warmup_constant", peak=0.1, warmup=0)
  )
  params = {"a": jnp.zeros(3)}
  tx, _ = make_optimizer(recipe, params, 10)
  grads = {"a": jnp.array([3.0, -0.01, 0.0])}
  updates, _ = tx.update(grads, tx.init(params), params)
  np.testing.assert_allclose(updates["a"], [-0.1, 0.1, 0.0], rtol=1e-6)
