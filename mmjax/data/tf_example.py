"""Reads tf.train.Example without TensorFlow.

The wire format of protocol buffers, for the one message that is needed:

  Example.features(1) -> Features.feature(1) -> {key(1), value(2)}
  value -> bytes_list(1) | float_list(2) | int64_list(3), each of value(1)
"""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmjax.data.document import BadSample


def parse(data: bytes, name: str = "record") -> dict[str, Any]:
  """Features by name: bytes, a float or an int, or a list of them.

  Raises:
    BadSample: for bytes that are no such message.
  """
  record = {}
  try:
    for field, features in _fields(data):
      for inner, entry in _fields(features) if field == 1 else ():
        if inner == 1:
          parts = dict(_fields(entry))
          key = _bytes(parts[1]).decode()
          record[key] = _values(parts.get(2, b""))
  except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
    raise BadSample(f"{name} is no tf.train.Example: {error!r}") from None
  if not record:
    raise BadSample(f"{name} is no tf.train.Example: it has no feature.")
  return record


def _values(data: bytes) -> Any:
  values: list[Any] = []
  for kind, content in _fields(data):
    for _, value in _fields(content):
      if kind == 1:
        values.append(_bytes(value))
      elif kind == 2:  # packed, or one a field
        values += np.frombuffer(_bytes(value), "<f4").tolist()
      elif isinstance(value, int):
        values.append(_signed(value))
      else:
        values += [_signed(v) for v in _varints(value)]
  return values[0] if len(values) == 1 else values


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
  """Numbers of the fields of a message, with int or bytes."""
  at = 0
  while at < len(data):
    tag, at = _varint(data, at)
    field, wire = tag >> 3, tag & 7
    if wire == 0:
      value, at = _varint(data, at)
    elif wire in (1, 2, 5):
      size = {1: 8, 5: 4}.get(wire)
      if size is None:
        size, at = _varint(data, at)
      if at + size > len(data):
        raise ValueError(f"{size} bytes expected, {len(data) - at} left")
      value, at = data[at : at + size], at + size
    else:
      raise ValueError(f"unknown wire type {wire}")
    yield field, value


def _varints(data: bytes) -> Iterator[int]:
  at = 0
  while at < len(data):
    value, at = _varint(data, at)
    yield value


def _varint(data: bytes, at: int) -> tuple[int, int]:
  value = shift = 0
  while True:
    byte = data[at]
    value |= (byte & 0x7F) << shift
    at, shift = at + 1, shift + 7
    if byte < 0x80:
      return value, at
    if shift > 63:
      raise ValueError("a number of more than ten bytes")


def _bytes(value: Any) -> bytes:
  # `bytes(n)` of a hostile number would be n zeros.
  if not isinstance(value, bytes):
    raise ValueError(f"bytes expected, not {type(value).__name__}")
  return value


def _signed(value: int) -> int:
  value &= 2**64 - 1
  return value - 2**64 if value >= 2**63 else value
