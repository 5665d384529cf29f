"""Moving emoji (Fluent Emoji, animated) as clips."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data import drawn, video
from mmjax.data.document import BadSample
from mmjax.data.drawn_chat import main_colour
from mmjax.data.real.item import Archive, Item, Package, RealSet
from mmjax.typing import UInt8

_ASSETS = "package/assets/"
# Code points that change the colour of a skin only.
_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
# Bits a second; an original has two megabits.
_RATE = 1_500_000


def items(archives: Mapping[str, Archive]) -> Iterator[Item]:
  """One clip of each thing that moves.

  Variants by skin tone are left out: the same drawing moves in the same way,
  and one thing would weigh as much as six.
  """
  known = {_plain(c.id): c for c in drawn.concepts()}
  for pictures in archives.values():
    for path in pictures.names(_ASSETS, ".webp"):
      code = path.removeprefix(_ASSETS).removesuffix(".webp")
      if _TONES & {*code.split("-")} or not _moves(pictures.read(path)):
        continue
      concept = known.get(_plain(code))
      if concept is None:
        raise BadSample(f"{path} is none of the drawn set's things.")
      yield _item(code, concept, pictures, path)


def _item(
  code: str, concept: drawn.Concept, pictures: Archive, path: str
) -> Item:
  return Item(
    id=code,
    file=f"video/{code}.mp4",
    kind="video",
    name=concept.name,
    category=concept.category,
    caption=f"a moving picture, {concept.category}: {concept.name}",
    make=lambda: encode(*frames(pictures.read(path), path)),
    look=look,
    object=concept.id,
    attributes={"subcategory": concept.subcategory},
    split=concept.split,
  )


def _plain(code: str) -> str:
  """Without the mark that asks for a picture in place of a letter."""
  return "-".join(part for part in code.split("-") if part != "fe0f")


def _moves(data: bytes) -> bool:
  with Image.open(io.BytesIO(data)) as picture:
    return getattr(picture, "n_frames", 1) > 1


def frames(
  data: bytes, name: str
) -> tuple[UInt8[np.ndarray, "T height width 3"], list[int]]:
  """The frames of an animation on white, and when each begins, in ms."""
  found, times, now = [], [], 0
  with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    for i in range(picture.n_frames):
      picture.seek(i)
      frame = Image.alpha_composite(white, picture.convert("RGBA"))
      found.append(np.asarray(frame.convert("RGB")))
      times.append(now)
      now += int(picture.info.get("duration", 0))
  if now <= 0:
    raise BadSample(f"{name} has frames of no duration.")
  return np.stack(found), times


def encode(
  pixels: UInt8[np.ndarray, "T height width 3"], times: list[int]
) -> bytes:
  """An MP4 of frames with an even height and width."""
  import av
  from av.video.frame import PictureType

  data = io.BytesIO()
  with av.open(data, "w", format="mp4") as file:
    # Any build of FFmpeg has this codec.
    stream = file.add_stream("mpeg4", rate=1000)
    stream.height, stream.width = pixels.shape[1:3]
    stream.pix_fmt, stream.bit_rate = "yuv420p", _RATE
    for i, time in enumerate(times):
      frame = av.VideoFrame.from_ndarray(pixels[i], format="rgb24")
      frame.pts, frame.pict_type = time, PictureType.NONE
      file.mux(stream.encode(frame))
    file.mux(stream.encode())
  return data.getvalue()


def look(data: bytes) -> Mapping[str, Any]:
  """The colour that most of its middle frame has."""
  found = video.decode(data, frames=10_000, fps=1000)
  return {"colour": main_colour(found[len(found) // 2])}


# The set is in four parts, with these hashes.
_PARTS = {
  f"pictures_{i}": Package(
    *("npm", f"@lobehub/fluent-emoji-anim-{i}", "1.0.0"),
    f"lobehub-fluent-emoji-anim-{i}-1.0.0.tgz",
    sha256,
  )
  for i, sha256 in enumerate(
    (
      "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
      "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0",
      "3624d0c34c819c1794b74ccf6ae9034adff7c4cb6318dd2a645145f0196feb43",
      "3d4c08f1e321f70808ef4996aba0ab575a9d97b6c56ffffc92cf6161a7836aa3",
    ),
    start=1,
  )
}
ANIMATED = RealSet(
  packages=_PARTS,
  items=items,
  licenses=dict.fromkeys(_PARTS, ("package/README.md", "package/package.json")),
  notice="""# Moving emoji

Fluent Emoji, animated: Copyright (c) Microsoft Corporation, packaged by
LobeHub, Copyright (c) 2023 LobeHub. Licence: MIT, see `licenses/`. The
packages say so and have no licence file; the MIT licence asks for this notice
to be kept:

    Permission is hereby granted, free of charge, to any person obtaining a
    copy of this software and associated documentation files (the "Software"),
    to deal in the Software without restriction, including without limitation
    the rights to use, copy, modify, merge, publish, distribute, sublicense,
    and/or sell copies of the Software, and to permit persons to whom the
    Software is furnished to do so, subject to the following conditions:

    The above copyright notice and this permission notice shall be included in
    all copies or substantial portions of the Software.

    THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
    IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
    FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
    AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
    LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING
    FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
    DEALINGS IN THE SOFTWARE.

Only pictures that move are kept, and of variants by skin tone the yellow one.
They were put on white and stored as MP4. Names, categories, subcategories and
the split are those of mmjax's drawn set, so that what is held out there is
held out here.
""",
)
