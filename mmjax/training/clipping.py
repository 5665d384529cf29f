"""Gradient clipping: adaptive for some parameters, by norm for the others."""

import re
from collections.abc import Mapping

import jax.numpy as jnp
import optax

from mmjax import tree
from mmjax.typing import Array, Params

# Paths of parameters whose first dim counts layers, see layers/stack.py.
STACKED = re.compile(r"(.*/)?(layers|blocks|rest)/.*")


def clip_gradients(
  limits: Params, norm: float = 0.0
) -> optax.GradientTransformation:
  """Clips every parameter in one of two ways.

  Flamingo's contrastive pretraining clips the NFNet adaptively and the text
  tower by its norm (arXiv 2204.14198 v2, B.1.3).

  Args:
    limits: a number for each parameter: largest ratio of a unit's gradient to
      the unit; 0 for those that are clipped by norm.
    norm: largest norm of all gradients of the others together; 0 is any.
  """
  limits = tree.flatten(limits)

  def update(updates, state, params):
    grads, weights = tree.flatten(updates), tree.flatten(params)
    scale = _norm_scale({k: g for k, g in grads.items() if not limits[k]}, norm)
    clipped = {
      path: _adaptive(grad, weights[path], limits[path], path)
      if limits[path]
      else grad * scale.astype(grad.dtype)
      for path, grad in grads.items()
    }
    return tree.unflatten(clipped), state

  return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _norm_scale(grads: Mapping[str, Array], norm: float) -> Array:
  if not norm or not grads:
    return jnp.ones(())
  found = optax.tree.norm(grads)
  return jnp.where(found < norm, 1.0, norm / jnp.maximum(found, 1e-16))


def _adaptive(grad: Array, weight: Array, limit: float, path: str) -> Array:
  """Brock et al., arXiv 2102.06171, section 4.1; 1e-3 for weights of 0.

  A unit is what feeds one output channel, the last dim; a vector is one unit.
  optax's version takes the layers of a stack for one kernel.
  """
  rank = grad.ndim - bool(STACKED.fullmatch(path))
  first = grad.ndim - rank
  dims = tuple(range(first, grad.ndim - (rank > 1)))

  def length(x):
    square = jnp.square(x.astype(jnp.float32))
    return jnp.sqrt(jnp.sum(square, axis=dims, keepdims=True))

  largest = limit * jnp.maximum(length(weight), 1e-3)
  found = length(grad)
  scale = jnp.where(found > largest, largest / jnp.maximum(found, 1e-6), 1.0)
  return grad * scale.astype(grad.dtype)
