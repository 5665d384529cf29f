import io
import struct
import wave

import numpy as np
import pytest

from mmjax.data import audio, promised
from mmjax.data.document import BadSample

soundfile = pytest.importorskip("soundfile")


def tone(rate=16_000, seconds=0.5, channels=1):
  t = np.arange(int(rate * seconds)) / rate
  wave = 0.5 * np.sin(2 * np.pi * 440 * t)
  return np.repeat(wave[:, None], channels, 1).astype(np.float32)


def encode(wave, rate=16_000, format="WAV", subtype="FLOAT"):
  data = io.BytesIO()
  soundfile.write(data, wave, rate, format=format, subtype=subtype)
  return data.getvalue()


def test_decode_gives_the_samples_back():
  out = audio.decode(encode(tone()))
  assert out.dtype == np.float32
  np.testing.assert_array_equal(out, tone()[:, 0])


def test_channels_are_averaged_and_rates_changed():
  stereo = tone(8_000, channels=2) * np.array([1.0, 0.0], np.float32)
  out = audio.decode(encode(stereo, 8_000, "FLAC", "PCM_16"))
  assert out.shape == (8_000,)
  expected = tone()[:, 0] / 2
  np.testing.assert_allclose(out[200:-200], expected[200:-200], atol=2e-3)


# Their frames have no fixed place, so that nothing seeks in them.
@pytest.mark.parametrize(
  ("format", "subtype"),
  [
    *(("WAV", "GSM610"), ("AIFF", "GSM610"), ("W64", "GSM610")),
    *(("WAV", "G721_32"), ("AU", "G721_32"), ("AU", "G723_24")),
    *(("WAV", "NMS_ADPCM_16"), ("XI", "DPCM_16"), ("XI", "DPCM_8")),
  ],
)
def test_codecs_that_cannot_seek_are_read_to_their_end(
  format, subtype, monkeypatch
):
  monkeypatch.setattr(audio, "BLOCK", 1_000)
  rate = 44_100 if format == "XI" else 8_000
  out = audio.decode(encode(tone(rate), rate, format, subtype))
  assert 8_000 <= len(out) < 9_000  # Blocks are filled up.
  level = np.sqrt(np.mean(out[:8_000] ** 2))
  assert level == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


def test_too_many_samples_of_a_codec_that_cannot_seek(monkeypatch):
  data = encode(tone(8_000), 8_000, "WAV", "GSM610")
  for known in (True, False):
    if not known:
      monkeypatch.setattr(soundfile.SoundFile, "frames", 1)
    monkeypatch.setattr(audio, "MAX_SAMPLES", 1_000)
    with pytest.raises(BadSample, match="the_sound .*cap"):
      audio.decode(data, name="the_sound")


def nan():
  wave = tone()
  wave[7] = np.nan
  return wave


@pytest.mark.parametrize("format", ["WAV", "RF64", "AIFF", "AU", "W64", "CAF"])
def test_a_sound_that_was_cut(format):
  whole = encode(tone(), format=format, subtype="PCM_16")
  assert len(audio.decode(whole)) == 8_000
  for part in (0.99, 0.5, 0.1):
    with pytest.raises(BadSample, match="the_sound"):
      audio.decode(whole[: int(part * len(whole))], name="the_sound")
  with pytest.raises(BadSample, match="1600[08] bytes of samples, 79.. are"):
    audio.decode(encode(tone(), subtype="PCM_16")[:8_000])


