"""Decoding token by token: greedy, temperature, top-k, top-p.

A system takes part through three verbs and a state:

  start(batch, size, media) -> state        room for tokens and media
  prefill(batch, state) -> logits, state    a prompt, padded on either side
  decode(tokens, state, real) -> ...        the next tokens, or padding
  state.rows(indices) -> state              rows of the batch, for beams
  state.overflowed                          more was written than there is room

Logits are NaN from the moment that a state overflows. The functions here make
states that are large enough, unless they are given one.

The whole loop is one compiled function; shapes are static and the loop ends
early when every row has ended.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from mmjax.generation.penalties import NONE, Penalties
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
    penalties: on what a row has already; see Penalties.
  """

  max_new_tokens: int
  stop: tuple[int, ...] = ()
  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  pad: int = 0
  penalties: Penalties = NONE

  def __post_init__(self):
    hot = 0 <= self.temperature < math.inf
    if self.max_new_tokens < 1 or not hot or self.top_k < 0:
      raise ValueError(
        f"{self}: max_new_tokens must be positive, temperature and top_k not "
        "negative, and finite."
      )
    if not 0 < self.top_p <= 1:
      raise ValueError(f"top_p is {self.top_p}; expected 0 < top_p <= 1.")
    if not self.temperature and (self.top_k or self.top_p < 1):
      raise ValueError(
        f"top_k is {self.top_k} and top_p {self.top_p}, but with temperature 0 "
        "nothing is sampled. Set temperature=1, or leave them out."
      )


@struct.dataclass
class Generated:
  """New tokens of each row.

  Attributes:
    tokens: ids, `pad` behind the end.
    mask: True for tokens that belong to the row, its stop id included.
    log_probs: of each token under the model's own distribution.
    state: that has read the prompts and these tokens.
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
  state: Any = None,
) -> Generated:
  """Continues every prompt of a batch.

  A conversation hands the state on, with room for all its turns:

    state = module.apply(variables, rows, 512, 8, method="start")
    out = generate(module, params, first_turn, sampling, state=state)
    out = generate(module, params, next_turn, sampling, state=out.state)

  Args:
    module: a system with the verbs above.
    params: its parameters.
    batch: prompts of any lengths, padded on either side; `segments` is 0 on
      padding.
    sampling: see Sampling.
    key: needed when temperature is not 0.
    state: what the prompts follow, with room for them and max_new_tokens;
      None for a fresh one of the right size.

  Raises:
    ValueError: when a given state has not enough room.
  """
  if sampling.temperature and key is None:
    raise ValueError("Sampling with a temperature needs key=jax.random.key(…).")
  key = jax.random.key(0) if key is None else key
  out = _generate(module, params, batch, sampling, key, state)
  if state is not None and not isinstance(out.tokens, jax.core.Tracer):
    _refuse_overflow(out.state, batch, sampling)
  return out


def _refuse_overflow(state: Any, batch: Batch, sampling: Sampling) -> None:
  if state.overflowed:
    raise ValueError(
      f"The state had no room for a prompt of {batch['tokens'].shape[1]} "
      f"tokens and {sampling.max_new_tokens} new ones, or for the prompt's "
      "media. Start it with a larger `size` or `media`."
    )


@functools.partial(jax.jit, static_argnums=(0, 3))
def _generate(module, params, batch, sampling, key, state):
  rows, length = batch["tokens"].shape
  if state is None:
    size = length + sampling.max_new_tokens
    logits, state = prefill(module, params, batch, size)
  else:
    logits, state = apply(module, params, "prefill", batch, state)
  stop = jnp.asarray(sampling.stop or (-1,))
  shape = (rows, sampling.max_new_tokens)

  def body(carry):
    i, logits, state, done, out = carry
    scores = sampling.penalties(logits, out.tokens, i, stop)
    token = choose(scores, sampling, jax.random.fold_in(key, i))
    log_prob = jnp.take_along_axis(
      jax.nn.log_softmax(logits), token[:, None], axis=1
    )[:, 0]
    token = jnp.where(done, sampling.pad, token)
    out = Generated(
      out.tokens.at[:, i].set(token),
      out.mask.at[:, i].set(~done),
      out.log_probs.at[:, i].set(jnp.where(done, 0.0, log_prob)),
    )
    read = (token[:, None], state, ~done[:, None])
    logits, state = apply(module, params, "decode", *read)
    done |= jnp.isin(token, stop)
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
