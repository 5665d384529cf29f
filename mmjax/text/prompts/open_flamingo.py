"""OpenFlamingo's way to write a document (arXiv 2308.01390, its code).

  leading text<image>text one<|endofchunk|><image>text two<|endofchunk|><eos>
  0           1      1       1             2      2       2             2
  -           -      *       *             -      *       *             *

The second line is the index, the third what is learned (`mask_leading`).
Unlike Flamingo, text before the first image is not closed by a token, and
`<image>` is one new token.
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
class OpenFlamingo(Chunked):
  """MMC4 documents, LAION pairs, and prompts of its evaluation.

  Attributes:
    tokenizer: with `image` and `end_of_chunk` added.
    length: tokens at most; the rest is cut off on the right.
    media: images at most (6 for MMC4); later ones are dropped.
    image: name of the token that marks an image.
    end_of_chunk: name of the token that ends a chunk.
    mask_leading: text before the first image, and between the end of a chunk
      and the next image, is not learned (MMC4; pairs have none).
    learn_eos: the last token is learned (the code at its head); release
      2.0.1 masks it in MMC4.
    bos: puts the tokenizer's first token before everything, as the
      tokenizers of LLaMA and OPT do.
    strip: removes spaces beside the two special tokens.
  """

  tokenizer: Tokenizer
  length: int = 256
  media: int = 6
  image: str = "<image>"
  end_of_chunk: str = "<|endofchunk|>"
  mask_leading: bool = True
  learn_eos: bool = True
  bos: bool = False
  strip: bool = True

  def write(
    self, document: Segments, rng: np.random.Generator | None = None
  ) -> Written:
    """A whole document, for training. Nothing here is random.

    Raises:
      ValueError: when nothing of it is learned.
    """
    del rng
    sheet = self._sheet(document, True)
    written = sheet.written(0, self.length, self.media)
    check_learned(written, document.id)
    return written

  def query(self, document: Segments, overflow: str = "error") -> Written:
    """A document that is to be continued.

    The original cuts a long prompt on the right and so loses the question;
    here that is an error, or it loses its oldest examples ("left").
    """
    sheet = self._sheet(document, False)
    start = fit_query(sheet, self.length, self.media, overflow, document.id)
    return sheet.written(start, len(sheet.tokens), self.media)

  def _sheet(self, document: Segments, complete: bool) -> Sheet:
    tokenizer = self.tokenizer
    end_of_chunk = [tokenizer.id(self.end_of_chunk)]
    sheet, is_open, learned, continues = Sheet(), False, False, False
    if self.bos:
      if tokenizer.bos is None:
        raise ValueError("bos=True, but the tokenizer names no first token.")
      sheet.add([tokenizer.bos], False)
    for segment in merged(document, ("image", "video")):
      if not isinstance(segment, tuple):
        if is_open:
          sheet.add(end_of_chunk, learned)
        sheet.tag([tokenizer.id(self.image)], False)
        is_open, learned, continues = True, False, False
        continue
      text, learned, end = segment
      learned = learned and (is_open or not self.mask_leading)
      text = text.strip(" ") if self.strip and complete else text
      sheet.add(tokenizer.encode(text, continues), learned)
      continues = not end
      if end:
        sheet.add(end_of_chunk, learned)
        is_open = False
    if complete:
      if is_open or not sheet.tags:
        sheet.add(end_of_chunk, learned)
      if tokenizer.eos is not None:
        sheet.add([tokenizer.eos], learned and self.learn_eos)
    return sheet
