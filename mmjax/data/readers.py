"""How the media of each kind come into an example: one entry, one reader.

  pictures   image or video   uint8   [frames height width 3]
  sounds     audio            float32 [segments samples]
  points     points           float32 [1 count 3]

A reader says what room a medium takes and brings one in. Where a prompt
numbers frames (it has `units`), each of them is a medium of its own.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from mmjax.config import build
from mmjax.data import audio, image, points, video
from mmjax.data.batching import Clip, Slots
from mmjax.data.document import BadSample, Media


@runtime_checkable
class Reader(Protocol):
  """Brings in media.

  Attributes:
    kinds: of the media of documents that it reads.
    frames: of a medium at most.
    keys, values: see `Slots`.
  """

  kinds: ClassVar[tuple[str, ...]]
  frames: int
  keys: bool
  values: bool

  @property
  def slots(self) -> Slots:
    """Room for a medium."""

  def read(self, media: Media, name: str, seed: Sequence[int]) -> Clip:
    """A medium; random only with a seed.

    Raises:
      BadSample: for one that cannot be used.
    """


@dataclasses.dataclass(frozen=True)
class Pictures:
  """Images, and videos as a few of their frames.

  Attributes:
    transforms: applied in this order; the last has to give a fixed size.
    frames: of a video at most; an image is one.
    fps: frames a second that are taken of a video; None spreads the frames
      over all of it.
    keys, values: see `Slots`.
  """

  kinds: ClassVar[tuple[str, ...]] = ("image", "video")
  transforms: Sequence[image.Transform] = ()
  frames: int = 1
  fps: float | None = 1.0
  keys: bool = False
  values: bool = True

  def __post_init__(self):
    if self.fps is not None and not 0 < self.fps < math.inf:
      raise ValueError(f"fps is {self.fps}; expected a positive number.")

  @functools.cached_property
  def slots(self) -> Slots:
    """Room for pictures of the size that the transforms end with."""
    sample = np.zeros((64, 64, 3), np.uint8)
    for transform in self.transforms:
      sample = transform(sample, None)
    fields = dict(keys=self.keys, values=self.values)
    return Slots(1, self.frames, sample.shape, **fields)

  def read(self, media: Media, name: str, seed: Sequence[int]) -> Clip:
    out = []
    for frame in self._decode(media, name)[: self.frames]:
      # The same coins for all pictures of the document.
      rng = np.random.default_rng([*seed, 1]) if seed else None
      for transform in self.transforms:
        frame = transform(frame, rng)
      out.append(frame)
    return Clip(np.stack(out))

  def _decode(self, media: Media, name: str) -> np.ndarray:
    payload = media.load()
    if isinstance(payload, np.ndarray):
      return self._chosen(_checked_pixels(payload, name), media, name)
    if media.kind == "image":
      return image.decode(payload, name)[None]
    start, end = media.metadata.get("start", 0.0), media.metadata.get("end")
    return video.decode(payload, self.frames, self.fps, start, end, name)

  def _chosen(self, pixels: np.ndarray, media: Media, name: str) -> np.ndarray:
    """The frames of an array that are read, as they would be of a file."""
    if media.kind == "image":
      if len(pixels) > 1:
        raise BadSample(
          f"{name} is an image of {len(pixels)} frames, expected 1."
        )
      return pixels
    rate = media.metadata.get("fps")
    start, end = media.metadata.get("start", 0.0), media.metadata.get("end")
    timed = self.fps is not None and len(pixels) > self.frames
    if rate is None and (timed or start or end is not None):
      raise BadSample(
        f"{name} has {len(pixels)} frames, but its metadata do not say how "
        "many a second ('fps'), so none has a time. Without a start and an end "
        "the reader's fps=None spreads what it reads over all of them."
      )
    if rate is None:
      return _spread(pixels, self.frames)
    if type(rate) not in (int, float) or not 0 < rate < math.inf:
      raise BadSample(
        f"{name} has {rate!r} frames a second by its metadata ('fps'); "
        "expected a positive number."
      )
    last = len(pixels) if end is None else math.ceil(end * rate)
    pixels = pixels[int(start * rate) : last]
    if not len(pixels):
      raise BadSample(f"{name} has no frame between {start} and {end} s.")
    if self.fps is None:
      return _spread(pixels, self.frames)
    at = np.arange(self.frames) * rate / self.fps
    return pixels[at[at < len(pixels)].astype(int)]


def _spread(pixels: np.ndarray, frames: int) -> np.ndarray:
  """So many frames of all; all, where they are no more."""
  if len(pixels) <= frames:
    return pixels
  return pixels[np.arange(frames) * len(pixels) // frames]


def _checked_pixels(payload: np.ndarray, name: str) -> np.ndarray:
  pixels = payload if payload.ndim == 4 else payload[None]
  if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
    raise BadSample(
      f"{name} is {payload.dtype}{list(payload.shape)}, expected uint8 "
      "[height, width, 3] or [frames, height, width, 3]."
    )
  if not pixels.size:
    raise BadSample(f"{name} is empty: {list(payload.shape)}.")
  return pixels


@dataclasses.dataclass(frozen=True)
class Sounds:
  """Sound, cut into segments that an encoder of filter banks sees alone.

  Attributes:
    frames: segments of a sound; longer ones are cut, shorter ones filled up.
    bank: frames of the filter bank in a segment; 512 are 5.12 seconds.
    keys, values: see `Slots`.
  """

  kinds: ClassVar[tuple[str, ...]] = ("audio",)
  frames: int = 2
  bank: int = 512
  keys: bool = False
  values: bool = True

  def __post_init__(self):
    if min(self.frames, self.bank) < 1:
      raise ValueError(f"{self}: expected 1 or more of each.")

  @functools.cached_property
  def slots(self) -> Slots:
    cut, _ = audio.segments(np.zeros(1, np.float32), 1, self.bank)
    return Slots(
      1,
      self.frames,
      cut.shape[1:],
      "float32",
      keys=self.keys,
      values=self.values,
      lengths=self.values,
    )

  def read(self, media: Media, name: str, seed: Sequence[int]) -> Clip:
    del seed
    payload = media.load()
    if isinstance(payload, np.ndarray):
      wave = self._checked(payload, media.metadata.get("rate"), name)
    else:
      wave = audio.decode(payload, audio.RATE, name)
    start, end = media.metadata.get("start", 0.0), media.metadata.get("end")
    wave = audio.part(wave, audio.RATE, start, end, name)
    return Clip(*audio.segments(wave, self.frames, self.bank))

  def _checked(self, payload: np.ndarray, rate: Any, name: str) -> np.ndarray:
    if payload.ndim != 1 or payload.dtype.kind != "f":
      raise BadSample(
        f"{name} is {payload.dtype}{list(payload.shape)}, expected floats "
        "[samples]."
      )
    if rate != audio.RATE:
      raise BadSample(
        f"{name} has {rate} samples a second by its metadata ('rate'), "
        f"expected {audio.RATE}."
      )
    # What overflows is refused as not finite.
    with np.errstate(over="ignore"):
      wave = payload.astype(np.float32)
    return audio.check(wave, name)


@dataclasses.dataclass(frozen=True)
class Points:
  """Shapes as points on their surface.

  Attributes:
    count: of points.
    keys, values: see `Slots`.
  """

  kinds: ClassVar[tuple[str, ...]] = ("points",)
  frames: ClassVar[int] = 1
  count: int = 8192
  keys: bool = False
  values: bool = True

  @property
  def slots(self) -> Slots:
    fields = dict(keys=self.keys, values=self.values)
    return Slots(1, 1, (self.count, 3), "float32", **fields)

  def read(self, media: Media, name: str, seed: Sequence[int]) -> Clip:
    rng = np.random.default_rng([*seed, 1]) if seed else None
    drawn = 0 if rng is None else int(rng.integers(2**31))
    return Clip(points.decode(media.load(), self.count, drawn, name)[None])


def pictures(
  transforms: Sequence[Mapping] = (),
  frames: int = 1,
  fps: float | None = 1.0,
  keys: bool = False,
  values: bool = True,
) -> Pictures:
  """With transforms by their names in TRANSFORMS; see Pictures."""
  chain = tuple(build(image.TRANSFORMS, t) for t in transforms)
  return Pictures(chain, frames, fps, keys, values)


READERS = {"pictures": pictures, "points": Points, "sounds": Sounds}
