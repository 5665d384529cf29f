"""Penalties on what an answer has already, against Hugging Face's generate.

The prompts are embeddings there, as those of BLIP-2 with its media are: what is
counted and penalised are new tokens. They are not padded: transformers 5 takes
as many new tokens as there are places of padding for the prompt's.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mmjax.generation.beam import beam_search
from mmjax.generation.penalties import Penalties
from mmjax.generation.sample import Sampling, generate
from tests.generation import stopping
from tests.generation.stopping import PAD, STOP

NEW = 8
# Repetition penalty, fewest new tokens, length penalty.
OPTIONS = [(1.5, 1, 1.0), (1.5, 4, -1.0), (1.2, 2, 0.0), (1.0, 3, -1.0)]


@pytest.fixture(scope="module")
def models():
  return stopping.models()


def theirs(model, tokens, mask, beams, repetition, least, length):
  ids = torch.tensor(tokens)
  with torch.no_grad():
    found = model.generate(
      inputs_embeds=model.get_input_embeddings()(ids),
      attention_mask=torch.tensor(mask),
      max_new_tokens=NEW,
      min_new_tokens=least or None,
      num_beams=beams,
      repetition_penalty=repetition,
      length_penalty=length,
      do_sample=False,
      pad_token_id=PAD,
    ).numpy()
  return np.pad(found, [(0, 0), (0, NEW - found.shape[1])], constant_values=PAD)


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("repetition, least, length", OPTIONS)
def test_tokens_are_equal(models, beams, repetition, least, length):
  model, module, params = models
  tokens, mask = stopping.prompts(padded=False)
  expected = theirs(model, tokens, mask, beams, repetition, least, length)
  given = (module, params, stopping.batch_of(tokens, mask))
  penalties = Penalties(repetition, least)
  if beams == 1:
    sampling = Sampling(NEW, stop=(STOP,), pad=PAD, penalties=penalties)
    found = generate(*given, sampling).tokens
  else:
    options = dict(length_penalty=length, penalties=penalties)
    options |= dict(max_new_tokens=NEW, num_beams=beams, stop=STOP, pad=PAD)
    found = beam_search(*given, **options).tokens[:, 0]
  np.testing.assert_array_equal(found, expected)
  assert not (expected[:, :least] == STOP).any()
  # Greedy and without a penalty it goes round for ever.
  assert (expected == STOP).any() or (repetition, beams) == (1.0, 1)


def test_only_what_was_written_is_penalised():
  scores = jnp.array([[2.0, -2.0, 0.5, 1.0]] * 2)
  written = jnp.array([[0, 1, 3], [1, 1, 3]])
  found = Penalties(2.0, 3)(scores, written, 2, jnp.array([2]))
  expected = [[1.0, -4.0, -np.inf, 1.0], [2.0, -4.0, -np.inf, 1.0]]
  np.testing.assert_array_equal(found, expected)
  # Enough is there.
  found = Penalties(1.0, 2)(scores, written, 2, jnp.array([2]))
  np.testing.assert_array_equal(found, scores)


@pytest.mark.parametrize("fields", [(0.0, 0), (float("nan"), 0), (1.0, -1)])
def test_senseless_ones_are_refused(fields):
  with pytest.raises(ValueError, match="repetition_penalty|min_new_tokens"):
    Penalties(*fields)
