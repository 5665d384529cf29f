import numpy as np
import pytest

from mmjax.data.document import Document, Media, Text, join
from mmjax.text.prompts import Flamingo
from mmjax.text.tokenizer import Tokenizer
from tests.text.words import names, words


def document(*parts):
  """ "..." is text that is learned, ("...",) is not, None an image."""
  segments = [
    Media("image", b"")
    if part is None
    else Text(part, target=True)
    if isinstance(part, str)
    else Text(*part)
    for part in parts
  ]
  return Document(tuple(segments), "doc")


def table(prompt, written):
  return list(
    zip(
      names(prompt.tokenizer, written.tokens),
      written.weights.astype(int).tolist(),
      written.index.tolist(),
    )
  )


def flamingo(**options):
  return Flamingo(words(), image_as_text=False, **options)


def test_interleaved_document():
  prompt = flamingo()
  written = prompt.write(document("a dog", None, "sits", None, "runs"))
  assert table(prompt, written) == [
    ("<s>", 0, 0),
    ("a", 1, 0),
    ("dog", 1, 0),
    ("<EOC>", 1, 0),
    ("<image>", 0, 1),
    ("sits", 1, 1),
    ("<EOC>", 1, 1),
    ("<image>", 0, 2),
    ("runs", 1, 2),
    ("<EOC>", 1, 2),
    ("</s>", 1, 2),
  ]
  assert written.media == (0, 1)


def test_pair_begins_with_its_image():
  prompt = flamingo()
  written = prompt.write(document(None, "a cat"))
  assert table(prompt, written) == [
    ("<s>", 0, 0),
    ("<image>", 0, 1),
    ("a", 1, 1),
    ("cat", 1, 1),
    ("<EOC>", 1, 1),
    ("</s>", 1, 1),
  ]


def test_mark_as_plain_text_sees_its_image():
  prompt = Flamingo(words())
  written = prompt.write(document("a", None, "dog"))
  assert table(prompt, written) == [
    ("<s>", 0, 0),
    ("a", 1, 0),
    ("<EOC>", 1, 0),
    ("<", 0, 1),
    ("image", 0, 1),
    (">", 0, 1),
    ("dog", 1, 1),
    ("<EOC>", 1, 1),
    ("</s>", 1, 1),
  ]


def test_next_image_placement():
  prompt = flamingo(p_next=1.0)
  doc = document("a dog", None, "sits", None, "runs")
  written = prompt.write(doc, np.random.default_rng(0))
  assert written.index.tolist() == [1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0]
  assert prompt.write(doc).index.tolist()[0] == 0


def test_next_image_is_a_coin_a_document():
  prompt, doc = flamingo(p_next=0.5), document(None, "a")
  firsts = [
    int(prompt.write(doc, np.random.default_rng(i)).index[0])
    for i in range(200)
  ]
  assert 70 < sum(firsts) < 130


def test_only_what_is_marked_is_learned():
  prompt = flamingo()
  doc = document(None, ("Output:",), "a cat", None, ("Output:",), (" dog",))
  assert table(prompt, prompt.write(doc)) == [
    ("<s>", 0, 0),
    ("<image>", 0, 1),
    ("Output:", 0, 1),
    ("a", 1, 1),
    ("cat", 1, 1),
    ("<EOC>", 1, 1),
    ("<image>", 0, 2),
    ("Output:", 0, 2),
    ("dog", 0, 2),
    ("<EOC>", 0, 2),
    ("</s>", 0, 2),
  ]


def test_later_images_are_dropped_and_their_text_sees_none():
  prompt = flamingo(media=1)
  written = prompt.write(document(None, "a", None, "dog"))
  assert written.media == (0,)
  assert written.index.tolist() == [0, 1, 1, 1, 0, 0, 0, 0]


def test_window_is_random_and_renumbers_its_images():
  prompt = flamingo(length=6, media=2)
  doc = document("a", None, "dog", None, "cat", None, "sits", None, "runs")
  whole = flamingo().write(doc)
  starts = set()
  for seed in range(60):
    written = prompt.write(doc, np.random.default_rng(seed))
    assert len(written.tokens) == 6
    start = next(
      s
      for s in range(len(whole.tokens) - 5)
      if np.array_equal(whole.tokens[s : s + 6], written.tokens)
    )
    starts.add(start)
    marks = np.flatnonzero(written.tokens == prompt.tokenizer.id("<image>"))
    first = whole.index[start + marks[0]] - 1
    assert written.media == tuple(range(first, first + len(marks)))
    assert (written.index[: marks[0]] == 0).all()
    assert (written.index[marks] == np.arange(len(marks)) + 1).all()
  assert starts == set(range(len(whole.tokens) - 5))


