"""Documents to examples: what to write, and how to bring media in."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.config import changed, lookup
from mmjax.data.batching import Clip, Example, Slots, pad, stack, trim
from mmjax.data.document import BadSample, Document, Media, reading
from mmjax.data.readers import Reader
from mmjax.text.prompts.base import Written


@dataclasses.dataclass(frozen=True)
class Encoder:
  """Documents to examples: what to write, and how to bring media in.

  Attributes:
    prompt: has `write` and `query`; see `mmjax.text.prompts`.
    readers: of media, by the name of their entry in an example's `media`.
  """

  prompt: Any
  readers: Mapping[str, Reader]

  def __post_init__(self):
    if self.prompt.length < 2:
      raise ValueError(
        f"The prompt's length is {self.prompt.length}; expected 2 or more, as "
        "the first token is never learned."
      )
    _ = self.slots

  @functools.cached_property
  def slots(self) -> dict[str, Slots]:
    """Room for the media of a document."""
    return slots(self.prompt, self.readers)

  def changed(
    self,
    prompt: Mapping[str, Any],
    media: Mapping[str, Mapping[str, Any]],
  ) -> "Encoder":
    """The same with other settings, as for more frames of a video.

    Args:
      prompt: what changes of it.
      media: kind of medium to what changes of its reader.

    Raises:
      ValueError: for a kind without a reader, and for a field that is not
        there.
    """
    readers = dict(self.readers)
    for kind, fields in media.items():
      readers[kind] = changed(
        lookup(self.readers, kind, "kind of medium"), fields
      )
    if hasattr(self.prompt, "units"):
      units = {kind: reader.frames for kind, reader in readers.items()}
      prompt = {"units": units, **prompt}
    return Encoder(changed(self.prompt, prompt), readers)

  def __call__(
    self,
    document: Document,
    seed: Sequence[int] = (),
    room: tuple[int, int] | None = None,
  ) -> Example:
    """A document for training, or for scoring; random only with a seed.

    Args:
      document: what to write.
      seed: of everything random.
      room: tokens and media at most. A wording that chance made longer gives
        way to the one without chance.

    Raises:
      BadSample: where no example can be made of it, or none so short.
    """
    rng = np.random.default_rng(seed) if seed else None
    try:
      written = self.prompt.write(document, rng)
      if not _fits(written, room):
        written = self.prompt.write(document)
    except ValueError as error:
      raise BadSample(f"{document.id}: {error}") from error
    if not _fits(written, room):
      raise BadSample(
        f"{document.id} has {len(written.tokens)} tokens and "
        f"{len(written.media)} media, where {room[0]} and {room[1]} were "
        "measured: its files have changed since. Remove what is kept in "
        "`fill.cache` (~/.cache/mmjax/lengths), and start again."
      )
    return self._example(document, written, seed)

  def query(self, document: Document, overflow: str = "error") -> Example:
    """A document that ends where the answer is to begin."""
    written = self.prompt.query(document, overflow)
    return self._example(document, written, ())

  def follow(self, document: Document, ended: bool) -> Example:
    """The next question of a conversation that a state has read.

    Args:
      document: that question alone.
      ended: see the prompt's `follow`.
    """
    written = self.prompt.follow(document, ended)
    return self._example(document, written, ())

  def alone(self, example: Example) -> dict[str, Any]:
    """A batch of one example, without the ends that it does not use."""
    return trim(stack([example]))

  def check(self, media: Media, name: str) -> None:
    """Reads a medium of the document `name` as an example does.

    Raises:
      BadSample: where no example could be made with it.
    """
    self._clip(media, name, ())

  def _example(
    self, document: Document, written: Written, seed: Sequence[int]
  ) -> Example:
    media, clips = document.media, {}
    for place in written.media:
      if place not in clips:
        clips[place] = self._clip(media[place], document.id, seed)
    chosen = [clips[place] for place in written.media]
    if written.frames:
      chosen = [c.frame(t) for c, t in zip(chosen, written.frames)]
    if written.texts:
      pairs = zip(chosen, written.texts)
      chosen = [dataclasses.replace(c, text=ids) for c, ids in pairs]
    names = [self._entry(m) for m in media]
    return pad(written, chosen, names, self.prompt.length, self.slots)

  def _clip(self, media: Media, document: str, seed: Sequence[int]) -> Clip:
    """A medium, or only its key where nothing else is asked."""
    reader = self.readers[self._entry(media)]
    name = f"{document}:{media.name}" if media.name else document
    key = _key(media, document) if reader.keys else -1
    if not reader.values:
      return Clip(None, key=key)
    with reading(name):
      clip = reader.read(media, name, seed)
    return dataclasses.replace(clip, key=key)

  def _entry(self, media: Media) -> str:
    """The reader of its kind by name, or else the first that reads it."""
    if media.kind in self.readers:
      return media.kind
    for name, reader in self.readers.items():
      if media.kind in reader.kinds:
        return name
    raise BadSample(
      f"{media.name or 'A medium'} is {media.kind!r}; read here are "
      f"{sorted({k for r in self.readers.values() for k in r.kinds})}."
    )


def slots(prompt: Any, readers: Mapping[str, Reader]) -> dict[str, Slots]:
  """Room for the media of a document.

  Args:
    prompt: with `media`, how many there may be, or of each kind how many;
      perhaps with `units`, when every frame is a medium of its own.
    readers: by entry.

  Raises:
    ValueError: for a prompt that counts on other media than are read.
  """
  counts = prompt.media
  if isinstance(counts, int):
    counts = dict.fromkeys(readers, counts)
  if counts.keys() != readers.keys():
    raise ValueError(
      f"The prompt has room for {sorted(counts)}, read are {sorted(readers)}. "
      "Give the prompt's `media` and the dataset's `media` the same kinds."
    )
  found = {}
  for name, reader in readers.items():
    own, count = reader.slots, counts[name]
    if hasattr(prompt, "units"):
      units = prompt.units.get(name, 1)
      if units != reader.frames:
        raise ValueError(
          f"The prompt has places for {units} frames of {name!r}, its reader "
          f"brings {reader.frames}. Set the prompt's units.{name}."
        )
      own, count = dataclasses.replace(own, frames=1), count * units
    text = getattr(prompt, "text_length", 0)
    found[name] = dataclasses.replace(own, count=count, text=text)
  return found


def _fits(written: Written, room: tuple[int, int] | None) -> bool:
  size = len(written.tokens), len(written.media)
  return room is None or (size[0] <= room[0] and size[1] <= room[1])


def _key(media: Media, name: str) -> int:
  if "key" not in media.metadata:
    raise ValueError(
      f"{name}:{media.name} has no 'key' in its metadata, but the slots ask "
      "for keys. The white picture of the drawn set has `drawn.blank_key()`."
    )
  return int(media.metadata["key"])
