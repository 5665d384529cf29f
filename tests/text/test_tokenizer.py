import pickle

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from mmjax.text import tokenizer
from mmjax.text.build_drawn import make
from mmjax.text.tokenizer import Tokenizer
from tests.text.words import words


def test_added_tokens_come_after_the_base_in_order():
  made = words(added=("<EOC>", "<image>", "<PAD>"))
  assert made.base_size == 14 and made.vocab_size == 17
  ids = [made.id(t) for t in ("<EOC>", "<image>", "<PAD>")]
  assert ids == [14, 15, 16]
  assert (made.bos, made.eos, made.pad) == (12, 13, 0)


@pytest.mark.parametrize("text", ["<image> <EOC>", "a <s> dog </s>"])
def test_text_never_becomes_a_special_token(text):
  made = words()
  ids = made.encode(text)
  assert not set(ids) & {made.bos, made.eos, made.id("<EOC>"), 15}


def test_text_never_becomes_a_special_token_of_a_byte_level_model():
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  backend = tokenizers.Tokenizer(
    models.BPE(vocab={c: i for i, c in enumerate(sorted(alphabet))}, merges=[])
  )
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = tokenizers.decoders.ByteLevel()
  backend.add_special_tokens(["<|endoftext|>"])
  made = Tokenizer(backend, eos="<|endoftext|>", added=("<image>",))
  text = "é <|endoftext|> <image>"
  assert made.eos not in made.encode(text)
  assert made.decode(made.encode(text)) == text


def test_text_that_goes_on_gets_no_space_before_it():
  pieces = ["<unk>", "\n", "▁", "▁Answer", ":", "▁cat", "cat", "▁a", "s"]
  backend = tokenizers.Tokenizer(
    models.Unigram([(p, -1.0 - i / 100) for i, p in enumerate(pieces)], 0)
  )
  backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
  made = Tokenizer(backend)
  whole = made.encode("Answer: cat")
  assert whole == [3, 4, 5]
  parts = made.encode("Answer:") + made.encode(" cat", continues=True)
  assert parts == whole
  assert made.encode("s", continues=True) == [8]
  assert made.encode("cat") == [5]
  assert words().encode("a", continues=True) == words().encode("a")


def test_words_that_are_unknown_are_named():
  assert words().unknown("a horse sits <s>") == ["horse", "s"]
  assert tokenizer.drawn().unknown("What kind? A Zebra, stranger?") == [
    "Zebra,",
    "stranger?",
  ]
  whole = tokenizer.byte_level(list(pre_tokenizers.ByteLevel.alphabet()), [])
  assert Tokenizer(whole).unknown("é 図") == []


def test_decode_with_and_without_specials():
  made = words()
  ids = [made.bos, *made.encode("a dog"), made.id("<EOC>"), made.eos]
  assert made.decode(ids) == "a dog"
  assert made.decode(ids, special=True) == "<s> a dog<EOC></s>"
  with pytest.raises(ValueError, match="outside"):
    made.decode([made.vocab_size])


def test_errors_name_the_token():
  with pytest.raises(ValueError, match="Did you mean '<EOC>'"):
    words().id("<EOD>")
  with pytest.raises(ValueError, match="'dog' is in the vocabulary"):
    words(added=("dog",))
  with pytest.raises(ValueError, match="twice"):
    words(added=("<i>", "<i>"))


def test_files(tmp_path):
  with pytest.raises(ValueError, match="No tokenizer at"):
    Tokenizer.from_file(tmp_path)
  (tmp_path / "tokenizer.json").write_text("{}")
  with pytest.raises(ValueError, match=r"is no tokenizer\.json"):
    Tokenizer.from_file(tmp_path)


def test_goes_to_another_process():
  made = words()
  copy = pickle.loads(pickle.dumps(made))
  assert copy.encode("a <s> dog") == made.encode("a <s> dog")
  assert copy.id("<image>") == made.id("<image>")


def test_the_drawn_tokenizer_that_ships_is_the_one_that_is_built():
  assert tokenizer.DRAWN.read_text() == make().to_str(pretty=True)


def test_drawn_tokenizer_holds_every_word_and_gives_text_back():
  made = tokenizer.drawn()
  for text in ("flag côte d'ivoire", "keycap *", "food and drink", "dovak"):
    assert made.decode(made.encode(text)) == text
  unknown = made.id("<unk>")
  prompt = "Question: what is it called? Answer: Output:"
  assert unknown not in made.encode(prompt)
  assert made.encode("xylophonist") == [unknown]