@pytest.mark.parametrize("format", ["WAV", "AU", "W64", "AIFF", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ULAW"])
@pytest.mark.parametrize("count", [8_000, 7_999])
def test_whole_sounds_of_odd_sizes_are_read(format, subtype, count):
  out = audio.decode(encode(tone()[:count], format=format, subtype=subtype))
  # AIFF counts what fills its samples up to an even size.
  assert len(out) in (count, count + (format == "AIFF"))


# Sizes that FFmpeg, arecord, SoX and others write where they cannot go back.
@pytest.mark.parametrize(
  ("format", "mark", "size"),
  [
    *(("WAV", b"data", x) for x in (2**32 - 1, 2**31 - 1, 2**31 - 4096, 2**31)),
    ("AU", b".snd????", 2**32 - 1),
    ("AIFF", b"SSND", 2**32 - 1),
    ("RF64", b"data", 0),
  ],
)
def test_sounds_from_a_pipe_do_not_know_their_size(format, mark, size):
  data = bytearray(encode(tone(), format=format, subtype="PCM_16"))
  at = data.index(mark.rstrip(b"?")) + len(mark)
  struct.pack_into("<I" if mark == b"data" else ">I", data, at, size)
  assert promised.sound(bytes(data)) is None
  if format != "RF64":
    assert len(audio.decode(bytes(data))) == 8_000


@pytest.mark.parametrize("form", ["wav", "aiff", "au"])
def test_sounds_that_ffmpeg_wrote_into_a_pipe(form):
  av = pytest.importorskip("av")

  written = []

  class Pipe:
    def write(self, data):
      written.append(bytes(data))
      return len(data)

  codec = "pcm_s16le" if form == "wav" else "pcm_s16be"
  with av.open(Pipe(), "w", format=form) as file:
    stream = file.add_stream(codec, rate=16_000)
    stream.layout = "mono"
    samples = (tone()[:, 0] * 32_767).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate = 16_000
    file.mux(stream.encode(frame))
    file.mux(stream.encode())
  assert len(audio.decode(b"".join(written))) == 8_000


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16"])
def test_channels_that_cancel_each_other(subtype):
  wave = tone(channels=2) * np.array([1, -1], np.float32)
  with pytest.raises(BadSample, match="the_sound has 2 channels that cancel"):
    audio.decode(encode(wave, subtype=subtype), name="the_sound")
  # One that is wide, one that is silent, and one that is faint.
  wide = wave * np.array([1, 0.9], np.float32)
  for fine in (wide, 0 * wave, 1e-4 * np.abs(wave)):
    assert len(audio.decode(encode(fine, subtype=subtype))) == 8_000


def test_samples_on_the_scale_of_int16_are_left_as_they_are():
  wave = 32_768 * np.sign(tone())
  np.testing.assert_array_equal(audio.decode(encode(wave)), wave[:, 0])
  assert audio.decode(encode(wave, 44_100)).max() > 32_768


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("level", [1e6, 1e20, 3e38])
def test_samples_that_no_sound_has(rate, level):
  wave = level * tone(channels=2)
  with pytest.raises(BadSample, match="the_sound has samples as large as"):
    audio.decode(encode(wave, rate), rate=16_000, name="the_sound")


def test_samples_that_are_too_large_after_resampling(monkeypatch):
  square = 0.9 * np.sign(tone(44_100))
  monkeypatch.setattr(audio, "MAX_LEVEL", 0.95)
  with pytest.raises(BadSample, match="the_sound has samples as large as"):
    audio.decode(encode(square, 44_100), name="the_sound")


# By name: the bytes hold the time, and tests must be called alike everywhere.
HOSTILE = {
  "empty file": b"",
  "text": b"no sound at all",
  "cut header": encode(tone())[:30],
  "no samples": encode(tone()[:0]),
  "nan": encode(nan()),
  "infinite": encode(tone() * np.inf),
  "cut flac": encode(tone(), format="FLAC", subtype="PCM_16")[:60],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sounds_are_named_errors(name):
  with pytest.raises(BadSample, match="the_sound") as error:
    audio.decode(HOSTILE[name], name="the_sound")
  assert "BytesIO" not in str(error.value)


def test_a_flac_from_a_pipe():
  data = bytearray(encode(tone(), format="FLAC", subtype="PCM_16"))
  data[21] &= 0xF0  # The upper bits of 36.
  data[22:26] = bytes(4)
  with pytest.raises(BadSample, match="does not say how many samples"):
    audio.decode(bytes(data))


def test_what_is_no_sound_is_told_in_words():
  expected = "the_sound cannot be decoded as WAV, FLAC, OGG or MP3: Format not"
  with pytest.raises(BadSample, match=expected):
    audio.decode(b"<html>404</html>", name="the_sound")


def test_too_many_samples(monkeypatch):
  monkeypatch.setattr(audio, "MAX_SAMPLES", 100)
  with pytest.raises(BadSample, match="8000 samples"):
    audio.decode(encode(tone()))


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_rates_that_would_fill_the_memory(rate):
  data = io.BytesIO()
  with wave.open(data, "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(rate)
    file.writeframes(bytes(200_000))
  with pytest.raises(BadSample, match=f"the_sound says {rate} samples"):
    audio.decode(data.getvalue(), name="the_sound")


def test_a_sound_that_grows_too_long(monkeypatch):
  data = io.BytesIO()
  soundfile.write(data, np.zeros(1000), 1000, format="WAV")
  monkeypatch.setattr(audio, "MAX_SAMPLES", 15_000)
  with pytest.raises(BadSample, match="more than 15000 samples at 16000"):
    audio.decode(data.getvalue())


def test_segments_share_what_their_windows_overlap():
  wave = np.arange(9, dtype=np.float32)
  cut, lengths = audio.segments(wave, None, frames=2, window=4, hop=2)
  np.testing.assert_array_equal(cut, [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 0]])
  np.testing.assert_array_equal(lengths, [6, 5])


@pytest.mark.parametrize("samples", [1, 399])
def test_a_sound_shorter_than_a_window_has_one(samples):
  wave = np.linspace(-1, 1, samples, dtype=np.float32)
  ((cut,), lengths) = audio.segments(wave)
  np.testing.assert_array_equal(lengths, [400])
  np.testing.assert_array_equal(cut[:samples], wave)
  assert not cut[samples:].any()


@pytest.mark.parametrize(
  "samples, count, expected",
  [
    (0, None, [0]),
    (400, None, [400]),
    (1_600, None, [1_600]),  # 0.1 s
    (82_160, None, [82_160]),
    (82_319, None, [82_160]),  # No further window.
    (82_320, None, [82_160, 400]),
    (160_000, None, [82_160, 78_080]),
    (0, 2, [0, 0]),
    (82_000, 2, [82_000, 80]),
    (160_000, 1, [82_160]),
  ],
)
def test_segments_hold_all_windows_or_as_many_as_are_wanted(
  samples, count, expected
):
  wave = np.linspace(-1, 1, samples, dtype=np.float32)
  cut, lengths = audio.segments(wave, count)
  assert cut.shape == (len(expected), 82_160) and cut.dtype == np.float32
  np.testing.assert_array_equal(lengths, expected)
  for i, (row, length) in enumerate(zip(cut, lengths)):
    start = 81_920 * i
    np.testing.assert_array_equal(row[:length], wave[start : start + length])
    assert not row[length:].any()
