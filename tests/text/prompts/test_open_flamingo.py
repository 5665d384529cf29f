import numpy as np
import pytest

from mmjax.text.prompts import OpenFlamingo
from mmjax.text.tokenizer import Tokenizer
from tests.text.prompts.test_flamingo import document, table
from tests.text.words import names, words


def prompt(**options):
  tokenizer = words(added=("<|endofchunk|>", "<image>"))
  return OpenFlamingo(tokenizer, **options)


DOC = document("a dog", None, "sits", None, "runs a")


@pytest.mark.parametrize("learn_eos", [True, False])
def test_mmc4(learn_eos):
  made = prompt(learn_eos=learn_eos)
  assert table(made, made.write(DOC)) == [
    ("a", 0, 0),
    ("dog", 0, 0),
    ("<image>", 0, 1),
    ("sits", 1, 1),
    ("<|endofchunk|>", 1, 1),
    ("<image>", 0, 2),
    ("runs", 1, 2),
    ("a", 1, 2),
    ("<|endofchunk|>", 1, 2),
    ("</s>", int(learn_eos), 2),
  ]


def test_laion():
  made = prompt(mask_leading=False)
  assert table(made, made.write(document(None, "a cat"))) == [
    ("<image>", 0, 1),
    ("a", 1, 1),
    ("cat", 1, 1),
    ("<|endofchunk|>", 1, 1),
    ("</s>", 1, 1),
  ]


def labels(tokens, tokenizer, learn_eos):
  """The original's masking, from its description: a walk over the ids."""
  image, end = tokenizer.id("<image>"), tokenizer.id("<|endofchunk|>")
  inside, learned = False, []
  for token in tokens:
    keep = inside or (learn_eos and token == tokenizer.eos)
    learned.append(int(keep and token != image))
    if token == image:
      inside = True
    elif token == end:
      inside = False
  return learned


@pytest.mark.parametrize("learn_eos", [True, False])
@pytest.mark.parametrize(
  "parts",
  [
    ("a dog", None, "sits", None, "runs"),
    (None, "a", None, None, "dog"),
    ("a", None, "dog cat sits"),
    (None, "a", None, "dog", None, "cat"),
  ],
)
def test_labels_follow_the_walk_over_ids(parts, learn_eos):
  made = prompt(learn_eos=learn_eos)
  written = made.write(document(*parts))
  expected = labels(written.tokens, made.tokenizer, learn_eos)
  # Two images in a row: the original learns the end token between them, of
  # a chunk that has no text; here nothing is there to be learned.
  marks = written.tokens == made.tokenizer.id("<image>")
  empty = np.r_[False, marks[:-1]] & (
    written.tokens == made.tokenizer.id("<|endofchunk|>")
  )
  expected = np.where(empty, 0, expected)
  np.testing.assert_array_equal(written.weights, expected)


def test_index_is_the_running_count_of_marks():
  made = prompt()
  written = made.write(DOC)
  marks = written.tokens == made.tokenizer.id("<image>")
  np.testing.assert_array_equal(written.index, np.cumsum(marks))


def test_surplus_images_are_seen_by_none():
  written = prompt(media=1).write(DOC)
  assert written.media == (0,)
  assert written.index.tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]


def test_truncates_on_the_right():
  written = prompt(length=6).write(DOC)
  assert len(written.tokens) == 6 and written.media == (0, 1)


def test_spaces_beside_special_tokens_go():
  class Spy(Tokenizer):
    def __init__(self):
      pass

    bos = eos = None

    def id(self, token):
      return {"<image>": 1, "<|endofchunk|>": 2}[token]

    def encode(self, text, continues=False):
      return list(text.encode())

  made = OpenFlamingo(Spy())
  written = made.write(document("a ", None, " b ", None, " c"))
  assert written.tokens.tolist() == [97, 1, 98, 2, 1, 99, 2]


def test_query_with_a_newline_after_each_example():
  made = prompt()
  shot = (None, ("Output:",), (" cat", False, True), ("\n",))
  query = document(*shot, None, ("Output:",))
  assert names(made.tokenizer, made.query(query).tokens) == [
    *("<image>", "Output:", "cat", "<|endofchunk|>", "\n"),
    *("<image>", "Output:"),
  ]


@pytest.mark.parametrize("overflow", ["error", "left"])
def test_a_query_of_nothing(overflow):
  with pytest.raises(ValueError, match="'doc' is empty"):
    prompt().query(document(("",)), overflow)
  assert len(prompt(bos=True).query(document(("",)), overflow).tokens) == 1


def test_first_token():
  made = prompt(bos=True)
  assert made.write(DOC).tokens[0] == made.tokenizer.bos
  without = OpenFlamingo(
    words(added=("<|endofchunk|>", "<image>"), specials=False), bos=True
  )
  with pytest.raises(ValueError, match="names no first token"):
    without.write(DOC)
