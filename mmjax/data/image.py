"""Pictures: safe decoding, and the resizing that each encoder expects.

Everything stays uint8; normalising belongs to the model, inside jit.
"""

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from mmjax.config import lookup
from mmjax.data.document import MAX_BYTES, BadSample
from mmjax.typing import UInt8

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
# A 20 kB file can hold 169 MP; the header tells before anything is decoded.
MAX_PIXELS = 50_000_000
RESAMPLE = {
  "bicubic": Image.Resampling.BICUBIC,
  "bilinear": Image.Resampling.BILINEAR,
  "lanczos": Image.Resampling.LANCZOS,
}

# What the eye sees of red, green and blue (ITU-R BT.601).
GREY = np.array([0.299, 0.587, 0.114], np.float32)

# Height, width and colours; not named, since transforms change them.
Pixels = UInt8[np.ndarray, "_ _ 3"]


def decode(data: bytes, name: str = "image") -> Pixels:
  """An encoded picture as RGB, transparent parts on white.

  What a file is called plays no part. Of an animation the first frame is
  taken. The orientation tag of cameras is not applied, as in the originals.

  Args:
    data: a JPEG, PNG, WebP or GIF file.
    name: what an error calls it.

  Raises:
    BadSample: for anything else, and for damaged or oversized files.
  """
  if not data:
    raise BadSample(f"{name} has 0 bytes.")
  cap = MAX_BYTES["image"]
  if len(data) > cap:
    raise BadSample(f"{name} has {len(data)} bytes, the cap is {cap}.")
  try:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
      width, height = image.size
      if width * height > MAX_PIXELS:
        raise BadSample(
          f"{name} is {width}x{height} pixels in {len(data)} bytes, the cap "
          f"is {MAX_PIXELS}."
        )
      image.load()
      return np.asarray(_rgb(image))
  except BadSample:
    raise
  except Image.UnidentifiedImageError:
    raise BadSample(
      f"{name} is no {', '.join(FORMATS)}; it begins with {data[:12]!r}."
    ) from None
  # Decoders raise OSError, SyntaxError, struct.error, ... for damaged files.
  except Exception as error:
    raise BadSample(
      f"{name} cannot be decoded: {type(error).__name__}: {error}"
    ) from error


def _rgb(image: Image.Image) -> Image.Image:
  if image.mode.startswith("I"):  # 16 bits of grey
    grey = np.clip(np.asarray(image), 0, 65_535) // 257
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
  if image.has_transparency_data:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    image = Image.alpha_composite(white, image)
  return image.convert("RGB")


@runtime_checkable
class Transform(Protocol):
  """Pixels to pixels.

  The generator gives the same coins for every picture of an example; without
  one nothing is random.
  """

  def __call__(
    self, image: Pixels, rng: np.random.Generator | None
  ) -> Pixels: ...


