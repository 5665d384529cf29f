"""Decoding token by token: greedy, temperature, top-k, top-p.

A system takes part through three verbs and a state:

  start(batch, size, media) -> state        room for tokens and media
  prefill(batch, state) -> logits, state    a prompt, padded on either side
  decode(tokens, state) -> logits, state    the next tokens
  state.rows(indices) -> state              rows of the batch, for beams

The whole loop is one compiled function; shapes are static and the loop ends
early when every row has ended.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from mmjax.typing import Array, Batch, Bool, Float, Int, Params


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How the next token is chosen.

  Attributes:
    max_new_tokens: length of the result.
    stop: ids that end a row; the id itself is kept.
    temperature: 0 takes the best token; 1 samples from the model.
    top_k: samples from the k best; 0 for all.
    top_p: samples from the smallest set of best tokens whose probabilities
      sum to at least p; 1 for all.
    pad: id behind the end of a row.
  """

  max_new_tokens: int
  stop: tuple[int, ...] = ()
  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  pad: int = 0

  def __post_init__(self):
    if self.max_new_tokens < 1 or self.temperature < 0 or self.top_k < 0:
      raise ValueError(
        f"{self}: max_new_tokens must be positive, temperature and top_k not "
        "negative."
      )
    if not 0 < self.top_p <= 1:
      raise ValueError(f"top_p is {self.top_p}; expected 0 < top_p <= 1.")


@struct.dataclass
class Generated:
  """New tokens of each row.

  Attributes:
    tokens: ids, `pad` behind the end.
    mask: True for tokens that belong to the row, its stop id included.
    log_probs: of each token under the model's own distribution.
    state: of the decoding, to go on from.
  """

  tokens: Int[Array, "B L"]
  mask: Bool[Array, "B L"]
  log_probs: Float[Array, "B L"]
  state: Any = None


def generate(
  module: nn.Module,
  params: Params,
  batch: Batch,
  sampling: Sampling,
  *,
  key: Array | None = None,
) -> Generated:
  """Continues every prompt of a batch.

  Args:
    module: a system with the verbs above.
    params: its parameters.
    batch: prompts of any lengths, padded on either side; `segments` is 0 on
      padding.
    sampling: see Sampling.
    key: needed when temperature is not 0.
  """
  if sampling.temperature and key is None:
    raise ValueError("Sampling with a temperature needs key=jax.random.key(…).")
  key = jax.random.key(0) if key is None else key
  return _generate(module, params, batch, sampling, key)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _generate(module, params, batch, sampling, key):
  rows, length = batch["tokens"].shape
  logits, state = prefill(
    module, params, batch, length + sampling.max_new_tokens
  )
  stop = jnp.asarray(sampling.stop or (-1,))
  shape = (rows, sampling.max_new_tokens)

  def body(carry):
    i, logits, state, done, out = carry
    token = choose(logits, sampling, jax.random.fold_in(key, i))
    log_prob = jnp.take_along_axis(
      jax.nn.log_softmax(logits), token[:, None], axis=1
    )[:, 0]
    token = jnp.where(done, sampling.pad, token)
    out = Generated(
      out.tokens.at[:, i].set(token),
      out.mask.at[:, i].set(~done),
      out.log_probs.at[:, i].set(jnp.where(done, 0.0, log_prob)),
    )
    done |= jnp.isin(token, stop)
    logits, state = apply(module, params, "decode", token[:, None], state)
    return i + 1, logits[:, 0], state, done, out

  def going(carry):
    return (carry[0] < sampling.max_new_tokens) & ~carry[3].all()

  out = Generated(
    jnp.full(shape, sampling.pad),
    jnp.zeros(shape, bool),
    jnp.zeros(shape, jnp.float32),
  )
  carry = (0, logits, state, jnp.zeros(rows, bool), out)
  *_, state, _, out = jax.lax.while_loop(going, body, carry)
  return out.replace(state=state)


def apply(module: nn.Module, params: Params, verb: str, *args):
  """One verb of a system."""
  return module.apply({"params": params}, *args, method=verb)


def prefill(module: nn.Module, params: Params, batch: Batch, size: int):
  """A fresh state with room for `size` tokens that has read the prompts."""
  rows = batch["tokens"].shape[0]
  media = sum(m["mask"].shape[1] for m in batch.get("media", {}).values())
  state = apply(module, params, "start", rows, size, max(media, 1))
  return apply(module, params, "prefill", batch, state)


def choose(
  logits: Float[Array, "B V"], sampling: Sampling, key: Array
) -> Int[Array, "B"]:
  """The next token of each row."""
  if sampling.temperature == 0:
    return jnp.argmax(logits, axis=-1)
  logits = logits / sampling.temperature
  if sampling.top_k:
    kth = jax.lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0]
    logits = jnp.where(logits < kth[:, -1:], -jnp.inf, logits)
  if sampling.top_p < 1:
    logits = _nucleus(logits, sampling.top_p)
  return jax.random.categorical(key, logits)


def _nucleus(logits, top_p):
  """Keeps the best tokens up to the one with which their sum reaches top_p."""
  ordered = jnp.sort(logits, axis=-1)[:, ::-1]
  probabilities = jax.nn.softmax(ordered)
  before = jnp.cumsum(probabilities, axis=-1) - probabilities
  kept = jnp.sum(before < top_p, axis=-1, keepdims=True)
  threshold = jnp.take_along_axis(ordered, kept - 1, axis=-1)
  return jnp.where(logits < threshold, -jnp.inf, logits)
