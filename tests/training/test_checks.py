"""What does not fit together is told before the first step."""

import dataclasses

import pytest

from configs.llava import tiny
from mmjax.cli.train import train
from mmjax.data import build
from mmjax.systems import llava, text, x_instructblip
from mmjax.text.tokenizer import Tokenizer
from mmjax.training.checks import check_media
from tests.data import kinds as k
from tests.generation import talking
from tests.systems.test_x_instructblip import MODEL
from tests.text.words import words


def test_places_of_an_image_are_counted():
  model = talking.model()
  check_media(model.encoder, model.module, "prompt")
  prompt = dataclasses.replace(model.encoder.prompt, media_tokens=5)
  wrong = dataclasses.replace(model.encoder, prompt=prompt)
  with pytest.raises(ValueError, match=r"leaves 5 .* a\.media_tokens=4"):
    check_media(wrong, model.module, "a")
  # A model that sees no image has no tokens of it.
  check_media(wrong, text.TextModel(model.module.lm), "a")
  none = dataclasses.replace(prompt, media=0)
  blind = dataclasses.replace(wrong, prompt=none)
  check_media(blind, model.module, "a")


def test_a_run_does_not_begin_with_a_wrong_number(tmp_path):
  config = tiny.get_config()
  config.init = {}
  config.data.datasets.chats.prompt.media_tokens = 10
  with pytest.raises(ValueError, match="datasets.chats.prompt.media_tokens=9"):
    train(config, tmp_path)
  assert not (tmp_path / "config.json").exists()


def test_frames_of_a_medium_are_all_counted():
  model = talking.model()
  reader = dataclasses.replace(model.encoder.readers["image"], frames=2)
  longer = dataclasses.replace(model.encoder, readers={"image": reader})
  assert isinstance(model.module, llava.Llava)
  with pytest.raises(ValueError, match="make 8 tokens"):
    check_media(longer, model.module, "a")


@pytest.mark.parametrize(
  ("prompt", "reader", "message"),
  [
    (dict(reader_length=6), dict(), ""),
    (dict(reader_length=0), dict(), r"image.* 14 tokens.*a\.reader_length"),
    (
      dict(reader_length=6),
      dict(added=["<1>", "<2>"]),
      "has 16 tokens.* 14 rows",
    ),
  ],
)
def test_what_connectors_read_fits_them(prompt, reader, message):
  tokenizer = words(added=())
  backend = tokenizer._backend
  tokenizer.reader = Tokenizer(backend, bos="<s>", eos="</s>", **reader)
  encoder = build.encoder(tokenizer, k.PROMPT | prompt, media=k.MEDIA)
  module = x_instructblip.build(MODEL)
  if not message:
    return check_media(encoder, module, "a")
  with pytest.raises(ValueError, match=message):
    check_media(encoder, module, "a")
