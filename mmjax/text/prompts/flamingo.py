"""Flamingo's way to write a document (arXiv 2204.14198, A.1.3, A.3.2).

  <BOS>leading text<EOC><image>text one<EOC><image>text two<EOC><EOS>
  0    0           0    1      1       1    2      2       2    2

The second line is the index, the image each token may see. With p_next a
document is written with the index of the next image instead:

  1    1           1    2      2       2    0      0       0    0

Not stated in the paper and chosen here: `<image>` and `<BOS>` are not
learned; `<EOC>` and `<EOS>` are when the text before them is. Tokens of
images that were dropped see none.
"""

import dataclasses

import numpy as np

from mmjax.text.prompts.base import (
  Chunked,
  Segments,
  Sheet,
  Written,
  check_learned,
  fit_query,
  merged,
)
from mmjax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Flamingo(Chunked):
  """Interleaved documents and pairs alike.

  Attributes:
    tokenizer: with an added `end_of_chunk`.
    length: tokens at most.
    media: images at most; later ones are dropped.
    image: the mark of an image.
    image_as_text: writes the mark as ordinary text (the paper), not as one
      added token.
    end_of_chunk: name of the token that ends a chunk.
    p_next: probability that a document's text sees the next image.
    p_space: probability of a space before the text of a pair.
    overflow: what becomes of a longer document: a random "window" of it, its
      first tokens ("truncate"), or an "error".
  """

  tokenizer: Tokenizer
  length: int = 256
  media: int = 5
  image: str = "<image>"
  image_as_text: bool = True
  end_of_chunk: str = "<EOC>"
  p_next: float = 0.0
  p_space: float = 0.0
  overflow: str = "window"

  def __post_init__(self):
    if self.overflow not in ("window", "truncate", "error"):
      raise ValueError(
        f"overflow is {self.overflow!r}, expected 'window', 'truncate' or "
        "'error'."
      )

  def write(
    self, document: Segments, rng: np.random.Generator | None = None
  ) -> Written:
    """A whole document, for training; without `rng` nothing is random.

    Raises:
      ValueError: when nothing of it is learned, or overflow="error".
    """
    space = rng is not None and rng.random() < self.p_space
    see_next = rng is not None and rng.random() < self.p_next
    sheet = self._sheet(document, space=space, complete=True)
    start = self._start(len(sheet.tokens), document.id, rng)
    stop = start + self.length
    written = sheet.written(start, stop, self.media, see_next)
    check_learned(written, document.id)
    return written

  def query(self, document: Segments, overflow: str = "error") -> Written:
    """A document that is to be continued: nothing after its last text."""
    sheet = self._sheet(document, space=False, complete=False)
    start = fit_query(sheet, self.length, self.media, overflow, document.id)
    return sheet.written(start, len(sheet.tokens), self.media)

  def _sheet(self, document: Segments, space: bool, complete: bool) -> Sheet:
    tokenizer = self.tokenizer
    mark = (
      tokenizer.encode(self.image)
      if self.image_as_text
      else [tokenizer.id(self.image)]
    )
    end_of_chunk = [tokenizer.id(self.end_of_chunk)]
    sheet, is_open, learned, continues = Sheet(), False, False, False
    if tokenizer.bos is not None:
      sheet.add([tokenizer.bos], False)
    for segment in merged(document, ("image", "video")):
      if not isinstance(segment, tuple):
        if is_open:
          sheet.add(end_of_chunk, learned)
        sheet.tag(mark, False)
        is_open, learned, continues = True, False, False
        continue
      text, learned, end = segment
      if space and sheet.tags and not text.startswith(" "):
        text = " " + text
      sheet.add(tokenizer.encode(text, continues), learned)
      is_open = continues = not end
      if end:
        sheet.add(end_of_chunk, learned)
    if complete:
      if is_open:
        sheet.add(end_of_chunk, learned)
      if tokenizer.eos is not None:
        sheet.add([tokenizer.eos], learned)
    return sheet

  def _start(
    self, count: int, name: str, rng: np.random.Generator | None
  ) -> int:
    excess = count - self.length
    if excess <= 0 or self.overflow == "truncate":
      return 0
    if self.overflow == "error":
      raise ValueError(
        f"Document {name!r} has {count} tokens, {self.length} fit. Use "
        "overflow='window' or 'truncate', or a longer `length`."
      )
    return 0 if rng is None else int(rng.integers(excess + 1))
