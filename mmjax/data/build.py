"""From `config.data` to the iterator.

  data = dict(
    seed=0, update="accumulate", max_bad_fraction=0.01, workers=0,
    datasets=dict(
      pairs=dict(
        source=dict(name="tar", paths=["pairs-*.tar"]),
        format=dict(name="pairs"),
        prompt=dict(name="flamingo", length=64, media=1, p_space=0.5),
        transforms=[dict(name="flip"), dict(name="pad_to_square", size=320)],
        batch=512, weight=0.2)))

A source that gives Documents by itself ("drawn", the tasks) has no format.
In place of `source`, `format` and `filter`, `mix` has several of them by name,
each with its `share` of the samples.

Rows hold several documents with `pack=4`, four in the order of the samples, or
with `fill=dict(length=4096, media=6)`, as many as fit (see `filled.py`).
"""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from mmjax.config import build, call, lookup
from mmjax.data import mixtures, rows
from mmjax.data.batching import empty
from mmjax.data.chat_tasks import CHAT_TASKS
from mmjax.data.drawn_chat import DrawnChat
from mmjax.data.encoder import Encoder
from mmjax.data.episodes import Drawn
from mmjax.data.filters import FILTERS
from mmjax.data.formats import FORMATS, Documents
from mmjax.data.item_pairs import ItemPairs
from mmjax.data.items import Items
from mmjax.data.pipeline import Batches, Dataset
from mmjax.data.readers import READERS, Reader
from mmjax.data.sources import SOURCES, Source
from mmjax.data.stream import Stream
from mmjax.data.tasks import TASKS
from mmjax.text.prompts import PROMPTS
from mmjax.text.tokenizer import Tokenizer

# Sources of documents that are drawn by a seed.
DRAWN = {
  "drawn": Drawn,
  "drawn_chat": DrawnChat,
  "item_pairs": ItemPairs,
  "items": Items,
}


def documents(
  source: Mapping[str, Any],
  format: Mapping[str, Any] | None = None,
  filter: Mapping[str, Any] | None = None,
  seed: int = 0,
) -> Source:
  """The documents that a source and a format name.

  Args:
    source: of SOURCES, or one that gives documents by itself.
    format: of FORMATS.
    filter: of FILTERS; what it leaves out gives way to other documents.
    seed: for a source that draws its documents and names no seed of its own.
  """
  found = _documents(source, format, seed)
  if filter is None:
    return found
  return Documents(found, build(FILTERS, filter))


def _documents(
  source: Mapping[str, Any], format: Mapping[str, Any] | None, seed: int
) -> Source:
  given = {**TASKS, **CHAT_TASKS, **DRAWN}
  if source.get("name") in given:
    if format is not None:
      raise ValueError(
        f"Source {source['name']!r} gives documents; it takes no format."
      )
    return build(given, _seeded(source, seed))
  records = build({**SOURCES, **given}, source)
  if format is None:
    raise ValueError(
      f"Source {source['name']!r} gives records; name a format, one of "
      f"{', '.join(FORMATS)}."
    )
  return Documents(records, build(FORMATS, format))


