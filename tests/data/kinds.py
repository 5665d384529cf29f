"""Documents of four kinds of media, and what reads them, all very small."""

import numpy as np

from mmjax.data.document import Document, Media, Text
from tests.data.pictures import photo
from tests.data.test_audio import encode, tone

MEDIA = {
  "image": dict(name="pictures", transforms=[dict(name="square", size=8)]),
  "video": dict(
    name="pictures",
    transforms=[dict(name="square", size=8)],
    frames=3,
    fps=None,
  ),
  "audio": dict(name="sounds", frames=2, bank=16),
  "points": dict(name="points", count=16),
}
# Of each kind as many as the longest document has.
ROOM = {"image": 2, "video": 1, "audio": 1, "points": 1}
PROMPT = dict(
  name="cued",
  format=dict(cues={"audio": "cat"}, starts="first"),
  length=64,
  media=ROOM,
  media_tokens=2,
  start="<s>",
)


def image(seed=0) -> Media:
  return Media("image", photo(8, 8, seed), f"picture {seed}")


def video(frames=3) -> Media:
  clip = np.stack([np.full((8, 8, 3), 5 * i, np.uint8) for i in range(frames)])
  return Media("video", clip, "clip")


def sound(seconds=0.2) -> Media:
  return Media("audio", encode(tone(seconds=seconds)), "tone")


def cloud(seed=0, count=20) -> Media:
  points = np.random.default_rng(seed).standard_normal((count, 3))
  return Media("points", points, "cloud")


def document(*media, question="a dog", answer="cat", name="doc") -> Document:
  parts = [*media, Text(question)]
  if answer:
    parts.append(Text(answer, target=True))
  return Document(tuple(parts), name)
