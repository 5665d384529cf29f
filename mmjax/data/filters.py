"""Documents to documents: pictures that are left out, instructions written."""

import dataclasses

import numpy as np

from mmjax.data import image
from mmjax.data.document import BadSample, Document, Filtered, Media
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


FILTERS = {"pictures": Pictures, "instructed": Instructed}