def _seeded(source: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
  """A source that draws its documents, with a seed."""
  return {"seed": seed, **source} if source.get("name") in DRAWN else source


def encoder(
  tokenizer: Tokenizer | None,
  prompt: Mapping[str, Any],
  *,
  media: Mapping[str, Mapping[str, Any]] | None = None,
  transforms: tuple[Mapping[str, Any], ...] = (),
  frames: int = 1,
  fps: float | None = 1.0,
  keys: bool = False,
  values: bool = True,
) -> Encoder:
  """What turns documents into examples.

  Args:
    tokenizer: of the system; None where only room is asked for.
    prompt: of PROMPTS.
    media: kind of medium to what reads it, of READERS. None is pictures, as
      the other arguments say.
    transforms: of TRANSFORMS, the last of a fixed size.
    frames: of a medium at most.
    fps: of videos; None spreads `frames` over all of a clip.
    keys: see `Slots`.
    values: see `Slots`.
  """
  readers = _readers(media, transforms, frames, fps, keys, values)
  return Encoder(_prompt(prompt, tokenizer, readers), readers)


def _prompt(
  prompt: Mapping[str, Any],
  tokenizer: Tokenizer | None,
  readers: Mapping[str, Reader],
) -> Any:
  """Of PROMPTS; without a tokenizer it can say what room it takes, no more.

  One that numbers frames is told how many the readers bring.
  """
  units = {}
  made = lookup(PROMPTS, prompt.get("name"), "prompt")
  if "units" in inspect.signature(made).parameters:
    units = {"units": {name: own.frames for name, own in readers.items()}}
  return build(PROMPTS, {**units, **prompt}, tokenizer=tokenizer)


def reading(entry: Mapping[str, Any]) -> dict[str, Any]:
  """What an entry of `config.datasets` says of its encoder."""
  names = inspect.signature(encoder).parameters.keys() - {"tokenizer"}
  return {key: entry[key] for key in names if key in entry}


def _readers(
  media: Mapping[str, Mapping[str, Any]] | None = None,
  transforms: tuple[Mapping[str, Any], ...] = (),
  frames: int = 1,
  fps: float | None = 1.0,
  keys: bool = False,
  values: bool = True,
) -> dict[str, Reader]:
  pictures = (transforms, frames, fps, keys, values)
  if media is None:
    return {"image": READERS["pictures"](*pictures)}
  if pictures != ((), 1, 1.0, False, True):
    raise ValueError(
      "`media` says how each kind is read; give transforms, frames, fps, keys "
      "and values there."
    )
  return {kind: build(READERS, entry) for kind, entry in media.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """An entry of `config.datasets`; what is not told here, see the top.

  Attributes:
    prompt: of PROMPTS.
    batch: rows of a step, over all hosts.
    source, format, filter, mix: of the documents.
    media, transforms, frames, fps, keys, values: see `encoder`.
    weight: of this dataset in the loss.
    pack, pack_length, pack_media, pack_overflow, fill: see `rows.Room`.
    shuffle: whether each epoch has an order of its own.
    repeat: whether there is more than one epoch.
  """

  prompt: Mapping
  batch: int
  source: Mapping | None = None
  format: Mapping | None = None
  filter: Mapping | None = None
  mix: Mapping[str, Mapping] | None = None
  media: Mapping[str, Mapping] | None = None
  transforms: tuple[Mapping, ...] = ()
  frames: int = 1
  fps: float | None = 1.0
  keys: bool = False
  values: bool = True
  weight: float = 1.0
  pack: int = 1
  pack_length: int | None = None
  pack_media: int | Mapping[str, int] | None = None
  pack_overflow: str = "error"
  fill: Mapping | None = None
  shuffle: bool = True
  repeat: bool = True

  def encoder(self, tokenizer: Tokenizer | None) -> Encoder:
    """What turns its documents into examples."""
    return encoder(tokenizer, **reading(vars(self)))

  def room(self) -> rows.Room:
    """What its rows are to hold."""
    names = (field.name for field in dataclasses.fields(rows.Room))
    return rows.Room(**{name: getattr(self, name) for name in names})


def _entry(config: Mapping[str, Any], name: str) -> Entry:
  make = functools.partial(Entry)
  make.__name__ = f"Dataset {name!r}"
  return call(make, config)


def dataset(
  config: Mapping[str, Any],
  tokenizer: Tokenizer,
  seed: int,
  name: str,
  processes: int = 0,
) -> Dataset:
  """One entry of `config.datasets`.

  Args:
    config: the entry, as `Entry` says.
    tokenizer: of the system.
    seed: of the data.
    name: of the dataset.
    processes: that measure documents, where `fill` needs their lengths.
  """
  entry = _entry(config, name)
  if entry.pack < 1:
    raise ValueError(
      f"Dataset {name!r}: pack is {entry.pack}; 1 packs nothing."
    )
  made, room = entry.encoder(tokenizer), entry.room()
  order = dict(seed=seed, shuffle=entry.shuffle, repeat=entry.repeat)
  stream = rows.stream(
    room,
    _parts(name, made, entry, order),
    made,
    dict(
      prompt=entry.prompt, media=entry.media, tokenizer=tokenizer.fingerprint
    ),
    processes,
    order | dict(name=name),
  )
  sizes = room.sizes(made.prompt.length, made.slots)
  return Dataset(stream, entry.batch, entry.weight, empty(*sizes))


def abstract_batches(
  config: Mapping[str, Any] | ConfigDict,
) -> list[dict[str, Any]]:
  """Shapes of the batches of a step, or of each step of a round.

  No file is opened and no tokenizer read, so that a plan needs no data.

  Args:
    config: of `batches`.

  Returns:
    dataset to the jax.ShapeDtypeStructs of its batch over all hosts; one dict
    for `update="accumulate"`, one for every dataset for "round_robin".
  """
  config = plain(config)
  names = list(config["datasets"])
  update = config.get("update", "accumulate")
  rounds = 1 if update == "accumulate" else len(names)
  made = {n: abstract_batch(entry) for n, entry in config["datasets"].items()}
  return [
    {name: made[name] for name in mixtures.schedule(step, names, update)}
    for step in range(rounds)
  ]


def abstract_batch(entry: Mapping[str, Any]) -> dict[str, Any]:
  """Shapes of the batch of one entry of `config.datasets`, of plain dicts."""
  given = call(Entry, entry)
  made = given.encoder(None)
  sizes = given.room().sizes(made.prompt.length, made.slots)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((given.batch, *x.shape), x.dtype),
    empty(*sizes),
  )


def _parts(
  name: str,
  made: Encoder,
  entry: Entry,
  order: Mapping[str, Any],
) -> list[rows.Part]:
  if (entry.source is None) == (entry.mix is None):
    raise ValueError(f"Dataset {name!r} needs either 'source' or 'mix'.")

  def one(source, share, format=None, filter=None, label=name) -> rows.Part:
    found = documents(source, format, filter, order["seed"])
    source = _seeded(source, order["seed"])
    named = dict(source=source, format=format, filter=filter)
    stream = Stream(found, made, name=label, **order)
    return rows.Part(stream, found, label, named, share)

  if entry.mix is None:
    return [one(entry.source, 1, entry.format, entry.filter)]

  def shared(
    source: Mapping,
    share: float | int,
    format: Mapping | None = None,
    filter: Mapping | None = None,
    label: str = "",
  ) -> rows.Part:
    return one(source, share, format, filter, label)

  return [
    call(shared, part, label=f"{name}/{key}") for key, part in entry.mix.items()
  ]


def batches(
  config: Mapping[str, Any] | ConfigDict,
  tokenizer: Tokenizer,
  host: tuple[int, int] = (0, 1),
) -> Batches:
  """The iterator of `config.data`.

  Args:
    config: as above; a ConfigDict or plain dicts.
    tokenizer: of the system.
    host: index of this host, and how many there are.

  Raises:
    ValueError: for a key that nothing takes, with the nearest that is.
  """
  config = plain(config)

  def make(
    datasets: Mapping,
    seed: int = 0,
    update: str = "accumulate",
    max_bad_fraction: float = 0.01,
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 2,
  ) -> Batches:
    made = {
      name: dataset(entry, tokenizer, seed, name, workers)
      for name, entry in datasets.items()
    }
    return Batches(
      made,
      update=update,
      max_bad_fraction=max_bad_fraction,
      host=host,
      workers=workers,
      threads=threads,
      prefetch=prefetch,
    )

  make.__name__ = "data"
  return call(make, config)


def plain(config: Any) -> Any:
  """A ConfigDict, with all that is in it, as dicts and tuples."""
  if hasattr(config, "to_dict"):
    config = config.to_dict()
  if isinstance(config, Mapping):
    return {key: plain(value) for key, value in config.items()}
  if isinstance(config, list | tuple):
    return tuple(plain(value) for value in config)
  return config
