"""What all prompts share: a document written as ids, weights and an index."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mmjax.text.tokenizer import Tokenizer
from mmjax.typing import Float, Int

# Some thousand pages of a book.
MAX_CHARACTERS = 2**22


class TooLong(ValueError):
  """A prompt for generation that does not fit."""


@runtime_checkable
class Segments(Protocol):
  """What a prompt reads: a `Document`, known here by its shape only.

  A segment that has a `text` is text, with `target` and `end`; any other is
  a medium, with a `kind`.
  """

  segments: Sequence[Any]
  id: str


@dataclasses.dataclass(frozen=True)
class Written:
  """A document as one system reads it, not padded yet.

  Attributes:
    tokens: ids.
    weights: of each token as a prediction, 0 where it is not learned.
    index: the medium each token may see, 1..M; 0 is none.
    media: which media of the document stay, by their place in it; number m
      of the index is `media[m - 1]`.
    frames: which frame of it, where the frames of a medium are numbered one by
      one; else empty.
    texts: what its connector reads with it, ids; empty where none reads.
  """

  tokens: Int[np.ndarray, "L"]
  weights: Float[np.ndarray, "L"]
  index: Int[np.ndarray, "L"]
  media: tuple[int, ...]
  frames: tuple[int, ...] = ()
  texts: tuple[Int[np.ndarray, "_"], ...] = ()

  def of_kind(
    self, kind: str, kinds: Sequence[str]
  ) -> tuple[list[int], Int[np.ndarray, "L"]]:
    """The media of one kind, and an index that numbers them alone.

      media    image audio image        index  1 1 2 2 3 3
      image    0 2                             1 1 0 0 2 2

    Args:
      kind: which.
      kinds: of all media of the document, by their place in it.

    Returns:
      their places in `media`, and the index.
    """
    own = [m for m, place in enumerate(self.media) if kinds[place] == kind]
    number = np.zeros(len(self.media) + 1, np.int32)
    number[[m + 1 for m in own]] = np.arange(1, len(own) + 1)
    return own, number[self.index]


class Chunked:
  """What prompts share whose answers end with the token of a chunk's end.

  Attributes:
    tokenizer: with it.
    end_of_chunk: its name.
  """

  tokenizer: Tokenizer
  end_of_chunk: str

  @property
  def stops(self) -> tuple[int, ...]:
    """Ids that end an answer."""
    return (self.tokenizer.id(self.end_of_chunk),)

  def cut(self, text: str) -> str:
    """An answer up to a text that ends it; here only the token does."""
    return text


class Sheet:
  """Collects ids, what is learned of them, and the number of the last medium.

          <s> a dog EOC <image> it sits
  chunk    0  0  0   0     1    1   1
  """

  def __init__(self):
    self.tokens: list[int] = []
    self.weights: list[float] = []
    self.chunks: list[int] = []
    self.tags: list[int] = []

  def add(self, ids: Iterable[int], learned: bool) -> None:
    for i in ids:
      self.tokens.append(i)
      self.weights.append(float(learned))
      self.chunks.append(len(self.tags))

  def tag(self, ids: Iterable[int], learned: bool) -> None:
    """The mark of a medium; it sees its own medium."""
    self.tags.append(len(self.tokens))
    self.add(ids, learned)

  def written(
    self, start: int, stop: int, slots: int, see_next: bool = False
  ) -> Written:
    """The tokens from `start` to `stop`, with the first media marked there.

    A medium is there when its mark begins there. Tokens that belong to a
    medium which is not kept see none.

    Args:
      start: first token.
      stop: one past the last token.
      slots: how many media are kept at most.
      see_next: tokens see the next medium in place of the last.
    """
    inside = [m for m, at in enumerate(self.tags) if start <= at < stop]
    kept = tuple(inside[:slots])
    first = kept[0] if kept else 0
    chunks = np.asarray(self.chunks[start:stop], np.int32)
    index = chunks - first + see_next
    index = np.where((index >= 1) & (index <= len(kept)), index, 0)
    return Written(
      tokens=np.asarray(self.tokens[start:stop], np.int32),
      weights=np.asarray(self.weights[start:stop], np.float32),
      index=index.astype(np.int32),
      media=kept,
    )


def is_text(segment: Any) -> bool:
  return hasattr(segment, "text")


def merged(document: Segments, kinds: Sequence[str]) -> Iterator[Any]:
  """The segments, with neighbouring texts of one kind made one.

  A text is written in one piece, so that its tokens do not depend on how a
  reader cut it; where `target` changes there is always a token boundary.

  Yields:
    media, and (text, target, end) for texts.

  Raises:
    ValueError: for a medium that the prompt does not know, and for more text
      than any document has, before time is lost on it.
  """
  size = sum(len(s.text) for s in document.segments if is_text(s))
  if size > MAX_CHARACTERS:
    raise ValueError(
      f"Document {document.id!r} has {size} characters, the cap is "
      f"{MAX_CHARACTERS}."
    )
  text, target, end = "", False, False
  for segment in document.segments:
    if is_text(segment) and not end and (not text or segment.target == target):
      text, target, end = text + segment.text, segment.target, segment.end
      continue
    if text or end:
      yield text, target, end
    text, end = "", False
    if is_text(segment):
      text, target, end = segment.text, segment.target, segment.end
    elif segment.kind in kinds:
      yield segment
    else:
      raise ValueError(
        f"Document {document.id!r} has {segment.kind!r}; this prompt writes "
        f"{' and '.join(kinds)} only."
      )
  if text or end:
    yield text, target, end


def check_learned(written: Written, name: str) -> None:
  """Refuses a document for training of which no token is learned.

  Raises:
    ValueError: with both reasons that it may have.
  """
  if not written.weights[1:].any():
    raise ValueError(
      f"Nothing in document {name!r} is learned. Either no text of it is a "
      "target, or `length` and `overflow` have cut the targets away."
    )


def fit_query(
  sheet: Sheet, length: int, slots: int, overflow: str, name: str
) -> int:
  """Where a prompt for generation starts so that its end fits.

  The end is what is asked about: its tokens and its media are never dropped.

  Raises:
    TooLong: when it is too long, or has too many media, and `overflow` is
      "error".
    ValueError: when it has no token at all.
  """
  if overflow not in ("error", "left"):
    raise ValueError(f"overflow is {overflow!r}, expected 'error' or 'left'.")
  if not sheet.tokens:
    raise ValueError(f"The prompt of {name!r} is empty: nothing to go on from.")
  start = max(len(sheet.tokens) - length, 0)
  if 0 < slots < len(sheet.tags):  # Without a slot, text alone is read.
    start = max(start, sheet.tags[-slots])
  if start and overflow == "error":
    raise TooLong(
      f"The prompt of {name!r} has {len(sheet.tokens)} tokens and "
      f"{len(sheet.tags)} media; {length} and {slots} fit. Use fewer shots, a "
      "longer `length`, more `media`, or overflow='left'."
    )
  return start
