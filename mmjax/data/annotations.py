"""Annotation files, read part by part, each by its type."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Field:
  """A value of an annotation file, whose parts are taken by their type.

  What is missing or of another type is a ValueError that names the file.
  """

  def __init__(self, value: Any, path: str):
    self._value, self._path = value, path

  @property
  def content(self) -> Any:
    """All of it, as JSON's reader gives it."""
    return self._value

  def __contains__(self, key: str) -> bool:
    return isinstance(self._value, dict) and key in self._value

  def _get(self, key: str, kind: Any, default: dict) -> Any:
    if "default" in default and key not in self:
      return default["default"]
    value = self._value[key] if key in self else None
    if isinstance(value, bool) or not isinstance(value, kind):
      raise ValueError(
        f"{self._path}: {key!r} is {str(value)[:40]!r} in "
        f"{str(self._value)[:100]}; is it the right file?"
      )
    return value

  def text(self, key: str, **default: str) -> str:
    return self._get(key, str, default).strip()

  def texts(self, key: str) -> list[str]:
    """A list of strings; a file without the key has none (a test set)."""
    found = self._get(key, list, {"default": []})
    if not all(isinstance(x, str) for x in found):
      raise ValueError(f"{self._path}: {key!r} is {str(found)[:100]}.")
    return found

  def values(self, key: str) -> list[Any]:
    """A list of anything."""
    return self._get(key, list, {})

  def id(self, key: str, **default: Any) -> int | str | None:
    return self._get(key, int | str, default)

  def number(self, key: str) -> float:
    """A finite number."""
    return self._finite(key, [self._get(key, int | float, {})])[0]

  def numbers(self, key: str, count: int | None = None) -> list[float]:
    """A list of finite numbers, as many as `count` where it is given."""
    found = self._get(key, list, {})
    if len(found) != (len(found) if count is None else count):
      raise ValueError(f"{self._path}: {key!r} is {str(found)[:100]}.")
    return self._finite(key, found)

  def _finite(self, key: str, values: list[Any]) -> list[float]:
    # JSON's numbers have no bounds, and Python's reader takes NaN.
    if not all(type(x) in (int, float) and abs(x) < 1e9 for x in values):
      raise ValueError(f"{self._path}: {key!r} is {str(values)[:100]}.")
    return values

  def strings(self, key: str) -> dict[str, str]:
    """The entries of a dict that are texts."""
    found = self._get(key, dict, {})
    return {k: v for k, v in found.items() if isinstance(v, str)}

  def empty(self, key: str) -> bool:
    """Whether there is nothing, null or no letter."""
    return key not in self or self._value[key] in (None, "")

  def has_list(self, key: str) -> bool:
    return key in self and isinstance(self._value[key], list)

  def flag(self, key: str, choices: Mapping[str, Any]) -> Any:
    """What a text stands for, whatever its case."""
    text = self.text(key)
    if text.lower() not in choices:
      raise ValueError(
        f"{self._path}: {key!r} is {text[:40]!r}, expected one of "
        f"{list(choices)}; is it the right file?"
      )
    return choices[text.lower()]

  def items(self) -> list[tuple[str, "Field"]]:
    """The entries of the file itself, a dict."""
    if not isinstance(self._value, dict):
      raise ValueError(f"{self._path} is no dict; is it the right file?")
    return [(k, Field(value, self._path)) for k, value in self._value.items()]

  def rows(self, key: str | None = None, **default: list) -> list["Field"]:
    """The items of a list, or of the file itself."""
    found = self._value if key is None else self._get(key, list, default)
    if not isinstance(found, list):
      raise ValueError(f"{self._path} is no list; is it the right file?")
    return [Field(row, self._path) for row in found]


def load(path: str, lines: bool | None = None) -> Field:
  """A json, or the rows of a jsonl.

  Args:
    path: of the file.
    lines: whether each line is a row; by default where the name says so.

  Raises:
    ValueError: when it is not there or is no JSON.
  """
  place = ""
  try:
    # Some editors begin a file with a byte order mark.
    text = Path(path).read_text(encoding="utf-8-sig")
    if not (str(path).endswith(".jsonl") if lines is None else lines):
      return Field(json.loads(text), path)
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
      place = f", line {number}"
      if line.strip():
        rows.append(json.loads(line))
    return Field(rows, path)
  except (OSError, ValueError, RecursionError) as error:
    raise ValueError(
      f"Cannot read annotations {path}{place}: {error}"
    ) from None


def named(kind: str, path: str) -> str:
  """Ids differ between splits, so that none of one is taken for the other's."""
  return f"{kind}/{Path(path).stem}"
