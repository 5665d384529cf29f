import contextlib
import json
import pickle
import random

import pytest

from mmjax.data import json_array, sources
from mmjax.data.document import BadSample
from mmjax.data.sources import Json
from tests.data.mutations import damaged

NASTY = (
  *('"', "\\", '\\"', "\\\\", '\\\\"', "[", "]", "{", "}", ",", "],[", '}, {"'),
  *("", " ", "\n", "ä", "猫", "\ud83d\ude00", "\u2028", "\\u005d", "x" * 50),
)


def put(tmp_path, text, name="a.json"):
  path = tmp_path / name
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return str(path)


def records(source):
  found = []
  for i in range(len(source)):
    record = dict(source[i])
    del record["__key__"]
    found.append(record)
  return found


def value(rng, depth=0):
  kind = rng.randrange(6 if depth < 3 else 4)
  if kind < 2:
    return "".join(rng.choices(NASTY, k=rng.randrange(4)))
  if kind < 4:
    return rng.choice([None, True, -1.5e3, 10**20])
  if kind == 4:
    return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
  return {
    "".join(rng.choices(NASTY, k=2)): value(rng, depth + 1)
    for _ in range(rng.randrange(4))
  }


@pytest.mark.parametrize("seed", range(30))
def test_elements_are_those_of_a_parser(tmp_path, monkeypatch, seed):
  rng = random.Random(seed)
  monkeypatch.setattr(json_array, "PIECE", rng.choice((1, 2, 3, 7, 64)))
  expected = [
    {"x": value(rng), "y": value(rng)} for _ in range(rng.randrange(1, 9))
  ]
  text = json.dumps(
    expected,
    indent=rng.choice((None, 0, 2, "\t")),
    ensure_ascii=rng.random() < 0.5,
  ).encode("utf-8", "surrogatepass")
  bom = rng.choice((b"", json_array.BOM))
  path = put(tmp_path, bom + rng.choice((b"", b" \r\n")) + text + b"\n")
  assert records(Json(path)) == json.loads(text)


def test_several_files_and_other_processes(tmp_path):
  put(tmp_path, '[{"x": 1}, {"x": 2}]')
  put(tmp_path, '[{"x": 3}]', "b.json")
  source = Json(str(tmp_path / "*.json"))
  assert [r["x"] for r in records(source)] == [1, 2, 3]
  assert source[1]["__key__"].endswith("a.json@10")
  assert records(pickle.loads(pickle.dumps(source))) == records(source)
  with pytest.raises(IndexError):
    source[3]


@pytest.mark.parametrize("text", ["[]", " [ \n ] "])
def test_an_empty_array_has_no_records(tmp_path, text):
  assert len(Json(put(tmp_path, text))) == 0


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", r"begins with b'', expected the \["),
    ('{"a": 1}\n{"a": 2}', "source 'jsonl'"),
    ('"[1]"', "right file"),
    ("[1]".encode("utf-16"), "right file"),
    ('[{"a": 1}, {"a": 2}', "1 elements are whole, the rest from byte 10"),
    ('[{"a": 1}, {"a": "2}]', "from byte 10 on is not"),
    ('[{"a": 1}, {"a": [2}]', "ends inside its array"),
    ('[{"a": 1}, {"a": "2\\"}]', "ends inside its array"),
    ('[{"a": 1}}', "closes its array at byte 9 with another"),
    ('[{"a": 1}], {"b": 2}]', "goes on behind the array that ends at byte 10"),
    ('[{"a": 1}][{"b": 2}]', "give them one by one"),
  ],
)
def test_what_is_no_whole_array_is_named(tmp_path, text, message):
  with pytest.raises(ValueError, match=message) as error:
    Json(put(tmp_path, text))
  assert "a.json" in str(error.value)


@pytest.mark.parametrize(
  "element",
  ["1", "", "[}", '"x"', "nan", "[" * 10**5 + "]" * 10**5, '{"a": 1} x', "{a}"],
)
def test_an_element_that_is_no_object_is_bad_alone(tmp_path, element):
  source = Json(put(tmp_path, '[{"x": 1},' + element + ',{"x": 2}]'))
  assert len(source) == 3 and source[0]["x"] == 1 and source[2]["x"] == 2
  with pytest.raises(BadSample, match=r"a\.json@10"):
    source[1]


def test_an_element_has_a_cap(tmp_path, monkeypatch):
  path = put(tmp_path, '[{"x": 1}, {"x": "' + "y" * 100 + '"}]')
  monkeypatch.setattr(sources, "MAX_RECORD", 50)
  source = Json(path)
  assert source[0]["x"] == 1
  with pytest.raises(BadSample, match="the cap is 50"):
    source[1]


def test_damaged_files_end_in_an_error_or_in_bad_samples(tmp_path):
  sound = [{"id": str(i), "x": NASTY[i]} for i in range(len(NASTY))]
  data = json.dumps(sound).encode()
  for i, changed in enumerate(damaged(data, 300)):
    path = put(tmp_path, changed, f"{i}.json")
    try:
      source = Json(path)
    except ValueError:
      continue
    for k in range(len(source)):
      with contextlib.suppress(BadSample):
        assert isinstance(source[k], dict)
