"""A trained system as the two functions that an evaluation asks for.

  model = Model(module, params, encoder, tokenizer, stop="<EOC>")
  model.generate(documents)          -> ["a cat", ...]
  model.score(documents, answers)    -> Likelihoods

Documents become batches of few shapes, so functions compile seldom; those of
alike lengths belong together.
"""

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mmjax.data.batching import stack, trim
from mmjax.data.document import Document, Media
from mmjax.data.encoder import Encoder
from mmjax.evaluation.answers import Likelihoods
from mmjax.evaluation.pictures import READERS
from mmjax.generation.beam import beam_search
from mmjax.generation.conversation import Conversation
from mmjax.generation.penalties import NONE, Penalties
from mmjax.generation.sample import Sampling, generate
from mmjax.generation.score import score_answers
from mmjax.sharding import BATCH, batch_sharding
from mmjax.text.prompts.base import TooLong
from mmjax.text.tokenizer import Tokenizer
from mmjax.typing import Array, Float, Params

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Said:
  """An answer.

  Attributes:
    text: of it.
    tokens: that were written, the one that ends it among them.
    ended: whether it came to its end within `max_new_tokens`.
  """

  text: str
  tokens: int
  ended: bool


@dataclasses.dataclass(frozen=True)
class Model:
  """A system with its parameters and its way to read and write.

  Attributes:
    module, params: of the system.
    encoder: documents to examples.
    tokenizer: of the system.
    stop: name of the token that ends an answer; None is what the prompt says.
    max_new_tokens: length of an answer.
    temperature, top_k, top_p: of sampling; a temperature of 0 is greedy.
    seed: of sampling.
    num_beams: 1 is greedy; the paper uses 3.
    length_penalty: of the beam search.
    repetition_penalty, min_new_tokens: see generation.penalties.Penalties.
    batch_size: rows of a batch; the last one is filled up, and all of them to
      what the devices divide.
    score_end: whether the token that ends an answer counts in its likelihood;
      None is what the prompt says, yes where it says nothing.
    overflow: what becomes of a document that is too long: it loses its "left"
      end, which is told, or is an "error".
    mesh: of the devices that the parameters lie on, all of this process; the
      rows of a batch are cut over them. None is the default device.
  """

  module: nn.Module
  params: Params
  encoder: Encoder
  tokenizer: Tokenizer
  stop: str | None = None
  max_new_tokens: int = 10
  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  seed: int = 0
  num_beams: int = 1
  length_penalty: float = 0.0
  repetition_penalty: float = 1.0
  min_new_tokens: int = 0
  batch_size: int = 32
  score_end: bool | None = None
  overflow: str = "left"
  mesh: Mesh | None = None

  def __post_init__(self):
    if min(self.num_beams, self.batch_size, self.max_new_tokens) < 1:
      raise ValueError(
        f"num_beams is {self.num_beams}, batch_size {self.batch_size}, "
        f"max_new_tokens {self.max_new_tokens}; expected 1 or more."
      )
    if self.overflow not in ("left", "error"):
      raise ValueError(
        f"overflow is {self.overflow!r}, expected 'left' or 'error'."
      )
    sampled = self.temperature or self.top_k or self.top_p != 1
    if self.num_beams > 1 and sampled:
      raise ValueError(
        "A beam search does not sample: leave out temperature, top_k and "
        f"top_p, or take num_beams=1 in place of {self.num_beams}."
      )
    if self.num_beams == 1 and self.length_penalty:
      raise ValueError(
        f"length_penalty is {self.length_penalty}, but without a beam search "
        "no lengths are compared. Raise num_beams, or leave it out."
      )
    if self._penalties.min_new_tokens > self.max_new_tokens:
      raise ValueError(
        f"min_new_tokens is {self.min_new_tokens}, max_new_tokens only "
        f"{self.max_new_tokens}."
      )

  @property
  def rows(self) -> int:
    """Of every batch: `batch_size`, or a few more that the devices divide."""
    shape = {} if self.mesh is None else self.mesh.shape
    parts = math.prod(shape.get(axis, 1) for axis in BATCH)
    return -(-self.batch_size // parts) * parts

  @property
  def stops(self) -> tuple[int, ...]:
    """Ids that end an answer; the first is what ends one that is scored."""
    if self.stop is not None:
      return (self.tokenizer.id(self.stop),)
    return self.encoder.prompt.stops

  def generate(self, documents: Sequence[Document]) -> list[str]:
    """What the system says after each document."""
    return [said.text for said in self.answers(documents)]

  def answers(self, documents: Sequence[Document]) -> list[Said]:
    """The same, and how each answer ended."""
    found: list[Said] = []
    for i, (batch, count) in enumerate(self._batches(documents)):
      with self._on_mesh():
        tokens = np.asarray(self._tokens(batch, i))[:count]
      found += [self._said(row) for row in tokens]
    return found

  def _tokens(self, batch, number):
    if self.num_beams > 1:
      stop = self.stops[0]
      beams = beam_search(
        self.module,
        self.params,
        batch,
        max_new_tokens=self.max_new_tokens,
        num_beams=self.num_beams,
        stop=stop,
        length_penalty=self.length_penalty,
        pad=stop,
        penalties=self._penalties,
      )
      return beams.tokens[:, 0]
    key = jax.random.fold_in(jax.random.key(self.seed), number)
    made = generate(self.module, self.params, batch, self._sampling, key=key)
    return made.tokens

  @property
  def _sampling(self) -> Sampling:
    return Sampling(
      self.max_new_tokens,
      temperature=self.temperature,
      top_k=self.top_k,
      top_p=self.top_p,
      stop=self.stops,
      pad=next(iter(self.stops), self.tokenizer.pad),
      penalties=self._penalties,
    )

  @property
  def _penalties(self) -> Penalties:
    return Penalties(self.repetition_penalty, self.min_new_tokens)

  def conversation(self) -> Conversation:
    """A conversation with the model, on the default device.

    Raises:
      ValueError: for a model that writes no conversations, or a beam search.
    """
    if not hasattr(self.encoder.prompt, "follow"):
      raise ValueError(
        "This model holds no conversations: its prompt is "
        f"{type(self.encoder.prompt).__name__}, which knows no turns. Ask it "
        "with `mmjax generate`."
      )
    if self.num_beams > 1:
      raise ValueError(
        f"num_beams is {self.num_beams}, but what a beam search says is known "
        "at its end only. Take num_beams=1 for a conversation."
      )
    if self._penalties != NONE:
      raise ValueError(
        f"{self._penalties} are of answers that are written at once; a "
        "conversation takes none."
      )
    return Conversation(
      self.module,
      self.params,
      self.encoder,
      self.tokenizer,
      self._sampling,
      self.seed,
    )

  def _said(self, row: np.ndarray) -> Said:
    ends = np.flatnonzero(np.isin(row, self.stops))
    written = ends[0] + 1 if len(ends) else len(row)
    text = self.tokenizer.decode(row[: ends[0]] if len(ends) else row)
    cut = self.encoder.prompt.cut(text)
    ended = bool(len(ends)) or cut != text
    return Said(cut.strip(), int(written), ended)

  def score(
    self, documents: Sequence[Document], answers: Sequence[str]
  ) -> Likelihoods:
    """Log-likelihood of each answer after each document.

    Where the token that ends an answer counts (`score_end`), "a cat" does not
    win over "a cat house" by being its beginning.
    """
    goes_on = {_ends_in_text(document) for document in documents}
    if len(goes_on) > 1:
      raise ValueError(
        "Some of the documents end in a text and some in a medium, after which "
        "an answer may have other ids. Score them apart."
      )
    counts = self.score_end
    if counts is None:
      counts = getattr(self.encoder.prompt, "score_end", True)
    end, continues = [*self.stops[:1]] * counts, goes_on.pop()
    ids = [[*self._answer(a, continues), *end] for a in answers]
    if not all(ids):
      raise ValueError(f"One of the answers has no token: {list(answers)}.")
    lengths = np.array([len(row) for row in ids])
    table = np.zeros((len(ids), lengths.max()), np.int32)
    for row, own in zip(table, ids):
      row[: len(own)] = own
    totals = []
    for batch, count in self._batches(documents):
      with self._on_mesh():
        found = score_answers(self.module, self.params, batch, table, lengths)
      totals.append(np.asarray(found)[:count])
    total = np.concatenate(totals)
    return Likelihoods(total, total / lengths)

  def _answer(self, text: str, continues: bool) -> list[int]:
    """Ids of an answer, as the prompt writes it where it has its own way."""
    if hasattr(self.encoder.prompt, "answer"):
      return self.encoder.prompt.answer(text)
    return self.tokenizer.encode(text, continues)

  def features(
    self, documents: Sequence[Document]
  ) -> Float[np.ndarray, "documents E"]:
    """The frozen encoder's mean over each document's first medium, for RICES.

    OpenFlamingo takes CLIP's projected class token, which no system here has.

    Raises:
      ValueError: for a document without media, and for a system whose media
        no encoder sees alone.
    """
    if not hasattr(self.module, "encode"):
      raise ValueError(
        f"{type(self.module).__name__} has no features of media to compare: "
        "leave out selection='rices'."
      )
    if lacking := [d.id for d in documents if not d.media]:
      raise ValueError(f"{lacking[:3]} have no media to be compared by.")
    alone = [dataclasses.replace(d, segments=d.media[:1]) for d in documents]
    if len(self.encoder.slots) != 1:
      raise ValueError(
        f"Media of the kinds {sorted(self.encoder.slots)} are not compared."
      )
    (name,) = self.encoder.slots
    rows = []
    for batch, count in self._batches(alone):
      with self._on_mesh():
        found = _pooled(self.module, self.params, batch["media"][name])
      rows.append(np.asarray(found)[:count])
    return np.concatenate(rows)

  def _on_mesh(self) -> contextlib.AbstractContextManager:
    if self.mesh is None:
      return contextlib.nullcontext()
    return jax.set_mesh(self.mesh)

  def _batches(
    self, documents: Sequence[Document]
  ) -> Iterator[tuple[dict[str, Any], int]]:
    """Batches, and how many rows of each are documents.

    The next one is read while the devices are at work on this.
    """
    cut: list[str] = []
    with futures.ThreadPoolExecutor(READERS) as pool:

      def begin(start: int) -> list[futures.Future]:
        part = documents[start : start + self.rows]
        return [pool.submit(self._example, document) for document in part]

      ahead = begin(0)
      for start in range(0, len(documents), self.rows):
        now, ahead = ahead, begin(start + self.rows)
        read = [future.result() for future in now]
        cut += [document for _, document in read if document is not None]
        examples = [example for example, _ in read]
        fill = [examples[-1]] * (self.rows - len(examples))
        batch = trim(stack(examples + fill))
        if self.mesh is not None:
          batch = jax.device_put(batch, batch_sharding(self.mesh))
        yield batch, len(examples)
    if cut:
      log.warning(
        "%d of %d documents did not fit %d tokens and %d media and lost what "
        "they begin with, such as %r. Use fewer shots, or a longer prompt.",
        *(len(cut), len(documents), self.encoder.prompt.length),
        *(self.encoder.prompt.media, cut[0]),
      )

  def _example(self, document: Document) -> tuple[dict[str, Any], str | None]:
    """A document as an example, and its id where it had to be cut."""
    try:
      return self.encoder.query(document), None
    except TooLong:
      if self.overflow == "error":
        raise
      return self.encoder.query(document, self.overflow), document.id


@functools.partial(jax.jit, static_argnums=0)
def _pooled(
  module: nn.Module, params: Params, media: Mapping[str, Array]
) -> Float[Array, "B E"]:
  """Features of the first medium, averaged over its frames and tokens."""
  values = media.get("values")
  values = media["keys"][..., None] if values is None else values
  x = module.apply({"params": params}, values[:, :1], method="encode")
  there = media["mask"][:, :1, :, None, None].astype(jnp.float32)
  total = (x.astype(jnp.float32) * there).sum(axis=(1, 2, 3))
  return total / (there.sum(axis=(1, 2, 3)) * x.shape[3])


def _ends_in_text(document: Document) -> bool:
  """Whether what follows goes on from a text; see Tokenizer.encode."""
  for segment in reversed(document.segments):
    if isinstance(segment, Media):
      return False
    if segment.text or segment.end:
      return not segment.end
  return False
