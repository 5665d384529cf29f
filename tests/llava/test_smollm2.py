"""A real language model in from Hugging Face, asked, and out again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import linen as nn
from safetensors.torch import save_file

from mmjax import tree
from mmjax.cli.convert import convert
from mmjax.convert.read import Safetensors, read_json
from mmjax.data.document import Document, Text
from mmjax.generation.sample import Sampling, generate
from mmjax.systems import llava
from mmjax.text.prompts import Chat
from mmjax.training import sources
from tests.lms.test_smollm2 import ours, theirs

__all__ = ["ours", "theirs"]  # Fixtures.
QUESTION = "What is the capital of France? Answer in one sentence."
CONNECTOR = dict(name="projection", width=576, depth=2)


@pytest.mark.heavy
def test_a_factual_question_is_answered_as_there(theirs, tmp_path):
  # It refuses to save what was dequantised.
  theirs.config.save_pretrained(tmp_path / "hf")
  state = theirs.state_dict()
  state = {k: v for k, v in state.items() if k != "lm_head.weight"}
  save_file(state, tmp_path / "hf" / "model.safetensors", {"format": "pt"})
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  fields = read_json(tmp_path / "jax" / "config.json")["model"]
  lm = dict(name="llama", **fields)
  module = llava.build(dict(lm=lm, connector=CONNECTOR))
  weights = Safetensors(tmp_path / "jax")
  params = {"lm": tree.unflatten({k: weights[k] for k in weights})}
  prompt = Chat(sources.smollm2_tokenizer(), "chatml", length=64)
  tokens = prompt.query(Document((Text(QUESTION),), id="q")).tokens[None]
  batch = dict(tokens=tokens, segments=np.ones_like(tokens))
  params = jax.tree.map(jnp.asarray, nn.unbox(params))
  found = np.asarray(
    generate(module, params, batch, Sampling(24, stop=prompt.stops)).tokens[0]
  )
  with torch.no_grad():
    expected = theirs.generate(
      torch.tensor(tokens).long(),
      max_new_tokens=24,
      do_sample=False,
      eos_token_id=list(prompt.stops),
      pad_token_id=0,
    )[0, tokens.shape[1] :].numpy()
  count = len(expected)
  np.testing.assert_array_equal(found[:count], expected)
  text = prompt.tokenizer.decode(expected)
  assert "Paris" in text and count > 6
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
  state = again.state_dict()
  for name, value in theirs.state_dict().items():
    assert torch.equal(state[name], value), name
