"""A conversation: answers as they come, over a state that goes on.

  chat = Conversation(module, params, encoder, tokenizer, sampling)
  for piece in chat.say(Document((picture, Text("What is it?")))):
    print(piece, end="", flush=True)
  answer = "".join(chat.say(Document((Text("Which colour?"),))))

What was read stays in the state, its images included; a turn adds its own:

  turn 1   <s> A chat … USER: <image> What is it? ASSISTANT: | A cat.
  turn 2   </s> USER: Which colour? ASSISTANT:               | Black.
           read at once, padded to a power of two            | one by one

The end of an answer is read with the next question, so that it is the same
whether the model said it, was stopped, or ran out of tokens. Whatever the state
cannot go on with is read anew as one document: what lost its oldest turns,
what an interrupt left half read, and templates whose answers end in a text.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.generation.sample import Sampling, apply, choose
from mmjax.text.prompts.base import TooLong
from mmjax.text.tokenizer import Tokenizer
from mmjax.typing import Array, Batch, Int, Params

log = logging.getLogger(__name__)

# Tokens between two looks at what was said: enough that waiting for them
# costs little, few enough to read along.
CHUNK = 8


class Streamed:
  """The text of tokens that come bit by bit; what was shown stays.

    ids        text              shown
    ▁A         "A"               "A"
    ▁c         "A c"             " c"
    0xC3       "A c\\ufffd"       ""     a character of which a byte is lacking
    0xA9 #     "A cé#"           "é"    "#" may begin the stop "###"

  Attributes:
    text: all of it, without spaces around it.
    stopped: whether the text that ends an answer came.
  """

  def __init__(self, decode: Callable[[Sequence[int]], str], stop: str = ""):
    """Begins one.

    Args:
      decode: ids to text.
      stop: a text that ends it; "" for none.
    """
    self._decode, self._stop = decode, stop
    self._ids: list[int] = []
    self._shown = ""
    self.text, self.stopped = "", False

  def add(self, ids: Sequence[int]) -> str:
    """What can be shown with these ids and could not before."""
    self._ids += ids
    whole = self._decode(self._ids)
    self.text, stop, _ = (
      whole.partition(self._stop) if self._stop else (whole, "", "")
    )
    self.text, self.stopped = self.text.strip(), bool(stop)
    return self._show(self.text if stop else self._settled(whole))

  def end(self) -> str:
    """What is left to show."""
    return self._show(self.text)

  def _settled(self, text: str) -> str:
    """The text up to where further ids may change it."""
    text = text.rstrip("\ufffd")
    sizes = range(len(self._stop), 0, -1)
    held = next((i for i in sizes if text.endswith(self._stop[:i])), 0)
    return text[: len(text) - held].strip()

  def _show(self, text: str) -> str:
    # Bytes of one character may, for a while, spoil those before.
    if not text.startswith(self._shown):
      return ""
    new, self._shown = text[len(self._shown) :], text
    return new


class Conversation:
  """Questions and answers, each knowing those before.

  Attributes:
    sampling: how tokens are chosen; `max_new_tokens` of an answer.
  """

  def __init__(
    self,
    module: nn.Module,
    params: Params,
    encoder: Any,
    tokenizer: Tokenizer,
    sampling: Sampling,
    seed: int = 0,
  ):
    """Begins one.

    Args:
      module: a system with the verbs of generation/sample.py, and a state that
        has `freed`.
      params: its parameters.
      encoder: with `query`, `follow` and `alone`, such as data.encoder.Encoder;
        its prompt says how many tokens and media the model reads at most.
      tokenizer: of the system.
      sampling: see above.
      seed: of sampling.
    """
    self._module, self._params = module, params
    self._encoder, self._tokenizer = encoder, tokenizer
    self.sampling, self._seed = sampling, seed
    self._answering: Generator[str, None, None] | None = None
    self.reset()

  def reset(self) -> None:
    """Forgets all that was said."""
    self._leave()
    self._turns: list[Any] = []
    self._state: Any = None
    self._used = self._said = 0

  def _leave(self) -> None:
    """Ends an answer that nobody has heard to its end."""
    if self._answering is not None:
      self._answering.close()

  @property
  def turns(self) -> tuple[Any, ...]:
    """What is remembered: documents of a question and its answer each."""
    return tuple(self._turns)

  def say(self, document: Any) -> Generator[str, None, None]:
    """Answers a question, piece by piece.

    An answer that is left early, by `break`, an interrupt or the next question,
    is what was said so far, and the conversation goes on from there.

    Args:
      document: the question, with its images.

    Returns:
      pieces of the answer, which together are what evaluation.model.Model says
      after the whole conversation.

    Raises:
      ValueError: for a question that cannot be read or does not fit; the
        conversation is as before.
    """
    self._leave()
    batch = self._batch(document)
    key = jax.random.fold_in(jax.random.key(self._seed), self._said)
    token = self._read(batch, key)
    self._said += 1
    self._turns.append(document.answered(""))
    self._answering = self._answer(document, token, key)
    return self._answering

  def _answer(
    self, document: Any, token: int, key: Array
  ) -> Generator[str, None, None]:
    turns, prompt = self._turns, self._encoder.prompt
    answer = Streamed(self._tokenizer.decode, prompt.stop_text)
    try:
      yield from self._pieces(token, key, answer)
    finally:
      turns[-1] = document.answered(answer.text)
      if prompt.stop_text:
        # The state may have read beyond it.
        self._state = None

  def _pieces(self, token: int, key: Array, answer: Streamed) -> Iterator[str]:
    count, limit = 0, self.sampling.max_new_tokens
    while count < limit and not answer.stopped:
      if token in self.sampling.stop:
        break
      state, self._state = self._state, None  # Donated: see _read.
      tokens, read, following, state = _decode(
        self._module,
        self._params,
        token,
        state,
        self.sampling,
        key,
        count,
        min(CHUNK, limit - count),
      )
      new, token = np.asarray(tokens)[: int(read)].tolist(), int(following)
      count, self._used = count + len(new), self._used + len(new)
      piece = answer.add(new)
      self._state = state
      if piece:
        yield piece
    if rest := answer.end():
      yield rest

  def _read(self, batch: Batch, key: Array) -> int:
    """Reads a question and chooses the first token of its answer."""
    state = self._state
    if state is None:
      media = max(self._encoder.prompt.media, 1)
      state = _start(self._module, self._params, self._size, media)
      self._used = 0
    # The computation takes the old state's memory: an interrupt before it has
    # handed the new one over leaves none, and all is read anew next time.
    self._state = None
    token, state = _prefill(
      self._module, self._params, batch, state, self.sampling, key
    )
    first = int(token[0])
    self._used += int((batch["segments"] > 0).sum())
    self._state = state
    return first

  @property
  def _size(self) -> int:
    """Tokens that the state has room for."""
    return self._encoder.prompt.length + self.sampling.max_new_tokens

  def _batch(self, document: Any) -> Batch:
    """What is to be read: a question, or all of the conversation before it."""
    if self._state is not None:
      example = self._encoder.follow(document, ended=False)
      batch = self._encoder.alone(example)
      if self._fits(batch, document):
        return _without_blanks(batch)
    turns = list(self._turns)
    while True:
      try:
        example = self._encoder.query(_joined([*turns, document]))
        break
      except TooLong:
        if not turns:
          raise
        turns.pop(0)
    if gone := len(self._turns) - len(turns):
      log.warning(
        "The conversation no longer fits %d tokens and %d images: its oldest "
        "%s forgotten.",
        *(self._encoder.prompt.length, self._encoder.prompt.media),
        "turn is" if gone == 1 else f"{gone} turns are",
      )
    self._turns, self._state = turns, None
    return _without_blanks(self._encoder.alone(example))

  def _fits(self, batch: Batch, document: Any) -> bool:
    """Whether the state has room for a question, by the rule for a whole."""
    prompt = self._encoder.prompt
    real = int((batch["segments"] > 0).sum())
    media = sum(len(turn.media) for turn in (*self._turns, document))
    return (
      media <= prompt.media
      and self._used + real <= prompt.length
      and self._used + batch["tokens"].shape[1] <= self._size
    )


def _joined(documents: Sequence[Any]) -> Any:
  segments = tuple(s for document in documents for s in document.segments)
  return dataclasses.replace(documents[-1], segments=segments)


def _without_blanks(batch: Batch) -> Batch:
  """A batch of text does not run the encoder on empty slots."""
  media = {k: m for k, m in batch["media"].items() if m["mask"].any()}
  return batch | {"media": media}


# Compiled, as arrays that are one in memory cannot be handed on.
@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _start(module: nn.Module, params: Params, size: int, media: int) -> Any:
  """An empty state for one row."""
  return apply(module, params, "start", 1, size, media)


@functools.partial(jax.jit, static_argnums=(0, 4), donate_argnums=3)
def _prefill(
  module: nn.Module,
  params: Params,
  batch: Batch,
  state: Any,
  sampling: Sampling,
  key: Array,
) -> tuple[Int[Array, "1"], Any]:
  """The first token of an answer, and the state that has read the question."""
  logits, state = apply(module, params, "prefill", batch, state)
  token = choose(logits, sampling, jax.random.fold_in(key, 0))
  return token, state.freed((batch["segments"] == 0).sum())


@functools.partial(jax.jit, static_argnums=(0, 4), donate_argnums=3)
def _decode(
  module: nn.Module,
  params: Params,
  token: Int[Array, ""],
  state: Any,
  sampling: Sampling,
  key: Array,
  count: Int[Array, ""],
  limit: Int[Array, ""],
) -> tuple[Int[Array, "L"], Int[Array, ""], Int[Array, ""], Any]:
  """Reads a token and those after it, until one ends the answer.

  Args:
    module, params: of the system.
    token: the first, chosen and not yet read.
    state: that has read all before it.
    sampling, key: of the answer.
    count: tokens of the answer that were read before.
    limit: to read now, at most CHUNK.

  Returns:
    the tokens that were read, how many they are, the one that comes next, and
    the state.
  """
  stop = jnp.asarray(sampling.stop or (-1,))

  def body(carry):
    i, token, state, out = carry
    out = out.at[i].set(token)
    logits, state = apply(module, params, "decode", token[None, None], state)
    chosen = jax.random.fold_in(key, count + i + 1)
    return i + 1, choose(logits[:, 0], sampling, chosen)[0], state, out

  def going(carry):
    return (carry[0] < limit) & ~jnp.isin(carry[1], stop)

  token = jnp.asarray(token, jnp.int32)
  carry = (0, token, state, jnp.zeros(CHUNK, jnp.int32))
  read, token, state, out = jax.lax.while_loop(going, body, carry)
  return out, read, token, state
