"""Beam search with the bookkeeping of Hugging Face's `generate`.

Each step scores all continuations of K beams and looks at the best 2K. Those
that end and rank among the first K join the finished hypotheses, of which the
K best are kept; the best K that do not end go on. A row is done when it has K
finished hypotheses and no running beam can beat the worst of them.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from mmjax.generation.penalties import NONE, Penalties
from mmjax.generation.sample import apply, prefill
from mmjax.typing import Array, Batch, Bool, Float, Int, Params

LOW = -1e9


@struct.dataclass
class Beams:
  """Sequences with scores: running ones, or finished ones.

  Attributes:
    tokens: new ids.
    scores: running: summed log-probabilities; finished: divided by
      length ** length_penalty. LOW where there is none.
  """

  tokens: Int[Array, "B K L"]
  scores: Float[Array, "B K"]


@dataclasses.dataclass(frozen=True)
class Lengths:
  """What divides the scores of sequences.

  Attributes:
    penalty: exponent of the length.
    prompt: length of the prompt where it counts and the stop id does not.
  """

  penalty: float
  prompt: int | None

  def running(self, scores: Array, new: Int[Array, ""]) -> Array:
    """Scores of sequences with so many new tokens, none a stop id."""
    length = new + (self.prompt or 0)
    return scores / length.astype(jnp.float32) ** self.penalty

  def ended(self, scores: Array, new: Int[Array, ""]) -> Array:
    """The same for sequences of which the last new token is the stop id."""
    return self.running(scores, new if self.prompt is None else new - 1)


def beam_search(
  module: nn.Module,
  params: Params,
  batch: Batch,
  *,
  max_new_tokens: int,
  num_beams: int = 3,
  stop: int = -1,
  length_penalty: float = 1.0,
  count_prompt: bool = False,
  pad: int = 0,
  penalties: Penalties = NONE,
) -> Beams:
  """The K best continuations of each row, best first.

  Args:
    module, params, batch: see `sample.generate`.
    max_new_tokens: length of the result, `pad` behind a row's end.
    num_beams: K; Flamingo uses 3.
    stop: id that ends a sequence; it is kept.
    length_penalty: exponent of the length that divides a score; 0 ranks by
      the sum of log-probabilities, which favours short answers.
    count_prompt: lengths are those of transformers 4.35 and OpenFlamingo's
      time: the prompt and its padding count, the stop id does not.
    pad: see above.
    penalties: on what a beam has already, changing its log-probabilities.
  """
  prompt = batch["tokens"].shape[1] if count_prompt else None
  sizes = (max_new_tokens, num_beams, stop, pad)
  lengths = Lengths(length_penalty, prompt)
  return _search(module, sizes, lengths, penalties, params, batch)


@functools.partial(jax.jit, static_argnums=range(4))
def _search(module, sizes, lengths, penalties, params, batch):
  length, beams, stop, pad = sizes
  rows, prompt = batch["tokens"].shape
  logits, state = prefill(module, params, batch, prompt + length)
  state = state.rows(jnp.repeat(jnp.arange(rows), beams))
  logits = jnp.repeat(logits, beams, axis=0)
  empty = jnp.full((rows, beams, length), pad)
  first = jnp.where(jnp.arange(beams) == 0, 0.0, LOW)
  running = Beams(empty, jnp.broadcast_to(first, (rows, beams)))
  finished = Beams(empty, jnp.full((rows, beams), LOW))
  step = functools.partial(
    _step, stop=stop, lengths=lengths, penalties=penalties
  )

  def body(carry):
    i, logits, state, running, finished, ended = carry
    running, finished, done, parents = step(i, logits, running, finished, ended)
    state = state.rows(parents)
    # Rows that have ended read padding, whatever else they would have written.
    token = jnp.where(ended[:, None], pad, running.tokens[:, :, i])
    token = token.reshape(-1, 1)
    logits, state = apply(module, params, "decode", token, state)
    return i + 1, logits[:, 0], state, running, finished, done

  def going(carry):
    return (carry[0] < length) & ~carry[-1].all()

  carry = (0, logits, state, running, finished, jnp.zeros(rows, bool))
  i, *_, running, finished, done = jax.lax.while_loop(going, body, carry)
  open_ended = jnp.where(done[:, None], LOW, lengths.running(running.scores, i))
  return _best(finished, Beams(running.tokens, open_ended))


def _step(
  i: Int[Array, ""],
  logits: Float[Array, "BK V"],
  running: Beams,
  finished: Beams,
  done: Bool[Array, "B"],
  *,
  stop: int,
  lengths: Lengths,
  penalties: Penalties,
):
  """One token more; returns the beams and the cache rows they came from."""
  rows, beams = running.scores.shape
  vocab = logits.shape[-1]
  written = running.tokens.reshape(rows * beams, -1)
  scores = jax.nn.log_softmax(logits)
  scores = penalties(scores, written, i, jnp.asarray([stop]))
  scores = scores.reshape(rows, beams, vocab) + running.scores[..., None]
  scores = scores.reshape(rows, -1)
  scores, flat = jax.lax.top_k(scores, 2 * beams)
  parent, token = flat // vocab, flat % vocab
  tokens = jnp.take_along_axis(running.tokens, parent[..., None], axis=1)
  tokens = tokens.at[:, :, i].set(token)
  ends = token == stop

  counted = ends & (jnp.arange(2 * beams) < beams) & ~done[:, None]
  new = Beams(tokens, jnp.where(counted, lengths.ended(scores, i + 1), LOW))
  finished = _best(finished, new)
  full = finished.scores.min(axis=1) > LOW / 2
  worst = finished.scores.min(axis=1)
  done |= full & (worst >= lengths.running(scores.max(axis=1), i + 1))

  scores, keep = jax.lax.top_k(jnp.where(ends, LOW, scores), beams)
  tokens = jnp.take_along_axis(tokens, keep[..., None], axis=1)
  parent = jnp.take_along_axis(parent, keep, axis=1)
  parents = (parent + beams * jnp.arange(rows)[:, None]).reshape(-1)
  return Beams(tokens, scores), finished, done, parents


def _best(old: Beams, new: Beams) -> Beams:
  """The K best of both, best first."""
  scores = jnp.concatenate([old.scores, new.scores], axis=1)
  tokens = jnp.concatenate([old.tokens, new.tokens], axis=1)
  scores, keep = jax.lax.top_k(scores, old.scores.shape[1])
  return Beams(jnp.take_along_axis(tokens, keep[..., None], axis=1), scores)
