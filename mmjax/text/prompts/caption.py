"""What a text tower reads of a pair: its caption alone.

  <image> "Output:" " a red kite"*   ->   <BOS> a red kite <EOS>

Nothing marks the medium, and nothing is to be predicted.
"""

import dataclasses

import numpy as np

from mmjax.text.prompts.base import Segments, Sheet, Written, merged
from mmjax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Caption:
  """The target text of a document with one medium.

  Attributes:
    tokenizer: of the text tower.
    length: tokens at most. What is more of the text is cut off on the right;
      its end stays, by which a tower may know all of it.
    media: 1, that of the pair.
    kind: of the medium.
  """

  tokenizer: Tokenizer
  length: int = 64
  media: int = 1
  kind: str = "image"

  def __post_init__(self):
    if self.media != 1:
      raise ValueError(f"media is {self.media}; a pair has 1.")
    if self.length < 3:
      raise ValueError(
        f"length is {self.length}; begin, a token and end need 3."
      )

  def write(
    self, document: Segments, rng: np.random.Generator | None = None
  ) -> Written:
    """The caption of a pair. Nothing here is random."""
    del rng
    ids, tokenizer, media = [], self.tokenizer, 0
    for segment in merged(document, (self.kind,)):
      if isinstance(segment, tuple):
        text, target, _ = segment
        ids += tokenizer.encode(text.strip()) if target else []
      else:
        media += 1
    if media != 1:
      raise ValueError(
        f"{document.id!r} has {media} media of the kind {self.kind!r}; a pair "
        "has 1."
      )
    begin, end = (
      [] if token is None else [token]
      for token in (tokenizer.bos, tokenizer.eos)
    )
    room = self.length - len(begin) - len(end)
    sheet = Sheet()
    sheet.add([*begin, *ids[:room], *end], False)
    written = sheet.written(0, self.length, self.media)
    return dataclasses.replace(written, media=(0,))
