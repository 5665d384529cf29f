import dataclasses
import logging

import numpy as np
import pytest

from mmjax.data import lengths
from mmjax.data.document import BadSample, Document, File, Filtered, Media, Text
from mmjax.data.lengths import Lengths, measure
from mmjax.text.prompts import Flamingo
from tests.text.words import words


class Texts:
  """Documents of 0, 1, 2, ... words, every third with a picture not there."""

  def __init__(self, count, bad=(), filtered=()):
    self.count, self.bad, self.filtered = count, bad, filtered

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    if index in self.bad:
      raise BadSample(f"number {index} is broken")
    if index in self.filtered:
      raise Filtered(f"number {index}")
    text = Text(" ".join(["a"] * index), target=True)
    media = Media("image", File("/nowhere/a.jpg"))
    return Document((media, text) if index % 3 == 0 else (text,), str(index))


def prompt(**options):
  return Flamingo(words(), length=64, media=1, image_as_text=False, **options)


def written(made, document, rng=None):
  found = made.write(document, rng)
  return len(found.tokens), len(found.media)


def test_lengths_are_those_of_the_prompt_without_reading_media():
  texts, made = Texts(30, bad=(4,), filtered=(5,)), prompt()
  found = measure(texts, made)
  for i in (1, 2, 3, 12, 29):
    expected = written(made, texts[i])
    assert (found.tokens[i], found.media[i]) == expected
  # What cannot be used: broken, left out, or refused by the prompt.
  assert found.tokens[[0, 4, 5]].tolist() == [1, 1, 1]
  assert np.flatnonzero(found.filtered).tolist() == [5]
  assert found.sound(30, 64, 1)


def test_a_wording_by_chance_counts_with_its_longest():
  texts, made = Texts(20), prompt(p_space=0.5)
  found = measure(texts, made)
  for i in range(1, 20):
    sizes = [
      written(made, texts[i], np.random.default_rng([i, k]))[0]
      for k in range(lengths.DRAWS)
    ]
    assert found.tokens[i] >= max(*sizes, written(made, texts[i])[0])


@pytest.mark.heavy
def test_processes_change_nothing(monkeypatch):
  monkeypatch.setattr(lengths, "_PART", 7)
  one, two = measure(Texts(30), prompt()), measure(Texts(30), prompt(), 2)
  for a, b in zip(dataclasses.astuple(one), dataclasses.astuple(two)):
    np.testing.assert_array_equal(a, b)


def some(count=3, tokens=5):
  return Lengths(
    np.full(count, tokens, np.int32),
    np.zeros(count, np.int32),
    np.zeros(count, bool),
  )


def never():
  raise AssertionError("measured again")


def test_what_is_kept_is_not_measured_again(tmp_path):
  def sound(found):
    return found.sound(3, 8, 1)

  folder = tmp_path / "new"
  lengths.kept(folder, "k", some, sound)
  again = lengths.kept(folder, "k", never, sound)
  assert again.tokens.tolist() == [5, 5, 5]
  assert [path.name for path in folder.iterdir()] == ["k.npz"]
  with pytest.raises(AssertionError, match="measured again"):
    lengths.kept(folder, "other", never, sound)


@pytest.mark.parametrize("content", [b"", b"no zip", None, "longer", "wider"])
def test_a_damaged_file_is_measured_again(tmp_path, caplog, content):
  path = tmp_path / "k.npz"
  if content == "longer":
    lengths.kept(tmp_path, "k", lambda: some(4), lambda x: True)
  elif content == "wider":
    lengths.kept(tmp_path, "k", lambda: some(3, 9), lambda x: True)
  elif content is None:
    lengths.kept(tmp_path, "k", some, lambda x: True)
    path.write_bytes(path.read_bytes()[:-40])
  else:
    path.write_bytes(content)
  with caplog.at_level(logging.WARNING):
    found = lengths.kept(tmp_path, "k", some, lambda x: x.sound(3, 8, 1))
  assert found.sound(3, 8, 1) and "measuring again" in caplog.text
  assert lengths.kept(tmp_path, "k", never, lambda x: True).sound(3, 8, 1)


def test_a_folder_that_cannot_be_written_is_told(tmp_path, caplog):
  (tmp_path / "file").write_text("")
  found = lengths.kept(tmp_path / "file", "k", some, lambda x: True)
  assert found.sound(3, 8, 1) and "not kept" in caplog.text


def test_the_fingerprint_follows_the_files_and_the_config(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text("{}")
  named = {
    "source": {"name": "jsonl", "paths": (str(tmp_path / "*.jsonl"),)},
    "prompt": {"length": 3},
    "format": None,
  }
  first = lengths.fingerprint(named)
  assert lengths.fingerprint(dict(reversed(named.items()))) == first
  assert lengths.fingerprint(named | {"prompt": {"length": 4}}) != first
  path.write_text("{} ")
  second = lengths.fingerprint(named)
  assert second != first
  (tmp_path / "b.jsonl").write_text("{}")
  assert lengths.fingerprint(named) not in (first, second)


def test_tokenizers_differ_by_their_fingerprint():
  assert words().fingerprint == words().fingerprint
  assert words().fingerprint != words(added=("<EOC>",)).fingerprint
  assert words().fingerprint != words(specials=False).fingerprint


def test_the_place_of_the_cache(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert lengths.cache_folder() == tmp_path / "mmjax" / "lengths"
