"""Tokenizers of Hugging Face's folders give the ids that transformers gives."""

import json
import pickle
import socket

import pytest
import tokenizers
import transformers
from tokenizers import models, pre_tokenizers

from mmjax.text.tokenizer import Tokenizer

CORPUS = [
  f"the quick brown fox jumps over {i} lazy dogs, été" for i in range(99)
]
TEXTS = (
  "the quick brown fox",
  "  two  spaces, a\ttab\nand a line",
  "été ünïcödé 日本 😀",
  "a <new> word and a<new>word",
  "typed </s> and <s> and <|end|>",
  "",
)


def config(folder, kind, **settings):
  content = {"tokenizer_class": kind} | settings
  (folder / "tokenizer_config.json").write_text(json.dumps(content))


def added(first):
  """Two tokens behind the vocabulary, the second a special one."""
  plain = dict(lstrip=False, rstrip=False, normalized=False, single_word=False)
  return {
    str(first): dict(content="<new>", special=False, **plain),
    str(first + 1): dict(content="<|end|>", special=True, **plain),
  }


def gpt2(folder):
  """vocab.json and merges.txt."""
  trained = tokenizers.ByteLevelBPETokenizer()
  trained.train_from_iterator(CORPUS, vocab_size=300)
  trained.save_model(str(folder))
  size = trained.get_vocab_size()
  config(
    folder,
    "GPT2Tokenizer",
    added_tokens_decoder=added(size),
    eos_token="<|end|>",
    bos_token="<|end|>",
    unk_token="<|end|>",
  )


def llama(folder):
  """SentencePiece."""
  trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
  (folder / "corpus.txt").write_text("\n".join(CORPUS))
  trainer.train(
    input=str(folder / "corpus.txt"),
    model_prefix=str(folder / "tokenizer"),
    vocab_size=300,
    model_type="bpe",
    byte_fallback=True,
    character_coverage=1.0,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  size = len((folder / "tokenizer.vocab").read_text().splitlines())
  config(
    folder,
    "LlamaTokenizer",
    added_tokens_decoder=added(size),
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
  )


def bert(folder):
  """vocab.txt."""
  words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  words += ["the", "quick", "fox", "a", "word", "##s", ",", "and"]
  (folder / "vocab.txt").write_text("\n".join(words))
  config(folder, "BertTokenizer", added_tokens_decoder=added(len(words)))


def fast(folder):
  """tokenizer.json, and tokens that only tokenizer_config.json adds."""
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
  )
  backend.train_from_iterator(CORPUS, trainer)
  backend.save(str(folder / "tokenizer.json"))
  tokens = added(backend.get_vocab_size())
  config(folder, "PreTrainedTokenizerFast", added_tokens_decoder=tokens)


@pytest.mark.parametrize("write", [gpt2, llama, bert, fast])
def test_same_ids_as_transformers(write, tmp_path, monkeypatch):
  write(tmp_path)

  def refuse(*args, **kwargs):
    raise AssertionError("The network was asked.")

  monkeypatch.setattr(socket.socket, "connect", refuse)
  ours = Tokenizer.from_file(tmp_path, added=("<image>",))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  for text in TEXTS:
    expected = theirs(
      text, add_special_tokens=False, split_special_tokens=True
    ).input_ids
    assert ours.encode(text) == expected, text
  assert ours.encode("<new>") == [ours.id("<new>")]
  assert ours.id("<|end|>") not in ours.encode("<|end|>")
  assert ours.base_size == len(theirs) == ours.id("<image>")
  ids = ours.encode("the quick <new> fox")
  assert ours.decode(ids) == theirs.decode(ids)
  again = pickle.loads(pickle.dumps(ours))
  assert [again.encode(t) for t in TEXTS] == [ours.encode(t) for t in TEXTS]


def test_new_tokens_do_not_fall_into_holes():
  backend = tokenizers.Tokenizer(
    models.WordLevel({"<unk>": 0, "a": 1, "b": 7}, unk_token="<unk>")
  )
  made = Tokenizer(backend, added=("<image>",))
  assert made.id("<image>") == 8 and made.vocab_size == 9
  assert made.decode([1, 3]) == "a"


def test_files_without_a_kind(tmp_path):
  gpt2(tmp_path)
  (tmp_path / "tokenizer_config.json").unlink()
  with pytest.raises(ValueError, match="tokenizer_class"):
    Tokenizer.from_file(tmp_path)
  with pytest.raises(ValueError, match="Give its folder"):
    Tokenizer.from_file(tmp_path / "merges.txt")


def test_code_of_a_folder_is_not_run(tmp_path):
  gpt2(tmp_path)
  mark = tmp_path / "mark"
  (tmp_path / "evil.py").write_text(
    f"open({str(mark)!r}, 'w')\nclass Evil:\n  pass\n"
  )
  config(
    tmp_path, "Evil", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
  )
  with pytest.raises(ValueError, match="reads no tokenizer"):
    Tokenizer.from_file(tmp_path)
  assert not mark.exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"tokenizer_class": 3}'])
def test_a_damaged_config(content, tmp_path):
  gpt2(tmp_path)
  (tmp_path / "tokenizer_config.json").write_text(content)
  with pytest.raises(ValueError, match="reads no tokenizer"):
    Tokenizer.from_file(tmp_path)