def test_window_that_begins_inside_a_mark_has_not_that_image():
  prompt = Flamingo(words())
  sheet = prompt._sheet(document(None, "a", None, "dog"), False, True)
  written = sheet.written(2, 10, 5)
  assert written.media == (1,)
  assert written.index.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_truncate_and_error():
  doc = document("a dog sits a dog sits")
  cut = flamingo(length=4, overflow="truncate").write(doc)
  assert names(words(), cut.tokens) == ["<s>", "a", "dog", "sits"]
  with pytest.raises(ValueError, match="'doc' has 9 tokens, 4 fit"):
    flamingo(length=4, overflow="error").write(doc)
  with pytest.raises(ValueError, match="'cut'"):
    flamingo(overflow="cut")


def test_leading_space_of_pairs_is_a_coin():
  class Spy(Tokenizer):
    """Stands for a tokenizer to which a space is something."""

    def __init__(self):
      pass

    bos = eos = None

    def id(self, token):
      return 1

    def encode(self, text, continues=False):
      return list(text.encode())

  prompt = Flamingo(Spy(), p_space=0.5)
  spaces = [
    prompt.write(document(None, "a"), np.random.default_rng(i)).tokens[-2] == 97
    and ord(" ")
    in prompt.write(document(None, "a"), np.random.default_rng(i)).tokens
    for i in range(200)
  ]
  assert 70 < sum(spaces) < 130
  # Text before the first image is of no pair; a space that is there is enough.
  always, rng = Flamingo(Spy(), p_space=1.0), np.random.default_rng(0)
  written = always.write(document("lead", None, "a", None, " b"), rng)
  assert written.tokens.tolist().count(ord(" ")) == 2
  assert written.tokens[:4].tolist() == list(b"lead")
  assert ord(" ") not in prompt.write(document(None, "a")).tokens


def test_query_ends_where_the_answer_begins():
  prompt = flamingo()
  shot = document(None, ("Output:",), (" a cat",))
  asked = document(None, ("Output:",), "a dog")
  query = join([shot, asked]).query()
  assert table(prompt, prompt.query(query)) == [
    ("<s>", 0, 0),
    ("<image>", 0, 1),
    ("Output:", 0, 1),
    ("a", 0, 1),
    ("cat", 0, 1),
    ("<EOC>", 0, 1),
    ("<image>", 0, 2),
    ("Output:", 0, 2),
  ]


def test_text_only_examples_end_with_their_chunk():
  prompt = flamingo()
  doc = document(("Output: cat", False, True), None, ("Output:",))
  assert table(prompt, prompt.query(doc)) == [
    ("<s>", 0, 0),
    ("Output:", 0, 0),
    ("cat", 0, 0),
    ("<EOC>", 0, 0),
    ("<image>", 0, 1),
    ("Output:", 0, 1),
  ]


def test_query_begins_as_the_training_document():
  prompt = flamingo()
  doc = document(None, ("Output:",), (" cat",), None, ("Output:",), "a dog")
  whole, query = prompt.write(doc), prompt.query(doc.query())
  count = len(query.tokens)
  np.testing.assert_array_equal(query.tokens, whole.tokens[:count])
  np.testing.assert_array_equal(query.index, whole.index[:count])
  assert whole.weights[:count].sum() == 0 and whole.weights[count] == 1


def test_too_long_queries():
  doc = document(None, ("Output: a",), None, ("Output:",))
  with pytest.raises(ValueError, match="has 7 tokens and 2 media; 3 and 5 fit"):
    flamingo(length=3).query(doc)
  left = flamingo(length=3).query(doc, overflow="left")
  assert names(words(), left.tokens) == ["<EOC>", "<image>", "Output:"]
  assert left.media == (1,) and left.index.tolist() == [0, 1, 1]


def test_a_query_with_more_images_than_slots_keeps_the_last():
  doc = document(None, ("a",), None, ("dog",), None, ("Output:",))
  with pytest.raises(ValueError, match="3 media; 256 and 2 fit"):
    flamingo(media=2).query(doc)
  left = flamingo(media=2).query(doc, overflow="left")
  expected = ["<image>", "dog", "<EOC>", "<image>", "Output:"]
  assert names(words(), left.tokens) == expected
  assert left.media == (1, 2) and left.index.tolist() == [1, 1, 1, 2, 2]
  # Text alone is read where there is no slot at all.
  assert flamingo(media=0).query(doc).media == ()


def test_other_media_are_an_error():
  doc = Document((Media("audio", b""),), "doc")
  with pytest.raises(ValueError, match="'doc' has 'audio'"):
    flamingo().write(doc)


def test_more_text_than_any_document_has():
  with pytest.raises(ValueError, match="'doc' has 8388608 characters"):
    flamingo().write(document("a " * 2**22))


def test_cutting_text_elsewhere_changes_nothing():
  prompt = flamingo()
  one = prompt.write(document(None, "a dog sits"))
  two = prompt.write(document(None, "a d", "og si", "ts"))
  np.testing.assert_array_equal(one.tokens, two.tokens)