@dataclasses.dataclass(frozen=True)
class ClipVal:
  """CLIP's evaluation transform, equal to torchvision's on PIL images.

  480x640 -> shorter side to 224: 224x298 -> centre: 224x224
  """

  size: int = 224

  def __call__(self, image: Pixels, rng: np.random.Generator | None) -> Pixels:
    del rng
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    scaled = int(self.size * long / short)
    if scaled * self.size > MAX_PIXELS:
      raise BadSample(
        f"A picture of {width}x{height} would become {scaled} long before it "
        f"is cropped; the cap is {MAX_PIXELS} pixels."
      )
    to = (self.size, scaled) if height > width else (scaled, self.size)
    image = resize(image, to, "bicubic")
    return centre_crop(image, self.size)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
  """A random part of a picture as a square: torchvision's RandomResizedCrop.

    480x640 -> 0.9 of its area or more, such as 471x598 -> 224x224

  Without chance it is ClipVal.

  Attributes:
    size: side of the result.
    scale: least and largest share of the area.
    ratio: least and largest width over height.
  """

  size: int = 224
  scale: Sequence[float] = (0.9, 1.0)
  ratio: Sequence[float] = (3 / 4, 4 / 3)

  def __post_init__(self):
    for name, (least, most) in (("scale", self.scale), ("ratio", self.ratio)):
      if not 0 < least <= most < math.inf:
        raise ValueError(f"{name} is {(least, most)}; expected 0 < a <= b.")

  def __call__(self, image: Pixels, rng: np.random.Generator | None) -> Pixels:
    if rng is None:
      return ClipVal(self.size)(image, None)
    height, width, top, left = self._box(*image.shape[:2], rng)
    image = image[top : top + height, left : left + width]
    return resize(image, (self.size, self.size), "bicubic")

  def _box(
    self, height: int, width: int, rng: np.random.Generator
  ) -> tuple[int, int, int, int]:
    """Height and width of a part, and where it is."""
    for _ in range(10):
      area = height * width * rng.uniform(*self.scale)
      ratio = math.exp(rng.uniform(*map(math.log, self.ratio)))
      part = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
      if 0 < part[0] <= height and 0 < part[1] <= width:
        top = rng.integers(height - part[0] + 1)
        return *part, int(top), int(rng.integers(width - part[1] + 1))
    # No such part was found: the largest in the middle.
    least, most = self.ratio
    part = min(height, round(width / least)), min(width, round(height * most))
    return *part, (height - part[0]) // 2, (width - part[1]) // 2


@dataclasses.dataclass(frozen=True)
class EfficientNetLite:
  """EfficientNet's evaluation transform: crop the centre, then resize.

    480x640 -> centre square of 480·224/(224+32): 420x420 -> 224x224

  Attributes:
    size: side of the result.
    crop_padding: how much larger than `size` the whole square would be; 0
      keeps it all.
    resample: a name of RESAMPLE.
  """

  size: int = 224
  crop_padding: int = 32
  resample: str = "bicubic"

  def __call__(self, image: Pixels, rng: np.random.Generator | None) -> Pixels:
    del rng
    share = self.size / (self.size + self.crop_padding)
    side = max(1, int(share * min(image.shape[:2])))
    height, width = image.shape[:2]
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    image = image[top : top + side, left : left + side]
    return resize(image, (self.size, self.size), self.resample)


@dataclasses.dataclass(frozen=True)
class PadToSquare:
  """Flamingo's: longer side to `size`, the rest filled with the mean.

    480x640 -> 240x320 -> 320x320, 40 rows of `fill` above and below

  Attributes:
    size: side of the result.
    fill: the colour that normalising turns into 0 (ImageNet's mean).
    resample: a name of RESAMPLE.
  """

  size: int = 320
  fill: Sequence[int] = (124, 116, 104)
  resample: str = "bicubic"

  def __call__(self, image: Pixels, rng: np.random.Generator | None) -> Pixels:
    del rng
    height, width = image.shape[:2]
    scale = self.size / max(height, width)
    to = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = resize(image, to, self.resample)
    out = np.empty((self.size, self.size, 3), np.uint8)
    out[:] = np.asarray(self.fill, np.uint8)
    top = (self.size - image.shape[0]) // 2
    left = (self.size - image.shape[1]) // 2
    out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out


