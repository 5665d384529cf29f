import io
import struct
from fractions import Fraction

import numpy as np
import pytest

from mmjax.data import video
from mmjax.data.document import BadSample

av = pytest.importorskip("av")


def clip(
  seconds=4,
  rate=5,
  size=(32, 48),
  format="mp4",
  times=lambda t: t,
  codec="mpeg4",
):
  """A clip whose brightness tells the second: 40 a second.

  `times` moves the frames, whose brightness stays.
  """
  data = io.BytesIO()
  with av.open(data, "w", format=format) as file:
    stream = file.add_stream(codec, rate=rate)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    for i in range(seconds * rate):
      pixels = np.full((*size, 3), 40 * (i // rate) + 20, np.uint8)
      frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
      frame.pts, frame.time_base = times(i), Fraction(1, rate)
      file.mux(stream.encode(frame))
    file.mux(stream.encode())
  return data.getvalue()


def seconds_of(frames):
  return [int(round((f.mean() - 20) / 40)) for f in frames]


@pytest.mark.parametrize("format", ["mp4", "matroska", "avi"])
def test_one_frame_a_second(format):
  frames = video.decode(clip(format=format), frames=8, fps=1.0)
  assert frames.dtype == np.uint8 and frames.shape == (4, 32, 48, 3)
  assert seconds_of(frames) == [0, 1, 2, 3]


@pytest.mark.parametrize("box", [b"wide", b"free", b"skip"])
def test_quicktime_without_the_box_that_names_it(box):
  data = clip(format="mov")
  assert data[4:8] == b"ftyp"
  # Another of the same length, as the index counts from the beginning.
  frames = video.decode(data[:4] + box + data[8:])
  assert seconds_of(frames) == [0, 1, 2, 3]


def test_count_rate_and_ends():
  data = clip()
  assert len(video.decode(data, frames=3, fps=1.0)) == 3
  assert seconds_of(video.decode(data, frames=8, fps=2.0)) == [
    *(0, 0, 1, 1, 2, 2, 3, 3)
  ]
  assert seconds_of(video.decode(data, start=1.0, end=3.0)) == [1, 2]


@pytest.mark.parametrize("format", ["mp4", "matroska"])
def test_time_counts_from_where_a_clip_begins(format):
  data = clip(format=format, times=lambda i: i + 35)  # 7 s
  assert seconds_of(video.decode(data)) == [0, 1, 2, 3]
  assert seconds_of(video.decode(data, start=1.0, end=3.0)) == [1, 2]


WRITTEN = [
  *(("mp4", "mpeg4"), ("mov", "libx264"), ("matroska", "mpeg4")),
  *(("matroska", "libx264"), ("webm", "libvpx")),
]


@pytest.mark.parametrize(("format", "codec"), WRITTEN)
@pytest.mark.parametrize("offset", [0, 10, 25, 100])  # Tenths of a second.
def test_frames_are_spread_over_a_clip_that_begins_anywhere(
  format, codec, offset
):
  data = clip(4, 10, format=format, codec=codec, times=lambda i: i + offset)
  assert seconds_of(video.decode(data, 4, None)) == [0, 1, 2, 3]
  assert seconds_of(video.decode(data, 3, None, start=1.0)) == [1, 2, 3]
  assert seconds_of(video.decode(data, 2, None, 1.0, 3.0)) == [1, 2]
  with pytest.raises(BadSample, match="no time between 4.5"):
    video.decode(data, 2, None, start=4.5)


def test_matroska_may_say_how_long_it_is_or_when_it_ends():
  data = clip(format="matroska", times=lambda i: i + 50)
  ends, long = (b"\x44\x89\x88" + struct.pack(">d", s) for s in (14e3, 4e3))
  assert data.count(ends) == 1
  found = video.decode(data.replace(ends, long), 4, None)
  assert seconds_of(found) == [0, 1, 2, 3]


@pytest.mark.parametrize("format", ["mp4", "matroska"])
def test_a_gap_is_passed_over(format):
  data = clip(format=format, times=lambda i: i if i < 5 else i + 15)
  assert seconds_of(video.decode(data)) == [0, 1, 2, 3]
  slides = clip(rate=1, format=format, times=lambda i: 3 * i)
  assert seconds_of(video.decode(slides)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
  "data",
  [
    b"",
    b"no video",
    b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    clip()[:200],
    b"\0\0\0\x18ftypmp42" + b"\0" * 100,
  ],
)
def test_hostile_clips_are_named_errors(data):
  with pytest.raises(BadSample, match="the_clip"):
    video.decode(data, name="the_clip")


def test_oversized_frames(monkeypatch):
  monkeypatch.setattr(video, "MAX_PIXELS", 100)
  with pytest.raises(BadSample, match="48x32"):
    video.decode(clip())


def test_too_many_frames(monkeypatch):
  monkeypatch.setattr(video, "MAX_DECODED", 7)
  with pytest.raises(BadSample, match="more than 7 frames before 2"):
    video.decode(clip())


def test_no_frame_in_range():
  with pytest.raises(BadSample, match="no frame"):
    video.decode(clip(), start=100.0)
