"""What a row holds: a document, `pack` of them, or as many as `fill` it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.config import call
from mmjax.data import lengths, mixtures
from mmjax.data.batching import Slots
from mmjax.data.encoder import Encoder
from mmjax.data.filled import Fill, Filled, Measured, Mixed
from mmjax.data.sources import Source
from mmjax.data.stream import Packed, Stream


@dataclasses.dataclass(frozen=True)
class Part:
  """One of the sources of a dataset.

  Attributes:
    stream: of its examples.
    documents: that the stream reads.
    name: of the dataset, and of the part in its mixture.
    named: what the config says of the documents.
    share: of the samples.
  """

  stream: Stream
  documents: Source
  name: str
  named: Mapping[str, Any]
  share: float | int


@dataclasses.dataclass(frozen=True)
class Room:
  """What rows are to hold.

  Attributes:
    pack: documents of a row.
    pack_length: tokens of such a row; default `pack` times a document's.
    pack_media: media of such a row, or of each kind; likewise.
    pack_overflow: see `batching.pack`.
    fill: fields of `Fill`, in place of all these.
  """

  pack: int = 1
  pack_length: int | None = None
  pack_media: int | Mapping[str, int] | None = None
  pack_overflow: str = "error"
  fill: Mapping[str, Any] | None = None

  def __post_init__(self):
    if self.fill is not None and self.pack > 1:
      raise ValueError(
        f"pack is {self.pack} and fill is given; one of them says what is in "
        "a row."
      )

  def sizes(
    self, length: int, slots: Mapping[str, Slots]
  ) -> tuple[int, dict[str, Slots]]:
    """Length and slots of a row, by those of a document."""
    if self.fill is not None:
      fill = call(Fill, self.fill)
      fill.check(length, {name: own.count for name, own in slots.items()})
      return fill.length, _counted(slots, dict.fromkeys(slots, fill.media))
    media = self.pack_media
    if self.pack == 1:
      return length, dict(slots)
    if not media:
      media = {name: own.count * self.pack for name, own in slots.items()}
    elif isinstance(media, int):
      media = dict.fromkeys(slots, media)
    if media.keys() != slots.keys():
      raise ValueError(
        f"pack_media has {sorted(media)}, read are {sorted(slots)}."
      )
    return self.pack_length or length * self.pack, _counted(slots, media)


def _counted(
  slots: Mapping[str, Slots], counts: Mapping[str, int]
) -> dict[str, Slots]:
  return {
    name: dataclasses.replace(own, count=counts[name])
    for name, own in slots.items()
  }


def stream(
  room: Room,
  parts: Sequence[Part],
  made: Encoder,
  wording: Mapping[str, Any],
  processes: int,
  order: Mapping[str, Any],
) -> Source:
  """The rows of a dataset.

  Args:
    room: what they are to hold.
    parts: one source, or several that are mixed.
    made: makes their examples.
    wording: what lengths depend on besides the documents.
    processes: that measure documents where their lengths are not known.
    order: arguments of `Filled`.
  """
  length, slots = room.sizes(made.prompt.length, made.slots)
  if room.fill is None:
    mixed = _mixed(mixtures.mix, parts, [part.stream for part in parts])
    if room.pack == 1:
      return mixed
    return Packed(mixed, room.pack, length, slots, room.pack_overflow)
  for part in parts:
    if getattr(part.documents, "endless", False):
      raise ValueError(
        f"{part.name!r} has no end, so its documents cannot be measured to "
        "fill rows. Give its source a `size`, or use `pack`."
      )
  fill = call(Fill, room.fill)
  sized = [_measured(part, made, fill, wording, processes) for part in parts]
  epoch = sum(len(part.documents) for part in parts)
  return Filled(_mixed(Mixed, parts, sized), epoch, fill, slots, **order)


def _mixed(mix: Callable, parts: Sequence[Part], streams: Sequence) -> Any:
  """The streams of all parts as one."""
  if len(streams) == 1:
    return streams[0]
  return mix(streams, [part.share for part in parts])


def _measured(
  part: Part,
  made: Encoder,
  fill: Fill,
  wording: Mapping[str, Any],
  processes: int,
) -> Measured:
  """A part whose documents' lengths are known, or are measured now."""
  prompt = made.prompt
  media = sum(own.count for own in made.slots.values())
  found = lengths.kept(
    Path(fill.cache) if fill.cache else lengths.cache_folder(),
    lengths.fingerprint({**part.named, **wording}),
    lambda: lengths.measure(part.documents, prompt, processes, part.name),
    lambda x: x.sound(len(part.documents), prompt.length, media),
  )
  return Measured(part.stream, found)
