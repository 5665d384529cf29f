"""Conversations about pictures of the drawn set, to train and to ask.

A document is a pure function of (seed, index):

  <image> "What kind of thing is this?" "animals and nature"*
          "Which style is it drawn in?" "fluent"*
          "What is its main colour?"    "brown"*

  <image> <image> "Are both of the same kind?" "no"*

  <image> "Describe it." "fluent, brown, animals and nature: teddy bear"*

Every answer follows from the picture and cannot be guessed from the question;
of yes and no both are as likely. A description ends with the name, so that what
comes before has to be seen and cannot be told from it.
"""

import colorsys
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from mmjax.config import lookup
from mmjax.data import drawn
from mmjax.data.document import Document, Media, Text
from mmjax.typing import Float, UInt8

# Question type to its wordings.
QUESTIONS = {
  "name": ("What is this?", "What does the picture show?"),
  "category": ("What kind of thing is this?", "Which group is it of?"),
  "style": ("Which style is it drawn in?", "How is it drawn?"),
  "colour": ("What is its main colour?", "Which colour does it have most of?"),
  "description": ("Describe it.", "What does the picture look like?"),
  "same_category": (
    "Are both of the same kind?",
    "Do both belong to the same group?",
  ),
  "same_style": (
    "Are both drawn in the same style?",
    "Do both come from the same set of drawings?",
  ),
  "same_colour": (
    "Do both have the same main colour?",
    "Are both mainly of one colour?",
  ),
}
COMPARED = {f"same_{x}": x for x in ("category", "style", "colour")}
# Upper ends of the hues that have a name, on 0..1.
_HUES = (
  (0.035, "red"),
  (0.11, "orange"),
  (0.19, "yellow"),
  (0.45, "green"),
  (0.70, "blue"),
  (0.83, "purple"),
  (0.95, "pink"),
  (1.0, "red"),
)
# Below these a colour is grey, and black; above this one white.
_GREY, _BLACK, _WHITE = 0.18, 0.25, 0.92
# Pixels of the background, which every picture lies on.
_BACKGROUND = 250
_ATTEMPTS = 64
# A step of each channel as one number.
_PLACES = np.array([256, 16, 1])

Picture = tuple[drawn.Concept, str]


class DrawnChat:
  """Conversations as a source.

  Attributes:
    endless: no order needs to be shuffled, every index is as good as any.
  """

  def __init__(
    self,
    questions: Mapping[str, float],
    *,
    turns: Sequence[int] = (1, 2, 3),
    split: str = "train",
    seed: int = 0,
    size: int | None = None,
    wordings: int | None = None,
  ):
    """Makes the source.

    Args:
      questions: types of QUESTIONS and how often each comes first.
      turns: numbers of questions about one picture; one is drawn.
      split: which things.
      seed: another seed, other conversations.
      size: how many; without it there is no end.
      wordings: of each question that are used, from the first; None is all.
    """
    self._names = list(questions)
    self._chances = chances(questions, QUESTIONS)
    if min(turns, default=0) < 1 or wordings is not None and wordings < 1:
      raise ValueError(
        f"turns are {list(turns)} and wordings {wordings}: expected 1 or more."
      )
    self._turns, self._wordings = tuple(turns), wordings
    self._concepts, self._split = drawn.concepts(split), split
    self._seed = seed
    self.endless = size is None
    self._size = 2**40 if size is None else size

  def __len__(self) -> int:
    return self._size

  def __getitem__(self, index: int) -> Document:
    if not 0 <= index < self._size:
      raise IndexError(f"Document {index} of {self._size}.")
    rng = np.random.default_rng([self._seed, index])
    first = str(rng.choice(self._names, p=self._chances))
    if first in COMPARED:
      pictures, asked = self._pair(COMPARED[first], rng), [first]
    else:
      pictures, asked = [self._picture(rng)], self._single(first, rng)
    answers = [_answer(name, pictures) for name in asked]
    segments: list[Text | Media] = [_media(p) for p in pictures]
    for name, answer in zip(asked, answers):
      wording = str(rng.choice(QUESTIONS[name][: self._wordings]))
      segments += [Text(wording), Text(answer, target=True)]
    return Document(
      tuple(segments),
      id=f"drawn_chat/{self._split}/{self._seed}/{index}",
      metadata={
        "task": asked[-1],
        "answer": answers[-1],
        "query_media": len(pictures),
      },
    )

  def _single(self, first: str, rng: np.random.Generator) -> list[str]:
    """Questions about one picture: the first, and others behind it."""
    others = [n for n in self._names if n not in COMPARED and n != first]
    count = min(int(rng.choice(self._turns)), 1 + len(others))
    return [first, *map(str, rng.permutation(others)[: count - 1])]

  def _picture(self, rng: np.random.Generator) -> Picture:
    concept = self._concepts[rng.integers(len(self._concepts))]
    return concept, str(rng.choice(drawn.STYLES))

  def _pair(self, what: str, rng: np.random.Generator) -> list[Picture]:
    """Two things; as often as not alike in `what`."""
    one, alike = self._picture(rng), bool(rng.integers(2))
    while True:
      for _ in range(_ATTEMPTS):
        other = self._picture(rng)
        same = _value(what, one) == _value(what, other)
        if other[0] is not one[0] and same == alike:
          return [one, other]
      # Hardly any is like it. To let it be would make "no" the better guess.
      one = self._picture(rng)


