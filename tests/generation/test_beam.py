"""Beam search against Hugging Face's, on a LLaMA that often stops."""

import numpy as np
import pytest
import torch

from mmjax.generation.beam import beam_search
from tests.generation import stopping
from tests.generation.stopping import PAD, ROWS, STOP, WIDTH

NEW, BEAMS = 8, 3


@pytest.fixture(scope="module")
def models():
  return stopping.models()


@pytest.mark.parametrize("penalty", [0.0, 2.0, -1.0])
def test_all_beams_and_their_scores(models, penalty):
  theirs, ours, params = models
  tokens, mask = stopping.prompts()
  with torch.no_grad():
    expected = theirs.generate(
      torch.tensor(tokens),
      attention_mask=torch.tensor(mask),
      max_new_tokens=NEW,
      num_beams=BEAMS,
      num_return_sequences=BEAMS,
      length_penalty=penalty,
      early_stopping=False,
      do_sample=False,
      pad_token_id=PAD,
      return_dict_in_generate=True,
      output_scores=True,
    )
  found = beam_search(
    ours,
    params,
    stopping.batch_of(tokens, mask),
    max_new_tokens=NEW,
    num_beams=BEAMS,
    stop=STOP,
    length_penalty=penalty,
    pad=PAD,
  )
  wanted = expected.sequences[:, WIDTH:].numpy().reshape(ROWS, BEAMS, -1)
  length = wanted.shape[-1]
  np.testing.assert_array_equal(found.tokens[..., :length], wanted)
  assert (found.tokens[..., length:] == PAD).all()
  scores = expected.sequences_scores.numpy().reshape(ROWS, BEAMS)
  np.testing.assert_allclose(found.scores, scores, atol=1e-4)
  ended = (wanted == STOP).any(axis=-1)
  assert 0 < ended.mean() < 1, "the test needs both kinds"
