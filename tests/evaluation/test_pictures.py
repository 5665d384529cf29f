"""What a task shows is read once before anything is asked."""

import pytest

from mmjax.data import build
from mmjax.data.document import Document, File, Media
from mmjax.evaluation import pictures
from mmjax.text import tokenizer
from tests.data.test_video import noise

pytest.importorskip("av")


def test_every_task_is_read_with_its_own_frames(tmp_path):
  """A cut clip has all that two frames ask for, and not what five do."""
  data = noise(tmp_path / "clip", 5, "matroska", "libx264")
  (tmp_path / "clip").write_bytes(data[: int(0.6 * len(data))])
  small = dict(name="square", size=8)
  reader = dict(name="pictures", transforms=[small], frames=2, fps=None)
  prompt = dict(name="cued", media=dict(video=1), media_tokens=1, start="")
  few = build.encoder(tokenizer.drawn(), prompt, media=dict(video=reader))
  many = few.changed({}, {"video": {"frames": 5}})
  clip = Media("video", File(str(tmp_path / "clip")), "clip")
  asked = [Document((clip,), "a")]
  pictures.check({"few": (few, asked)})
  with pytest.raises(ValueError, match="1 of 1 of task 'many' .*it is cut"):
    pictures.check({"few": (few, asked), "many": (many, asked)})