def chances(
  questions: Mapping[str, float], known: Mapping
) -> Float[np.ndarray, "question"]:
  """How often each comes up, of weights; a ValueError for others."""
  if not questions:
    raise ValueError(f"No questions. Known: {', '.join(known)}.")
  for name in questions:
    lookup(known, name, "question")
  weights = np.array(list(questions.values()), np.float64)
  if min(weights) < 0 or not weights.sum() > 0:
    raise ValueError(
      f"questions are {dict(questions)}: expected weights that are not "
      "negative, and one above 0."
    )
  return weights / weights.sum()


def _answer(name: str, pictures: Sequence[Picture]) -> str:
  if name not in COMPARED:
    return _value(name, pictures[0])
  one, other = (_value(COMPARED[name], p) for p in pictures)
  return "yes" if one == other else "no"


def _value(name: str, picture: Picture) -> str:
  concept, style = picture
  if name == "style":
    return style
  if name == "colour":
    return colour(concept, style)
  if name == "description":
    seen = f"{style}, {colour(concept, style)}, {concept.category}"
    return f"{seen}: {concept.name}"
  return getattr(concept, name)


def _media(picture: Picture) -> Media:
  concept, style = picture
  return Media(
    "image",
    drawn.image(concept, style),
    f"{style}/{concept.id}",
    {"key": drawn.key(concept, style)},
  )


@functools.cache
def colour(concept: drawn.Concept, style: str) -> str:
  """The name of the colour that most of a picture's pixels have."""
  return main_colour(drawn.image(concept, style))


def main_colour(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
  """The commonest name of a colour among what is no white background.

  A picture that is all background is "white".
  """
  flat = pixels.reshape(-1, 3)
  flat = flat[(flat < _BACKGROUND).any(axis=1)]
  # 16 steps a channel: few colours to name, however many pixels.
  counts = np.bincount(flat // 16 @ _PLACES, minlength=16**3)
  votes: dict[str, int] = {}
  for step in np.flatnonzero(counts):
    name = _name_of_step(int(step))
    votes[name] = votes.get(name, 0) + int(counts[step])
  return max(sorted(votes), key=lambda name: votes[name], default="white")


@functools.cache
def _name_of_step(step: int) -> str:
  return name_of((step // _PLACES % 16 * 16.0 + 8) / 255)


def name_of(rgb: Float[np.ndarray, "3"]) -> str:
  """The name of a colour, whose channels are on 0..1."""
  hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
  if value < _BLACK:
    return "black"
  if saturation < _GREY:
    return "white" if value > _WHITE else "grey"
  name = next(name for end, name in _HUES if hue <= end)
  dark = value < 0.6 and name in ("orange", "red")
  return "brown" if dark else name
