"""What does not fit together is told before the first step."""

import dataclasses

import pytest

from configs.llava import tiny
from mmjax.cli.train import train
from mmjax.systems import llava, text
from mmjax.training.checks import check_media
from tests.generation import talking


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
