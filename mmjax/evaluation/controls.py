"""What an evaluation takes away, to see whether the media mattered.

A score with its media means little alone: many answers can be guessed from the
question, or copied from the support examples. Each control changes a few-shot
document and leaves its text and its answer alone, so it holds for any system:

  document         <dog> a dog | <cat> a cat | <fox> Output:
  no_query         <dog> a dog | <cat> a cat | <   > Output:
  wrong_query      <dog> a dog | <cat> a cat | <owl> Output:
  blank_support    <   > a dog | <   > a cat | <fox> Output:
  text_only              a dog |       a cat |       Output:

The query's media are the last of a document: `metadata["query_media"]` of
them, or one.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mmjax.data.document import Document, Media

Change = Callable[[Document], Document]
Control = Callable[[Sequence[Document]], list[Document]]


def white(media: Media) -> Media:
  """A blank picture in place of a picture."""
  if media.kind != "image":
    raise ValueError(
      f"No blank is known for {media.kind}; give a function Media -> Media."
    )
  return Media("image", np.full((32, 32, 3), 255, np.uint8), "blank")


def no_query(
  document: Document, blank: Callable[[Media], Media] = white
) -> Document:
  """The query's media blank; their place stays, so the prompt reads alike."""
  first = _first_query(document)
  return _map_media(document, lambda i, m: blank(m) if i >= first else m)


def blank_support(
  document: Document, blank: Callable[[Media], Media] = white
) -> Document:
  """The media of the support examples blank."""
  first = _first_query(document)
  return _map_media(document, lambda i, m: blank(m) if i < first else m)


def text_only(document: Document) -> Document:
  """No media at all, for a model that has none."""
  return _map_media(document, lambda i, m: None)


def wrong_query(
  documents: Sequence[Document],
  seed: int = 0,
  label: Callable[[Document], object] | None = None,
) -> list[Document]:
  """Every query shows the media of another document's query.

  Args:
    documents: those of one evaluation; media move between them.
    seed: of the exchange.
    label: two documents with the same label do not exchange media, so that a
      wrong picture never has the right answer.
  """
  keys = [label(d) if label else i for i, d in enumerate(documents)]
  source = _derangement(keys, seed)
  return [
    _with_query(document, documents[source[i]])
    for i, document in enumerate(documents)
  ]


def each(change: Change) -> Control:
  """A change of one document as a change of all."""
  return lambda documents: [change(document) for document in documents]


def standard(
  seed: int = 0,
  blank: Callable[[Media], Media] = white,
  label: Callable[[Document], object] | None = None,
) -> dict[str, Control]:
  """The controls by name, "none" first."""
  return {
    "none": list,
    "no_query": each(lambda d: no_query(d, blank)),
    "wrong_query": lambda documents: wrong_query(documents, seed, label),
    "blank_support": each(lambda d: blank_support(d, blank)),
    "text_only": each(text_only),
  }


def _derangement(keys: Sequence[object], seed: int) -> np.ndarray:
  """For every place another one with another key.

  Places are grouped by key, and each takes from the one that is as many
  places further as the largest group is big: always another group.

    keys    a a b c      takes from    b c a a
  """
  order = np.random.default_rng(seed).permutation(len(keys))
  groups: dict[object, list[int]] = {}
  for i in order:
    groups.setdefault(keys[i], []).append(int(i))
  largest = max(map(len, groups.values()), default=0)
  if 2 * largest > len(keys) or len(keys) < 2:
    raise ValueError(
      f"{largest} of {len(keys)} queries have the same label; no exchange of "
      "media gives each a wrong one. Evaluate more queries, or fewer of that "
      "label."
    )
  ranked = [i for key in groups for i in groups[key]]
  source = np.empty(len(keys), int)
  source[ranked] = np.roll(ranked, -largest)
  return source


def _first_query(document: Document) -> int:
  return len(document.media) - document.metadata.get("query_media", 1)


def _with_query(document: Document, other: Document) -> Document:
  first, theirs = _first_query(document), other.media[_first_query(other) :]
  if len(theirs) != len(document.media) - first:
    raise ValueError(
      f"Queries {document.id!r} and {other.id!r} have "
      f"{len(document.media) - first} and {len(theirs)} media; they cannot be "
      "exchanged."
    )
  return _map_media(
    document, lambda i, m: theirs[i - first] if i >= first else m
  )


def _map_media(
  document: Document, change: Callable[[int, Media], Media | None]
) -> Document:
  segments, i = [], 0
  for segment in document.segments:
    if isinstance(segment, Media):
      segment = change(i, segment)
      i += 1
    if segment is not None:
      segments.append(segment)
  return dataclasses.replace(document, segments=tuple(segments))
