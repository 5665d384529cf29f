"""Which of two media an answer names, for DisCRn.

A medium is named by its kind, or by its place: first, left or (a). Two rules:

  original  any name of the right one is somewhere in the answer, be it a part
            of a word; the other one may be named as well (arXiv 2311.18799,
            the released code)
  strict    as whole words the right one is named and the other is not; ours

The lists of names are ours: the original's are of this kind.
"""

import re
from collections.abc import Sequence

KINDS = {
  "image": ("image", "picture", "photo"),
  "points": ("3d", "3d model", "point cloud"),
  "video": ("video", "clip"),
  "audio": ("audio", "sound"),
}
PLACES = (("first", "left", "(a)"), ("second", "right", "(b)"))


def names(kinds: Sequence[str], place: int) -> tuple[str, ...]:
  """What names the medium at a place.

  Args:
    kinds: of both media; where they are alike, only places tell them apart.
    place: 0 or 1.
  """
  own = KINDS[kinds[place]] if kinds[0] != kinds[1] else ()
  return (*own, *PLACES[place])


def named(text: str, kinds: Sequence[str]) -> set[int]:
  """Places of the media that a text names, in whole words.

  "the audio, not the second"  of (audio, image)  ->  {0, 1}
  """
  text = text.lower()
  return {
    place
    for place in (0, 1)
    if any(
      re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)
      for name in names(kinds, place)
    )
  }


def original(text: str, kinds: Sequence[str], label: int) -> bool:
  """Whether an answer is right by the original's rule."""
  return any(name in text.lower() for name in names(kinds, label))
