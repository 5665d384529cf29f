import json
import pickle

import jax
import numpy as np
import pytest

from mmjax.data import build
from mmjax.data.batching import Slots, occupancy, stack
from mmjax.data.document import BadSample, Document, Filtered, Media, Text
from mmjax.data.encoder import Encoder
from mmjax.data.filled import Fill, Filled, Measured, Mixed
from mmjax.data.image import Square
from mmjax.data.lengths import measure
from mmjax.data.readers import Pictures
from mmjax.data.stream import Stream
from mmjax.text import tokenizer
from mmjax.text.prompts import Flamingo
from tests.text.words import words

READERS = {"image": Pictures((Square(2),))}
# Of a row.
SLOTS = {"image": Slots(4, shape=(2, 2, 3))}


class Texts:
  """Documents of some words; the picture's colour is the number."""

  def __init__(self, count, bad=(), filtered=(), first=0):
    self.count, self.bad, self.filtered = count, bad, set(filtered)
    self.first = first

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    if index in self.bad:
      raise BadSample(f"number {index} is broken")
    if index in self.filtered:
      raise Filtered(f"number {index}")
    words = " ".join(["a"] * (1 + index * 7 % 11))
    picture = np.full((2, 2, 3), self.first + index, np.uint8)
    media = (Media("image", picture),) if index % 4 else ()
    return Document((*media, Text(words, target=True)), str(index))


class Chancy(Flamingo):
  """Now and then says more."""

  def write(self, document, rng=None):
    if rng is not None and rng.random() < 0.1:
      more = Text(" a a a", target=True)
      document = Document((*document.segments, more), document.id)
    return super().write(document, rng)


def measured(documents, name="", make=Flamingo, **order):
  prompt = make(words(), length=20, media=1, image_as_text=False)
  stream = Stream(documents, Encoder(prompt, READERS), name=name, **order)
  return Measured(stream, measure(documents, prompt))


def filled(count=50, window=20, repeat=True, make=Flamingo, **documents):
  texts = Texts(count, **documents)
  stream = measured(texts, make=make, seed=1, repeat=repeat)
  fill = Fill(40, 4, window)
  return Filled(
    stream,
    count,
    fill,
    SLOTS,
    seed=1,
    repeat=repeat,
  )


def numbers(row):
  names = str(row["skipped"]["records"]).split("\n")
  return [int(name.rpartition(":")[2]) for name in names]


def rows_of(rows, epoch):
  before = sum(len(rows.epoch(e)) for e in range(epoch))
  return range(before, before + len(rows.epoch(epoch)))


@pytest.mark.parametrize("window", [1, 7, 20, 1000])
def test_every_epoch_has_every_record_once(window):
  rows = filled(window=window)
  for epoch in range(3):
    found = [rows[r] for r in rows_of(rows, epoch)]
    assert sorted(n for row in found for n in numbers(row)) == list(range(50))
    assert sum(int(row["skipped"]["samples"]) for row in found) == 50


def test_rows_hold_their_documents():
  rows = filled()
  for r in range(8):
    row = rows[r]
    expected = [Texts(50)[i] for i in numbers(row)]
    assert row["segments"].max() == len(expected)
    image = row["media"]["image"]
    seen = image["values"][image["mask"].any(1)][:, 0, 0, 0, 0]
    shown = [n for n in numbers(row) if n % 4]
    assert seen.tolist() == shown
    assert row["tokens"].shape == (40,) and image["mask"].shape == (4, 1)


def test_most_places_are_taken():
  rows = filled(count=200, window=200)
  found = stack([rows[r] for r in rows_of(rows, 0)])
  assert occupancy(found) > 0.95


