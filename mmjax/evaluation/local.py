"""A model of this process in the place of an endpoint.

  local = Local(load_model(config, workdir))
  local.complete(messages, model="", temperature=0.0, max_tokens=32).text

Who asks an `endpoint.Endpoint` can ask this as well: data generation, a judge.
Threads that ask at the same time are answered in one batch.
"""

import dataclasses
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from mmjax.data.document import Document, Text
from mmjax.endpoint import Completion, EndpointError, Refused
from mmjax.evaluation.model import Model
from mmjax.text.prompts.base import TooLong


@dataclasses.dataclass(frozen=True)
class _Asked:
  """A chat that waits for its answer, and how it is to be answered."""

  document: Document
  how: tuple[str, float, int]
  answer: Future


class Local:
  """Answers chats with a model whose prompt knows turns."""

  def __init__(self, model: Model):
    """Takes a model; its batch is how many are answered at once.

    Raises:
      ValueError: when its prompt writes no conversations.
    """
    if not hasattr(model.encoder.prompt, "follow"):
      raise ValueError(
        "The model answers no chats: its prompt is "
        f"{type(model.encoder.prompt).__name__}, which knows no turns. Name a "
        "language model or a LLaVA, whose prompt is Chat."
      )
    self._model = dataclasses.replace(model, overflow="error")
    self.concurrency = model.rows
    self._waiting: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
    self._busy = threading.Lock()
    self._calls, self._closed = 0, False

  def complete(
    self,
    messages: Sequence[Mapping[str, str]],
    *,
    model: str,
    temperature: float,
    max_tokens: int,
  ) -> Completion:
    """The answer to a chat.

    Args:
      messages: a system's text first, or none; then turns.
      model: is not read: there is one.
      temperature: of sampling; 0 for the likeliest answer.
      max_tokens: of the answer at most.

    Raises:
      Refused: when the chat does not fit the model's prompt.
      EndpointError: after `close`.
    """
    del model
    if self._closed:
      raise EndpointError("No more is asked of the model.")
    system, document = read(messages)
    how = (system, temperature, max_tokens)
    size = self._size(document, how)
    asked = _Asked(document, how, Future())
    self._waiting.put(asked)
    with self._busy:
      while not asked.answer.done():
        self._answer(self._batch())
    said = asked.answer.result()
    reason = "stop" if said.ended else "length"
    return Completion(said.text, reason, size, said.tokens)

  def close(self) -> None:
    """Begins no more answers."""
    self._closed = True

  def _as_asked(self, how: tuple[str, float, int]) -> Model:
    system, temperature, max_tokens = how
    encoder = self._model.encoder
    prompt = dataclasses.replace(encoder.prompt, system=system)
    return dataclasses.replace(
      self._model,
      encoder=dataclasses.replace(encoder, prompt=prompt),
      temperature=temperature,
      max_new_tokens=max_tokens,
      # The same chat again is to have another answer, where one is drawn.
      seed=self._model.seed + self._calls,
    )

  def _size(self, document: Document, how: tuple[str, float, int]) -> int:
    """Tokens of a chat."""
    prompt = self._as_asked(how).encoder.prompt
    try:
      return len(prompt.query(document).tokens)
    except TooLong as error:
      raise Refused(str(error), 413) from None

  def _batch(self) -> list[_Asked]:
    """Those that wait, up to a batch."""
    found = []
    while len(found) < self.concurrency:
      try:
        found.append(self._waiting.get_nowait())
      except queue.Empty:
        break
    return found

  def _answer(self, batch: Sequence[_Asked]) -> None:
    for how in dict.fromkeys(asked.how for asked in batch):
      alike = [asked for asked in batch if asked.how == how]
      self._calls += 1
      try:
        model = self._as_asked(how)
        found = model.answers([asked.document for asked in alike])
      except BaseException as error:
        for asked in alike:
          asked.answer.set_exception(error)
        raise
      for asked, said in zip(alike, found, strict=True):
        asked.answer.set_result(said)


def read(messages: Sequence[Mapping[str, str]]) -> tuple[str, Document]:
  """The system's text, and the turns as a document.

  Raises:
    ValueError: unless turns of the user and of the assistant follow each
      other, the user's last.
  """
  roles = [message["role"] for message in messages]
  system = messages[0]["content"] if roles[:1] == ["system"] else ""
  turns = messages[roles[:1] == ["system"] :]
  wanted = [("user", "assistant")[i % 2] for i in range(len(turns))]
  if len(turns) % 2 == 0 or [turn["role"] for turn in turns] != wanted:
    raise ValueError(
      f"A chat has the roles {roles}; expected a system's text or none, then "
      "turns of user and assistant, the user's last."
    )
  segments = tuple(
    Text(turn["content"], target=turn["role"] == "assistant") for turn in turns
  )
  return system, Document(segments, id="chat")
