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
  sound=0,
  to=None,
):
  """A clip whose brightness tells the second: 40 a second.

  `times` moves the frames, whose brightness stays; `sound` are the seconds of
  a silence.
  """
  data = io.BytesIO() if to is None else to
  with av.open(data, "w", format=format) as file:
    stream = file.add_stream(codec, rate=rate)
    stream.height, stream.width = size
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    if sound:
      add_silence(file, sound)
    for i in range(seconds * rate):
      pixels = np.full((*size, 3), 40 * (i // rate) + 20, np.uint8)
      frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
      frame.pts, frame.time_base = times(i), Fraction(1, rate)
      file.mux(stream.encode(frame))
    file.mux(stream.encode())
  return data.getvalue() if to is None else b""


def add_silence(file, seconds):
  stream = file.add_stream("pcm_s16le", rate=8_000)
  stream.layout = "mono"
  silence = np.zeros((1, 8_000 * seconds), np.int16)
  frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
  frame.sample_rate = 8_000
  file.mux(stream.encode(frame))
  file.mux(stream.encode())


def noise(path, seconds, format, codec, rate=10):
  """A clip whose frames are about as large as each other, index first."""
  rng = np.random.default_rng(0)
  first = {"movflags": "faststart"} if format == "mp4" else {}
  with av.open(path, "w", format=format, options=first) as file:
    stream = file.add_stream(codec, rate=rate)
    stream.height, stream.width = 32, 48
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.codec_context.gop_size = 5
    for _ in range(seconds * rate):
      pixels = rng.integers(0, 256, (32, 48, 3), np.uint8)
      file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
    file.mux(stream.encode())
  return path.read_bytes()


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


# Their frames are found without what stands behind them.
CUT = [
  *(("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx")),
  *(("matroska", "mpeg4"), ("avi", "mjpeg")),
]


@pytest.mark.parametrize(("format", "codec"), CUT)
@pytest.mark.parametrize("fps", [1.0, None])
def test_a_clip_that_was_cut(format, codec, fps, tmp_path):
  data = noise(tmp_path / "clip", 5, format, codec)
  assert len(video.decode(data, 5, fps)) == 5
  for part in (0.8, 0.5):
    with pytest.raises(BadSample, match="the_clip"):
      video.decode(data[: int(part * len(data))], 5, fps, name="the_clip")
  cut = data[: int(0.6 * len(data))]
  if format in ("matroska", "webm"):
    with pytest.raises(
      BadSample, match=r"ends at [23]\.\d s of 5.0 s: it is cut"
    ):
      video.decode(cut, 5, fps)
    assert len(video.decode(cut, 5, 5.0, end=1.0)) == 5


@pytest.mark.parametrize("format", ["mp4", "matroska", "avi"])
@pytest.mark.parametrize("fps", [1.0, 25.0, None])
def test_a_last_frame_that_is_shown_for_long(format, fps):
  slides = clip(rate=1, format=format, times=lambda i: i * i)
  assert video.decode(slides, 50, fps).shape[0] >= 4
  with_sound = clip(seconds=2, format=format, codec="mpeg4", sound=7)
  assert seconds_of(video.decode(with_sound, 2, 1.0)) == [0, 1]
  assert len(video.decode(with_sound, 7, None)) > 0


def test_a_clip_from_a_pipe_states_neither_size_nor_duration():
  written = []

  class Pipe:
    def write(self, data):
      written.append(bytes(data))
      return len(data)

  clip(format="matroska", to=Pipe())
  assert seconds_of(video.decode(b"".join(written))) == [0, 1, 2, 3]


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
  with pytest.raises(
    BadSample, match="more than 7 frames before 2.0 s.*start and"
  ):
    video.decode(clip())


def test_a_stream_without_a_codec():
  data = clip(format="matroska").replace(b"V_MPEG4/ISO/ASP", b"V_NOTHING/AT/AL")
  with pytest.raises(BadSample, match="the_clip has a video stream without a"):
    video.decode(data, name="the_clip")


def test_no_frame_in_range():
  with pytest.raises(BadSample, match="no frame"):
    video.decode(clip(), start=100.0)
