"""A call of golden component xinstructblip: its prompts, batch and layout."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from mmjax.convert.families import x_instructblip as names
from mmjax.data.document import Document, Media, Text
from mmjax.text.prompts.cued import Cued, Format
from tests.golden.file import Golden
from tests.golden.options import NEEDED

KINDS = names.MODALITIES
CALL = dict(
  mode=NEEDED,
  modalities=NEEDED,
  batch=NEEDED,
  questions=NEEDED,
  features=None,
  cues=True,
  prefix="",
  postfix="",
  clean=False,
  enumerate_inputs=False,
  add_space=False,
  remove_start=False,
  joint=False,
)
START, SPACE = 2, 3


def as_read(c: dict) -> dict:
  """A call's options as the original's function for its mode takes them.

  Training reads no option for how media are numbered, parted or joint, and
  ranking none for joint ones, which have no `remove_start` either. `clean`
  is what goes before `remove_start`.
  """
  unread = dict(
    train=("enumerate_inputs", "add_space", "remove_start", "joint"),
    rank=("joint",),
    generate=(),
  )
  c = c | dict.fromkeys(unread[c["mode"]], False)
  if c["clean"]:
    starts = "every_cue" if c["mode"] == "train" else "first"
  elif c["remove_start"] and not c["joint"]:
    starts = "first_and_question"
  else:
    starts = "every"
  return c | dict(starts=starts)


class Pieces:
  """A tokenizer whose texts are names of a file's ids."""

  bos, eos = None, START

  def __init__(self, ids, pad):
    self._ids, self.pad = ids, pad

  def id(self, token):
    assert token == "</s>"
    return START

  def encode(self, text):
    if text == " ":
      return [SPACE]
    if text.strip().startswith("("):
      text = f"enumeration_{text.strip()[1]}"
    return [int(i) for name in text.split("|") for i in self._ids[name]]


class Reader(Pieces):
  """The same for what the Q-Former reads, without its first and last."""

  bos, eos = 1, 2

  def encode(self, text):
    return [int(i) for i in self._ids[text]][1:-1]


@dataclasses.dataclass
class Case:
  """One call of the file: what it was made with, and its batch.

  Attributes:
    golden, name: the file and the call.
    c: its options.
    kinds: ours, in the order of the call.
  """

  golden: Golden
  name: str
  c: dict

  @property
  def kinds(self):
    return [KINDS[m] for m in self.c["modalities"]]

  @functools.cached_property
  def features(self):
    """[B units 1 P E] of every kind."""
    inputs, found = self.golden.inputs[""], {}
    for modality in self.c["modalities"]:
      x = inputs[f"features_{self.c['features'] or modality}"]
      x = x[:, None] if modality == "pc" else x
      x = x[:, None] if x.ndim == 3 else x
      found[KINDS[modality]] = jnp.asarray(x[: self.c["batch"]])[:, :, None]
    return found

  @functools.cached_property
  def prompt(self) -> Cued:
    c, inputs = as_read(self.c), self.golden.inputs
    constructor = self.golden.config["constructor"]
    cues = {ours: f"cue_{theirs}" for theirs, ours in KINDS.items()}
    pieces = Pieces(inputs["ids"], constructor["llama"]["pad_token_id"])
    if "qformer_ids" in inputs:
      pieces.reader = Reader(inputs["qformer_ids"], 0)
    return Cued(
      pieces,
      Format(
        cues=cues if c["cues"] else {},
        prefix="prefix" if c["prefix"] else "",
        postfix="|postfix" if c["postfix"] else "",
        starts=c["starts"],
        numbered=c["enumerate_inputs"],
        space=" " if c["add_space"] else "",
        joint=("video", "audio") if c["joint"] else (),
      ),
      media=dict.fromkeys(self.kinds, 1),
      units={k: x.shape[1] for k, x in self.features.items()},
      media_tokens=constructor["queries"],
      reader_length=128 if "qformer_ids" in inputs else 0,
    )

  def document(self, question: int, answer: int | None = None) -> Document:
    media = [Media(kind, None) for kind in self.kinds]
    text = [Text(f"question{question}")]
    if answer is not None:
      text.append(Text(f"answer{answer}", target=True))
    return Document((*media, *text), id=self.name)

  def batch(self, rows):
    """Of (which example, written) pairs, padded on the right."""
    length = max(len(w.tokens) for _, w in rows)

    def padded(name, of):
      out = np.zeros((len(rows), length), of.dtype)
      for i, (_, w) in enumerate(rows):
        out[i, : len(w.tokens)] = name(w)
      return jnp.asarray(out)

    ints = np.zeros(0, np.int32)
    batch = {
      "tokens": padded(lambda w: w.tokens, ints),
      "weights": padded(lambda w: w.weights, np.zeros(0, np.float32)),
      "segments": padded(lambda w: np.ones(len(w.tokens)), ints),
      "positions": padded(lambda w: np.arange(len(w.tokens)), ints),
      "media": {},
    }
    example = np.array([i for i, _ in rows])
    for kind, x in self.features.items():
      batch["media"][kind] = {
        "features": x[example],
        "mask": jnp.ones((len(rows), x.shape[1], 1), bool),
        "index": padded(lambda w: w.of_kind(kind, self.kinds)[1], ints),
      }
      if self.prompt.reader_length:
        text = jnp.asarray(_texts(rows, kind, self.kinds))
        batch["media"][kind]["text"] = text
    return batch


def _texts(rows, kind, kinds):
  found = [[w.texts[m] for m in w.of_kind(kind, kinds)[0]] for _, w in rows]
  length = max(len(t) for row in found for t in row)
  return np.array(
    [[np.pad(t, (0, length - len(t))) for t in row] for row in found]
  )


def layout(case: Case, batch, x, expected):
  """Ours where the original has tokens; where it has padding, as it has it."""
  index = sum(np.asarray(m["index"]) for m in batch["media"].values())
  ids = np.where(index > 0, -1, batch["tokens"])
  given = expected["attention_mask"]
  pad = np.full_like(given, case.prompt.tokenizer.pad)
  found = {
    "layout": placed(batch, ids, expected, pad),
    "attention_mask": placed(batch, np.ones_like(ids), expected, 0 * given),
    "inputs_embeds": placed(batch, x, expected, expected["inputs_embeds"]),
    "position_ids": placed(
      batch, batch["positions"], expected, np.ones_like(given)
    ),
  }
  return {k: v for k, v in found.items() if k in expected}


def placed(batch, ours, expected, padding):
  """Our tokens at the original's places, which pads between them as well."""
  real = np.asarray(batch["segments"]) > 0
  there = expected["attention_mask"] > 0
  if not np.array_equal(real.sum(axis=1), there.sum(axis=1)):
    raise ValueError(
      f"Ours has {real.sum(axis=1)} tokens, theirs {there.sum(axis=1)}."
    )
  found = np.array(padding)
  found[there] = np.asarray(ours)[real]
  return found
