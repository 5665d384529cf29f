import collections
import hashlib
import json

import numpy as np
import pytest

from mmjax.data import drawn


def test_every_concept_has_every_style():
  concepts = drawn.concepts()
  assert len(concepts) > 1800
  assert len({c.id for c in concepts}) == len(concepts)
  assert len({c.name for c in concepts}) == len(concepts)
  for style in drawn.STYLES:
    for concept in concepts[::97]:
      picture = drawn.image(concept, style)
      assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
      assert picture.std() > 1


def test_split_is_by_concept_and_covers_all_groups():
  train, held = drawn.concepts("train"), drawn.concepts("held_out")
  assert not {c.id for c in train} & {c.id for c in held}
  assert len(train) + len(held) == len(drawn.concepts())
  assert 0.13 < len(held) / len(drawn.concepts()) < 0.17
  for field in ("category", "subcategory"):
    count = collections.Counter(getattr(c, field) for c in drawn.concepts())
    large = {name for name, n in count.items() if n >= 4}
    assert large <= {getattr(c, field) for c in train}
    assert large <= {getattr(c, field) for c in held}


def test_variants_of_one_thing_are_on_one_side():
  by_base = collections.defaultdict(set)
  for concept in drawn.concepts():
    base = concept.id.replace("-200d-2640", "").replace("-200d-2642", "")
    by_base[base.replace("-fe0f", "")].add(concept.split)
  assert max(map(len, by_base.values())) == 1


def test_no_held_out_picture_is_in_training():
  def digests(split):
    return {
      hashlib.sha256(drawn.image(c, style).tobytes()).digest()
      for c in drawn.concepts(split)
      for style in drawn.STYLES
    }

  assert not digests("train") & digests("held_out")


def test_what_ships_is_small():
  size = sum(f.stat().st_size for f in drawn.ASSETS.rglob("*") if f.is_file())
  assert size < 18e6


def test_words_are_made_up():
  words = drawn.words()
  assert len(set(words)) == len(words) == 40
  assert all(w.isascii() and w.isalpha() and w.islower() for w in words)
  lines = (drawn.ASSETS / "concepts.jsonl").read_text().splitlines()
  names = {w for line in lines for w in json.loads(line)["name"].split()}
  assert not names & set(words)


def test_keys_are_rows_of_the_table():
  table = drawn.table()
  assert len(table) == drawn.blank_key() + 1
  assert (table[-1] == 255).all()
  concept = drawn.concepts("held_out")[3]
  for style in drawn.STYLES:
    row = table[drawn.key(concept, style)]
    np.testing.assert_array_equal(row, drawn.image(concept, style))


def test_pictures_cannot_be_written_to():
  picture = drawn.image(drawn.concepts()[0], "noto")
  with pytest.raises(ValueError):
    picture[0, 0] = 0


def test_unknown_names_are_errors():
  with pytest.raises(ValueError, match="'test'"):
    drawn.concepts("test")
  with pytest.raises(ValueError, match="'apple'"):
    drawn.encoded(drawn.concepts()[0], "apple")
