"""Fields of a record, taken by their kind; a wrong one is a BadSample."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from mmjax.data.document import BadSample
from mmjax.data.sources import Record


def field(record: Mapping[str, Any], name: str, kind: type) -> Any:
  """A field of a record.

  Raises:
    BadSample: when it is missing or of another type.
  """
  if name not in record:
    raise BadSample(
      f"{record.get('__key__', 'record')} has no {name!r}, only "
      f"{[k for k in record if not k.startswith('__')]}."
    )
  value = record[name]
  if not isinstance(value, kind):
    raise BadSample(
      f"{record.get('__key__', 'record')}: {name!r} is a "
      f"{type(value).__name__}, expected {kind.__name__}."
    )
  return value


def text_of(value: Any, name: str) -> str:
  """A string, or the UTF-8 bytes of one."""
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError as error:
      raise BadSample(f"{name} is no UTF-8 text: {error}") from None
  if not isinstance(value, str):
    raise BadSample(f"{name} is a {type(value).__name__}, expected text.")
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise BadSample(f"{name} has half a character: {error}") from None
  return value


def embedded(record: Record) -> Record:
  """The JSON of a tar record, or the record itself."""
  if not isinstance(record.get("json"), bytes):
    return record
  name = record.get("__key__", "record")
  try:
    inner = json.loads(record["json"])
  except (ValueError, RecursionError) as error:
    raise BadSample(f"{name}.json is no JSON: {error}") from None
  if not isinstance(inner, dict):
    raise BadSample(f"{name}.json is no object.")
  return {"__key__": name, **inner}


def base64_of(value: Any, name: str) -> bytes:
  """The bytes of a base64 text."""
  try:
    return base64.b64decode(text_of(value, name), validate=True)
  except (binascii.Error, ValueError) as error:
    raise BadSample(f"{name} is no base64: {error}") from None