def test_epochs_differ_and_their_rows_are_shuffled():
  rows = filled()
  assert rows.epoch(0) != rows.epoch(1)
  firsts = [min(row) for row in rows.epoch(0)]
  assert firsts != sorted(firsts)
  texts = measured(Texts(50), shuffle=False)
  plain = Filled(texts, 50, Fill(40, 4, 20), SLOTS, shuffle=False)
  windows = [max(row) // 20 for row in plain.epoch(0)]
  assert windows == sorted(windows)


def test_rows_are_a_pure_function_of_their_number():
  rows = filled(bad=(3,))
  again = pickle.loads(pickle.dumps(rows))
  for r in (60, 3, 17, 3, 0, 61):
    a, b = rows[r], again[r]
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_finite_stream_ends():
  rows = filled(repeat=False)
  found = [rows[r] for r in range(len(rows))]
  assert sorted(n for row in found for n in numbers(row)) == list(range(50))
  with pytest.raises(IndexError):
    rows[len(rows)]
  assert rows.blank()["skipped"]["samples"] == 0


def test_bad_samples_are_in_rows_and_counted():
  rows = filled(bad=(3, 14), repeat=False)
  found = [rows[r]["skipped"] for r in range(len(rows))]
  assert sum(int(note["bad"]) for note in found) == 2
  assert sum(int(note["samples"]) for note in found) == 50
  told = "\n".join(str(note["why"]) for note in found)
  assert "number 3 is broken" in told and "number 14 is broken" in told


def test_filtered_records_give_way_to_those_of_the_unfilled_stream():
  gone = set(range(0, 50, 3))
  rows = filled(filtered=gone, repeat=False)
  found = [rows[r] for r in range(len(rows))]
  assert sum(int(row["skipped"]["filtered"]) for row in found) >= len(gone)
  assert not any(int(row["skipped"]["bad"]) for row in found)
  plain = measured(Texts(50, filtered=gone), seed=1)
  expected = [numbers(plain[p])[0] for p in range(50)]
  assert sorted(n for row in found for n in numbers(row)) == sorted(expected)


def test_wordings_by_chance_never_overflow():
  rows, seen, longer = filled(120, 120, make=Chancy), 0, 0
  plain = measured(Texts(120), make=Chancy, seed=1)._stream
  for epoch in range(3):
    for r in rows_of(rows, epoch):
      row = rows[r]
      assert not row["skipped"]["bad"]
      seen += int((row["segments"] > 0).sum())
      longer += sum(
        int((plain[p]["segments"] > 0).sum()) for p in rows.samples(r)
      )
  # Some of those that are longer than was measured lose what chance adds.
  assert seen < longer


def test_a_document_that_has_grown_is_a_bad_sample():
  class Growing(Texts):
    grown = False

    def __getitem__(self, index):
      found = super().__getitem__(index)
      more = Text(" a a a", target=True)
      segments = (*found.segments, more) if self.grown else found.segments
      return Document(segments, found.id)

  documents = Growing(20)
  stream = measured(documents)
  documents.grown = True
  skipped = stream[0]["skipped"]
  assert skipped["bad"] == 1 and "have changed since" in str(skipped["why"])


def test_mixed_streams_are_filled_from_all_parts():
  parts = [measured(Texts(30), "a", seed=1), measured(Texts(20), "b", seed=1)]
  rows = Filled(Mixed(parts, [3, 1]), 50, Fill(40, 4, 25), SLOTS)
  rows._slots = SLOTS
  names = "\n".join(
    str(rows[r]["skipped"]["records"]) for r in range(len(rows.epoch(0)))
  ).split("\n")
  assert len(names) == 50
  assert sum(name.startswith("a:") for name in names) in (37, 38)


@pytest.mark.parametrize(
  "fields",
  [dict(length=1), dict(media=-1), dict(window=0)],
)
def test_rows_hold_something(fields):
  with pytest.raises(ValueError, match="fill has the length"):
    Fill(**{"length": 8, "media": 1} | fields)


@pytest.fixture
def config(tmp_path):
  """Chats of a file, of all lengths."""
  path = tmp_path / "chats.json"
  rng = np.random.default_rng(0)
  names = ["grinning face", "rocket", "red apple", "cat", "house"]
  turns = [
    [
      {"from": "human", "value": "Output:"},
      {"from": "gpt", "value": " ".join(rng.choice(names, rng.integers(1, 9)))},
    ]
    for _ in range(60)
  ]
  path.write_text(json.dumps([{"conversations": t} for t in turns]))

  def make(**changes):
    entry = {
      "source": {"name": "json", "paths": (str(path),)},
      "format": {"name": "conversations"},
      "prompt": {"name": "flamingo", "length": 24, "media": 0},
      "fill": {
        **dict(length=48, media=0, window=30),
        "cache": str(tmp_path / "cache"),
      },
      "batch": 4,
    } | changes
    return {"seed": 2, "datasets": {"d": entry}}

  return make


def take(config, count, host=(0, 1), start=0):
  with build.batches(config, tokenizer.drawn(), host) as iterator:
    iterator.set_state({"step": start})
    return [next(iterator)["d"] for _ in range(count)]


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_resume_and_hosts_change_nothing(config, tmp_path, caplog):
  whole = take(config(), 12)
  assert occupancy(stack(whole[:4])) > 0.85
  assert len(list((tmp_path / "cache").iterdir())) == 1
  for start in (0, 1, 5, 11):
    equal(take(config(), 1, start=start)[0], whole[start])
  halves = [take(config(), 12, (i, 2)) for i in range(2)]
  for first, second, batch in zip(*halves, whole):
    equal(
      jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second), batch
    )


@pytest.mark.heavy
def test_workers_change_nothing(config):
  whole = take(config(), 6)
  equal(take(config() | {"workers": 2}, 6), whole)


def test_a_plan_needs_no_data(config):
  batch = take(config(), 1)[0]
  planned = config(source={"name": "json", "paths": ("/nowhere",)})
  (abstract,) = build.abstract_batches(planned)
  shapes = jax.tree.map(lambda x: (x.shape, x.dtype), batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract["d"]) == shapes


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"pack": 2}, "pack is 2 and fill is given"),
    ({"fill": {"length": 12, "media": 0}}, "24 tokens and 0 media by its"),
    ({"fill": {"lenght": 12, "media": 0}}, "Did you mean 'length'"),
    ({"fill": {"length": 48}}, "needs 'media'"),
    (
      {"source": {"name": "drawn", "tasks": {"caption": {}}}, "format": None},
      "'d' has no end",
    ),
  ],
)
def test_mistakes_are_named(config, changes, message):
  with pytest.raises(ValueError, match=message):
    take(config(**changes), 1)
  if "source" not in changes:
    with pytest.raises(ValueError, match=message):
      build.abstract_batches(config(**changes))


def test_a_mix_is_filled(config):
  entry = config()["datasets"]["d"]
  part = {k: entry.pop(k) for k in ("source", "format")}
  drawn = {"name": "drawn", "tasks": {"caption": {}}, "size": 20}
  mix = {"chat": part | {"share": 3}, "drawn": {"source": drawn, "share": 1}}
  entry["prompt"] |= {"media": 1, "image_as_text": False}
  entry["fill"] |= {"media": 2}
  entry |= {"mix": mix, "keys": True, "values": False}
  batch = take({"datasets": {"d": entry}}, 3)
  assert any(b["media"]["image"]["mask"].any() for b in batch)
  assert occupancy(stack(batch)) > 0.8
