import io
from fractions import Fraction

import numpy as np
import pytest

from mmjax.data import video
from mmjax.data.document import BadSample

av = pytest.importorskip("av")


def clip(seconds=4, rate=5, size=(32, 48), format="mp4", times=lambda t: t):
  """A clip whose brightness tells the second: 40 a second.

  `times` moves the frames, whose brightness stays.
  """
  data = io.BytesIO()
  with av.open(data, "w", format=format) as file:
    stream = file.add_stream("mpeg4", rate=rate)
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