@dataclasses.dataclass(frozen=True)
class Expand:
  """LLaVA-1.5's first step: the shorter side filled up, at full size.

    480x640 -> 640x640, 80 rows of `fill` above and below

  The original fills pictures of any size. Here one that is longer than
  `longest` is brought to that first, as a thin one would fill the memory.

  Attributes:
    fill: the colour that CLIP's normalising turns into about 0.
    longest: pixels of a side.
  """

  fill: Sequence[int] = (122, 116, 104)
  longest: int = 4096

  def __call__(self, image: Pixels, rng: np.random.Generator | None) -> Pixels:
    del rng
    height, width = image.shape[:2]
    side = max(height, width)
    if side > self.longest:
      scale = self.longest / side
      size = tuple(max(round(x * scale), 1) for x in (width, height))
      image = resize(image, size, "bicubic")
      height, width = image.shape[:2]
      side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = np.asarray(self.fill, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


@dataclasses.dataclass(frozen=True)
class Square:
  """Both sides to `size`, whatever the aspect: 480x640 -> 96x96."""

  size: int = 224
  resample: str = "bicubic"

  def __call__(self, image: Pixels, rng: np.random.Generator | None) -> Pixels:
    del rng
    return resize(image, (self.size, self.size), self.resample)


@dataclasses.dataclass(frozen=True)
class Flip:
  """Mirrors all pictures of an example, or none: `abc` -> `cba`."""

  p: float = 0.5

  def __call__(self, image: Pixels, rng: np.random.Generator | None) -> Pixels:
    flip = rng is not None and rng.random() < self.p
    return image[:, ::-1] if flip else image


@dataclasses.dataclass(frozen=True)
class Colour:
  """Changes the colours of all pictures of an example in one way.

  In this order: brightness and contrast by a factor drawn from 1 - b to
  1 + b, saturation likewise (0 is grey), and the hue by up to `hue` of the
  colour circle either way. The paper of Flamingo names colour augmentation
  (v2, B.1.3) without its strength; the defaults are common ones.

  Attributes:
    brightness: b; 0 leaves it.
    contrast: b, around the mean grey of the picture.
    saturation: b, around the grey of each pixel.
    hue: 0 to 0.5.
    p: how often any of it is done.
  """

  brightness: float = 0.4
  contrast: float = 0.4
  saturation: float = 0.4
  hue: float = 0.1
  p: float = 0.8

  def __post_init__(self):
    strengths = (self.brightness, self.contrast, self.saturation)
    if not all(0 <= b <= 1 for b in (*strengths, self.p)):
      raise ValueError(
        f"{self}: brightness, contrast, saturation and p go from 0 to 1."
      )
    if not 0 <= self.hue <= 0.5:
      raise ValueError(f"hue is {self.hue}; half the circle, 0.5, is all.")

  def __call__(self, image: Pixels, rng: np.random.Generator | None) -> Pixels:
    if rng is None:
      return image
    # Drawn in any case, so that what follows does not depend on `p`.
    done, *coins = rng.random(5)
    if done >= self.p:
      return image
    light, contrast, saturation, turn = (2 * coin - 1 for coin in coins)
    x = image.astype(np.float32) * (1 + self.brightness * light)
    x = np.clip(x, 0, 255)
    x = _blend(x, (x @ GREY).mean(), 1 + self.contrast * contrast)
    x = _blend(x, (x @ GREY)[..., None], 1 + self.saturation * saturation)
    return turn_hue(np.rint(x).astype(np.uint8), self.hue * turn)


def _blend(x: np.ndarray, start: np.ndarray, factor: float) -> np.ndarray:
  """From `start` at factor 0 through `x` at 1, and beyond."""
  return np.clip(start + factor * (x - start), 0, 255)


def turn_hue(image: Pixels, turn: float) -> Pixels:
  """All hues moved by a part of the colour circle: 1/3 makes red green."""
  steps = round(256 * turn)
  if not steps:
    return image
  hsv = np.array(Image.fromarray(image).convert("HSV"))
  hsv[..., 0] += np.uint8(steps % 256)
  return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


TRANSFORMS = {
  "clip_val": ClipVal,
  "colour": Colour,
  "efficientnet_lite": EfficientNetLite,
  "expand": Expand,
  "pad_to_square": PadToSquare,
  "random_crop": RandomCrop,
  "square": Square,
  "flip": Flip,
}


def resize(image: Pixels, size: tuple[int, int], resample: str) -> Pixels:
  """PIL's resize to (width, height); unchanged when it fits already."""
  if (image.shape[1], image.shape[0]) == size:
    return image
  method = lookup(RESAMPLE, resample, "filter")
  return np.asarray(Image.fromarray(image).resize(size, method))


def centre_crop(image: Pixels, size: int) -> Pixels:
  """The middle `size` x `size`; torchvision's rounding (half to even)."""
  top = round((image.shape[0] - size) / 2)
  left = round((image.shape[1] - size) / 2)
  return image[top : top + size, left : left + size]
