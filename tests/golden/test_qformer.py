"""Golden component qformer with other options, and with a part of its data."""

import re

import pytest

from tests.golden.compare import compare
from tests.golden.test_golden import ARRAYS, copy, outputs

BODY = ARRAYS / "qformer" / "body_freq1.safetensors"
# What a Q-Former without text lacks, besides the head of captions.
OF_TEXT = re.compile(
  r"w\.(cls\..*|.*\.(word|position)_embeddings\..*"
  r"|.*layer\.\d+\.(intermediate|output)\..*)"
)


def lines(tmp_path, change):
  return list(compare(copy(tmp_path / "a.safetensors", change, BODY)))


def only(tensors, call):
  for name in outputs(tensors):
    if not name.startswith(f"out.{call}."):
      del tensors[name]


def with_options(tensors, config):
  config["constructor"].update(
    layer_norm_eps=1e-11, hidden_act="gelu", pad_token_id=3
  )
  only(tensors, "text_only")


def test_options_that_change_next_to_nothing(tmp_path):
  (line,) = lines(tmp_path, with_options)
  assert line.passed


def test_the_epsilon_is_what_the_file_says(tmp_path):
  def change(tensors, config):
    with_options(tensors, config)
    config["constructor"].update(layer_norm_eps=0.1)

  (line,) = lines(tmp_path, change)
  assert not line.passed


def test_an_unknown_activation_is_refused(tmp_path):
  def change(tensors, config):
    config["constructor"].update(hidden_act="gelu_new")

  with pytest.raises(ValueError, match="Unknown activation 'gelu_new'"):
    lines(tmp_path, change)


def without_ids(tensors, config):
  only(tensors, "query_only")
  for name in ("text_mask", "encoder_mask", "input_ids"):
    del tensors[f"in.{name}"]


def without_text(tensors, config):
  without_ids(tensors, config)
  for name in filter(OF_TEXT.fullmatch, list(tensors)):
    del tensors[name]


@pytest.mark.parametrize("change", [without_ids, without_text])
def test_queries_alone(change, tmp_path):
  found = lines(tmp_path, change)
  assert len(found) == 5 and all(line.passed for line in found)
