"""Documents to documents: what is left out, and written instructions."""

import dataclasses
import zlib

import numpy as np

from mmjax.data import image
from mmjax.data.document import BadSample, Document, Filtered, Media, Text
from mmjax.data.instructions import Instructed


@dataclasses.dataclass(frozen=True)
class Pictures:
  """Flamingo's rule for web pages (A.3.1): small, long and plain ones go.

    "text" <1x1 pixel> "more" <photo> "end"  ->  "text" "more" <photo> "end"

  Pictures are decoded for it, so a damaged one makes the document a bad
  sample. Clips are left alone.

  Attributes:
    min_side: pixels that the shorter side has at least.
    max_aspect: longer side over shorter side, at most.
    plain: keeps pictures of a single colour.
    min_images: a document with fewer media left is filtered out.
  """

  min_side: int = 64
  max_aspect: float = 3.0
  plain: bool = False
  min_images: int = 1

  def __call__(self, document: Document) -> Document:
    segments = tuple(
      segment
      for segment in document.segments
      if not isinstance(segment, Media) or self.keeps(segment, document.id)
    )
    kept = dataclasses.replace(document, segments=segments)
    if len(kept.media) < self.min_images:
      raise Filtered(
        f"{document.id} has {len(kept.media)} of {self.min_images} pictures "
        f"left of {len(document.media)}."
      )
    return kept

  def keeps(self, media: Media, name: str = "") -> bool:
    """Whether a medium stays."""
    if media.kind != "image":
      return True
    pixels = media.load()
    if not isinstance(pixels, np.ndarray):
      pixels = image.decode(pixels, f"{name}:{media.name}")
    if pixels.ndim != 3:
      raise BadSample(
        f"{name}:{media.name} has the shape {list(pixels.shape)}, expected "
        "[height, width, 3]."
      )
    short, long = sorted(pixels.shape[:2])
    if short < self.min_side or long > self.max_aspect * short:
      return False
    return self.plain or bool((pixels != pixels[0, 0]).any())


@dataclasses.dataclass(frozen=True)
class OneTurn:
  """A conversation up to one of its answers, the only one that is learned.

    <image> "is it big?" "no"* "is it red?" "yes"* "why?" "paint"*
    ->  <image> "is it big? no is it red?" "yes"*

  Attributes:
    seed: another seed, other answers. Which one it is depends on it and on the
      document's id alone.
  """

  seed: int = 0

  def __call__(self, document: Document) -> Document:
    segments = document.segments
    answers = [
      i for i, s in enumerate(segments) if isinstance(s, Text) and s.target
    ]
    if not answers:
      raise BadSample(f"{document.id} has no answer.")
    key = zlib.crc32(document.id.encode(errors="replace"))
    rng = np.random.default_rng([self.seed, key])
    chosen = answers[int(rng.integers(len(answers)))]
    before = segments[:chosen]
    media = [s for s in before if isinstance(s, Media)]
    asked = " ".join(s.text.strip() for s in before if isinstance(s, Text))
    segments = (*media, Text(asked.strip()), segments[chosen])
    return dataclasses.replace(document, segments=segments)


FILTERS = {
  "pictures": Pictures,
  "instructed": Instructed,
  "one_turn": OneTurn,
}
