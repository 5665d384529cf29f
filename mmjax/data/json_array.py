"""Where the elements of a JSON array are, in one pass that holds none.

  [{"id": 1}, {"id": 2}]   ->   1..10, 11..22

Bytes in strings are told from structure by the quotes before them, and quotes
that are escaped by the backslashes before those: whole pieces at a time, so
that a gigabyte takes seconds. Whether an element is sound JSON is found when
it is read; what is checked here is that the array is whole.
"""

import dataclasses

import numpy as np

from mmjax.data.reader import Reader

# Fits into the cache of a core, and bounds what a hostile file makes of it.
PIECE = 2**20
# What may stand before the array: a mark and blanks.
HEAD = 2**16
BOM = b"\xef\xbb\xbf"
BLANK = b" \t\n\r"
QUOTE, ESCAPE, COMMA = b'"\\,'
# 1 for the bytes that matter, so that most are never looked at.
_MATTERS = bytes(c in b'"\\,[]{}' for c in range(256))
_DEPTH = np.array([(c in b"[{") - (c in b"]}") for c in range(256)], np.int8)


@dataclasses.dataclass
class _State:
  """What of the pieces so far the next one depends on.

  Attributes:
    escaped: whether the next byte is.
    inside: whether it is in a string.
    depth: brackets that are open.
    end: one past the bracket that closes the array, or -1.
  """

  escaped: bool = False
  inside: bool = False
  depth: int = 0
  end: int = -1


def elements(reader: Reader) -> np.ndarray:
  """Start and end of every element, int64 [elements 2].

  Raises:
    ValueError: for a file that is no array, or not one whole array.
  """
  begin = _begin(reader)
  state, marks = _State(), [np.array([begin])]
  for at in range(begin, reader.size, PIECE):
    piece = reader.read(at, min(PIECE, reader.size - at))
    marks.append(at + _marks(piece, state, at))
    if state.end >= 0:
      break
  found = np.concatenate(marks).astype(np.int64)
  if state.end < 0:
    raise ValueError(
      f"{reader.path} ends inside its array: {len(found) - 1} elements are "
      f"whole, the rest from byte {found[-1] + 1} on is not. It is cut off, "
      "or a quote or a bracket is missing there; fetch it again."
    )
  _check_end(reader, state.end)
  if len(found) == 2 and _is_blank(reader, *found + (1, 0)):
    return np.zeros((0, 2), np.int64)
  return np.stack([found[:-1] + 1, found[1:]], axis=1)


def _begin(reader: Reader) -> int:
  """Place of the bracket that opens the array."""
  first = reader.read(0, min(HEAD, reader.size))
  text = first.removeprefix(BOM)
  rest = text.lstrip(BLANK)
  if not rest.startswith(b"["):
    advice = (
      "It is one object, or a line is an object: that is source 'jsonl'."
      if rest.startswith(b"{")
      else "Is it the right file, in UTF-8?"
    )
    raise ValueError(
      f"{reader.path} begins with {rest[:20]!r}, expected the [ of a JSON "
      f"array. {advice}"
    )
  return len(first) - len(rest)


def _marks(piece: bytes, state: _State, start: int) -> np.ndarray:
  """Commas of the array itself and its last bracket, by their place.

  Args:
    piece: of the file.
    state: of the pieces before; becomes that of this one.
    start: place of the piece in the file.
  """
  matters = np.frombuffer(piece.translate(_MATTERS), bool)
  at = np.flatnonzero(matters)
  kind = np.frombuffer(piece, np.uint8)[at]
  if state.escaped and len(at) and at[0] == 0:
    at, kind = at[1:], kind[1:]
  state.escaped, at, kind = _unescaped(at, kind, len(piece))
  quote = kind == QUOTE
  inside = (np.cumsum(quote) - quote + state.inside) % 2 > 0
  state.inside = bool((quote.sum() + state.inside) % 2)
  structure = ~(inside | quote)
  at, kind = at[structure], kind[structure]
  depth = state.depth + np.cumsum(_DEPTH[kind], dtype=np.int64)
  closed = np.flatnonzero(depth <= 0)
  if len(closed):
    state.end = start + int(at[closed[0]]) + 1
    at, kind, depth = (x[: closed[0] + 1] for x in (at, kind, depth))
  state.depth = int(depth[-1]) if len(depth) else state.depth
  return at[((kind == COMMA) & (depth == 1)) | (depth <= 0)]


def _unescaped(
  at: np.ndarray, kind: np.ndarray, size: int
) -> tuple[bool, np.ndarray, np.ndarray]:
  r"""What is left without backslashes and what they escape.

    \\\"   the run of three is odd: the quote is escaped
    \\"    the run of two is even: the quote ends a string

  Returns:
    whether the byte after the piece is escaped, and places and kinds.
  """
  escapes = np.flatnonzero(kind == ESCAPE)
  if not len(escapes):
    return False, at, kind
  first = np.concatenate([[True], np.diff(at[escapes]) != 1])
  begins = np.flatnonzero(first)
  lengths = np.diff(np.concatenate([begins, [len(escapes)]]))
  last = escapes[begins + lengths - 1][lengths % 2 > 0]
  escaped = bool(len(last)) and at[last[-1]] == size - 1
  keep = kind != ESCAPE
  last = last[last + 1 < len(at)]
  keep[last[at[last + 1] == at[last] + 1] + 1] = False
  return bool(escaped), at[keep], kind[keep]


def _is_blank(reader: Reader, start: int, stop: int) -> bool:
  return all(
    not reader.read(at, min(PIECE, stop - at)).strip(BLANK)
    for at in range(start, stop, PIECE)
  )


def _check_end(reader: Reader, end: int) -> None:
  if reader.read(end - 1, 1) != b"]":
    raise ValueError(
      f"{reader.path} closes its array at byte {end - 1} with another bracket "
      "than ]. It is damaged; fetch it again."
    )
  if not _is_blank(reader, end, reader.size):
    raise ValueError(
      f"{reader.path} goes on behind the array that ends at byte {end}. It is "
      "damaged, or several files were joined: give them one by one."
    )
