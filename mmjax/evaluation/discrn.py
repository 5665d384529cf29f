"""Which of two media an answer names, for DisCRn.

A medium is named by its kind, or by its place: first, left or (a). Two rules:

  original  any name of the right one is somewhere in the answer, be it a part
            of a word; the other one may be named as well (arXiv 2311.18799,
            the released code)
  strict    as whole words the right one is named and the other is not; "right"
            names a place only as in "on the right"; ours

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


# Places and kinds of the strict rule: sounds are clips as well as videos are,
# and "right" is a place only in these.
_STRICT = {**KINDS, "video": ("video",)}
_BETWEEN = r"\b,?\s+(?:and|or|not)\s+(?:the\s+)?"
_RIGHT = (
  r"(?:on|to)\s+the\s+right",
  r"right[\s-]+(?:one|side|hand)(?!\s+is\s+(?:the|an?)\b)",
  rf"left{_BETWEEN}right|right{_BETWEEN}left",
  r"^\W*(?:the\s+)?right\W*$",
)


def names(kinds: Sequence[str], place: int) -> tuple[str, ...]:
  """What names the medium at a place by the original's rule.

  Args:
    kinds: of both media; where they are alike, only places tell them apart.
    place: 0 or 1.
  """
  own = KINDS[kinds[place]] if kinds[0] != kinds[1] else ()
  return (*own, *PLACES[place])


def named(text: str, kinds: Sequence[str]) -> set[int]:
  """Places of the media that a text names, in whole words.

  "the audio, not the second"  of (audio, image)  ->  {0, 1}
  "that's right, the first"    of (audio, image)  ->  {0}
  """
  text = text.lower()
  return {p for p in (0, 1) if re.search(_pattern(kinds, p), text)}


def _pattern(kinds: Sequence[str], place: int) -> str:
  own = "|".join(map(re.escape, _STRICT[kinds[place]]))
  found = [re.escape(name) for name in PLACES[place] if name != "right"]
  if place == 1:
    found += _RIGHT
  if kinds[0] != kinds[1]:
    found.append(own)
  elif place == 1:
    found.append(rf"right\s+(?:{own})")
  return rf"(?<!\w)(?:{'|'.join(found)})(?!\w)"


def original(text: str, kinds: Sequence[str], label: int) -> bool:
  """Whether an answer is right by the original's rule."""
  return any(name in text.lower() for name in names(kinds, label))
