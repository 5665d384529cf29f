"""Log-likelihood of given answers, for closed-ended tasks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.generation.sample import apply, prefill
from mmjax.typing import Array, Batch, Float, Int, Params


@functools.partial(jax.jit, static_argnums=0)
def score_answers(
  module: nn.Module,
  params: Params,
  batch: Batch,
  answers: Int[Array, "A L"],
  lengths: Int[Array, "A"],
) -> Float[Array, "B A"]:
  """Summed log-probability of each answer after each prompt.

  The prompt is read once; every answer continues from its state.

  Args:
    module, params, batch: see `sample.generate`.
    answers: ids of A answers, right-padded.
    lengths: tokens of each answer, at least 1.
  """
  rows, prompt = batch["tokens"].shape
  size = answers.shape[1]
  first, state = prefill(module, params, batch, prompt + size)

  def one(answer):
    tokens, length = answer
    tokens = jnp.broadcast_to(tokens, (rows, size))
    later, _ = apply(module, params, "decode", tokens, state)
    logits = jnp.concatenate([first[:, None], later[:, :-1]], axis=1)
    log_probs = jnp.take_along_axis(
      jax.nn.log_softmax(logits), tokens[..., None], axis=-1
    )[..., 0]
    return jnp.where(jnp.arange(size) < length, log_probs, 0.0).sum(axis=1)

  return jax.lax.map(one, (answers, lengths)).T
