"""Sentences against Hugging Face's BERT with a mean over the tokens."""

import json

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from transformers import BertConfig, BertModel

from mmjax.cli.sentences import Sentences

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{i}" for i in range(20))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("minilm")
  config = BertConfig(
    vocab_size=len(WORDS),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=24,
  )
  torch.manual_seed(0)
  model = BertModel(config).eval()
  model.save_pretrained(path)
  ids = {word: i for i, word in enumerate(WORDS)}
  backend = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
  backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  backend.save(str(path / "tokenizer.json"))
  settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
  (path / "tokenizer_config.json").write_text(json.dumps(settings))
  return path, model


@pytest.mark.heavy
def test_rows_are_the_originals(folder):
  path, model = folder
  texts = ["w1 w2", "w3", "w4 " * 40, "", "w1 w2 w5"]
  found = Sentences(path, batch_size=2)(texts)
  for text, row in zip(texts, found):
    words = ["[CLS]", *text.split()[:22], "[SEP]"]
    ids = torch.tensor([[WORDS.index(word) for word in words]])
    with torch.no_grad():
      mean = model(ids).last_hidden_state.mean(1)[0].numpy()
    np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)


def test_another_model_is_refused(folder, tmp_path):
  (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
  with pytest.raises(ValueError, match="of a 'gpt2'.*expected a BERT"):
    Sentences(tmp_path)
