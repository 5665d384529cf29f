"""From a config to a constructor, and what a wrong one says."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

import pytest
from ml_collections import ConfigDict

from mmjax.config import build, call, changed, lookup, nearest, require


@dataclasses.dataclass(frozen=True)
class Square:
  size: int
  colour: str = "red"
  corners: tuple[int, ...] = ()


class Rest(TypedDict, total=False):
  weight: int


def circle(radius: int, *, given: int = 0, **rest: Unpack[Rest]):
  return radius, given, rest


TABLE = {"square": Square, "circle": circle}


def test_build():
  assert build(TABLE, dict(name="square", size=2)) == Square(2)
  assert build(TABLE, dict(name="circle", radius=1, weight=3), given=2) == (
    (1, 2, {"weight": 3})
  )


def test_a_config_dict_builds_too_and_lists_become_tuples():
  config = ConfigDict(dict(name="square", size=2, corners=[1, 2]))
  assert build(TABLE, config) == Square(2, corners=(1, 2))


@pytest.mark.parametrize(
  "config, message",
  [
    (
      dict(name="sqare", size=1),
      "Unknown entry 'sqare'. Did you mean 'square'",
    ),
    (dict(name="zzz"), "Known: circle, square"),
    (dict(size=1), "No 'name'"),
    (dict(name=["square"]), "Unknown entry ['square']"),
    (dict(name="square", sise=1), "takes no 'sise'. Did you mean 'size'"),
    (dict(name="square"), "needs 'size'"),
    (dict(name="circle", radius=1, wieght=1), "Did you mean 'weight'"),
    (dict(name="circle", radius=1, rest=1), "takes no 'rest'"),
  ],
)
def test_what_is_wrong_is_named(config, message):
  with pytest.raises(ValueError) as error:
    build(TABLE, config)
  assert message in str(error.value)


@pytest.mark.parametrize(
  "kind, good, bad",
  [
    (int, [1, -3], [True, 1.0, "1", None, [1]]),
    (float, [1, 0.5], [True, "1", None]),
    (int | None, [1, None], [0.5, "x"]),
    (str | Sequence[str], ["a", ["a"], ("a",), []], [1, ["a", 1], None]),
    (Sequence[int], [[1], ()], ["12", 12, [1.5]]),
    (tuple[int, ...], [(1, 2), [1]], [1, ("a",)]),
    (tuple[int, str], [(1, "a")], ["1a"]),
    (Mapping[str, Any], [{}, ConfigDict()], [[], "x"]),
    (bool, [True], [1, "true"]),
    (Any, [1, "a", None], []),
    (Square, [1], []),
  ],
)
def test_values_of_a_wrong_kind_are_named(kind, good, bad):
  def make(it: kind):
    return it

  for value in good:
    call(make, dict(it=value))
  for value in bad:
    with pytest.raises(ValueError, match="make: 'it' is .*, expected"):
      call(make, dict(it=value))


@pytest.mark.parametrize("config", [3, "square", [("name", "square")]])
def test_what_is_no_dict_is_named(config):
  with pytest.raises(ValueError, match="is no dict"):
    build(TABLE, config)
  with pytest.raises(ValueError, match="Square takes a dict"):
    call(Square, config)


def test_a_dataclass_is_changed_as_a_config_would_build_it():
  square = Square(2, "blue")
  assert changed(square, dict(corners=[1])) == Square(2, "blue", (1,))
  assert changed(square, {}) == square
  with pytest.raises(ValueError, match="no 'colur'. Did you mean 'colour'"):
    changed(square, dict(colur="red"))
  with pytest.raises(ValueError, match="'size' is 'two', expected int"):
    changed(square, dict(size="two"))


def test_modules_do_not_take_their_parent_from_a_config():
  import flax.linen as nn

  class Module(nn.Module):
    size: int = 0

  with pytest.raises(ValueError, match="takes no 'parent'"):
    call(Module, dict(parent=1))


def test_a_part_that_is_missing_is_named():
  require({"model": 1}, ["model"])
  with pytest.raises(ValueError, match="a.b has no 'model'. .*'modle'"):
    require({"modle": 1}, ["model"], "a.b")


def test_lookup_says_what_is_looked_up():
  with pytest.raises(ValueError, match="Unknown shape 'x'"):
    lookup(TABLE, "x", "shape")


def test_nearest():
  assert nearest("staps", ["steps", "size"]) == "Did you mean 'steps'?"
  assert nearest("q", ["b", "a"]) == "Known: a, b."
  assert nearest("q", []) == "Known: none."
