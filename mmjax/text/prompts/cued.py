"""X-InstructBLIP's sequence: cues and media, a question, an answer.

  image: <32 places> audio: <64 places> Is it loud? ▁yes </s>

Every piece (cue, prefix, question with postfix) is tokenized alone, and which
of them begin with the start token, </s> in LAVIS, is a part of the format;
the released models were trained with two. The answer goes on from the last
token of the question. BLIP-2 and InstructBLIP have images and no cues.

Facts from LAVIS' `blip2_vicuna_xinstruct.py`. Two slips of it are not here:
its training of a prefix put every medium in twice, and of joint media without
one the second video frame's cue had a start token like the first one's.
"""

import dataclasses
import string
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmjax.config import lookup
from mmjax.text.prompts.base import (
  Segments,
  TooLong,
  Written,
  check_learned,
  merged,
)
from mmjax.text.tokenizer import Tokenizer
from mmjax.typing import Int

KINDS = ("image", "video", "audio", "points")
# Which pieces begin with the start token, besides the first of all. A number
# of a medium is only ever the first. LAVIS trains with "every_cue" where its
# `clean_tokenization` asks with "first".
STARTS = {
  "every": ("cue", "question"),
  "every_cue": ("cue",),
  "first": (),
  "first_and_question": ("question",),
}


@dataclasses.dataclass(frozen=True)
class Format:
  """What stands around media and question, as data.

  Attributes:
    cues: kind of medium to the text before each; kinds without have none.
    prefix: text before all media.
    postfix: text behind the question, tokenized with it.
    starts: a name of STARTS.
    numbered: puts "(a) ", " (b) ", ... before the cues; where media are joint,
      before those of a time.
    space: text behind every medium that is not joint.
    joint: kinds of which the frames take turns in this order, each with its
      cue.
  """

  cues: Mapping[str, str] = dataclasses.field(default_factory=dict)
  prefix: str = ""
  postfix: str = ""
  starts: str = "every"
  numbered: bool = False
  space: str = ""
  joint: Sequence[str] = ()

  def __post_init__(self):
    lookup(STARTS, self.starts, "rule of the start token")
    for kind in (*self.cues, *self.joint):
      lookup(dict.fromkeys(KINDS), kind, "kind of medium")


_CUES = {
  "image": " image: ",
  "points": " 3d: ",
  "video": " video: ",
  "audio": " audio: ",
}
_7B = Format(
  {kind: cue.lstrip() for kind, cue in _CUES.items()},
  prefix="USER: ",
  postfix="\nASSISTANT:",
  starts="first",
)
FORMATS = {
  # As the paper's models were trained, and asked.
  "x_instructblip": Format(_CUES),
  "x_instructblip_asked": Format(_CUES, space=" "),
  # A second training of 7B models, and the demo of those that are released.
  "x_instructblip_7b": _7B,
  "x_instructblip_7b_asked": dataclasses.replace(_7B, space=" "),
  "x_instructblip_no_cue": Format(),
  "instructblip": Format(),
}


@dataclasses.dataclass(frozen=True)
class Cued:
  """Writes documents of media, one question and its answer.

  All texts of a document but its answer are the question, which stands behind
  all media, wherever they stand in the document.

  Attributes:
    tokenizer: of the language model.
    format: a name of FORMATS, or the fields of one.
    length: tokens of a row.
    media: kind to how many of it there is room for.
    units: kind to the frames (or segments of sound) of a medium; 1 without.
    media_tokens: places of a frame.
    start: token before the pieces that have one; "" is none.
    reader_length: tokens of the question, by the tokenizer's `reader`, that
      the connectors read at most, cut on the left; 0 where they read nothing.
    reader_prompt: what they read in place of the question; so does the
      `instruction` in a document's metadata.
    question_length: of the question in training at most, cut on the left; one
      that is asked stays whole, as in LAVIS.
    answer_length: of the answer at most, cut on the right.
    before_answer: text that an answer begins with; " " where a tokenizer puts
      no space before a text by itself.
    shuffled: media come in a random order in training.
    score_end: whether the end of an answer counts where answers are ranked by
      their likelihood; LAVIS ranks classes without.
  """

  tokenizer: Tokenizer
  format: str | Mapping | Format = "x_instructblip"
  length: int = 512
  media: Mapping[str, int] = dataclasses.field(
    default_factory=lambda: {"image": 1}
  )
  units: Mapping[str, int] = dataclasses.field(default_factory=dict)
  media_tokens: int = 32
  start: str = "</s>"
  reader_length: int = 0
  reader_prompt: str | None = None
  question_length: int = 128
  answer_length: int = 256
  before_answer: str = ""
  shuffled: bool = False
  score_end: bool = False

  def __post_init__(self):
    found = self.format
    if isinstance(found, str):
      found = lookup(FORMATS, found, "format of prompts")
    elif not isinstance(found, Format):
      found = Format(**found)
    object.__setattr__(self, "format", found)
    for kind in (*self.media, *self.units):
      lookup(dict.fromkeys(KINDS), kind, "kind of medium")
    sizes = (self.media_tokens, *self.units.values(), self.answer_length)
    if min(sizes) < 1 or self.question_length < 3 or 0 < self.reader_length < 3:
      raise ValueError(
        f"{self}: frames, their places and an answer have 1 token or more, a "
        "question 3."
      )

  @property
  def text_length(self) -> int:
    """Ids that a medium is read with, at most."""
    return self.reader_length

  @property
  def stops(self) -> tuple[int, ...]:
    """Ids that end an answer."""
    return (self._end,)

  @property
  def _end(self) -> int:
    if self.tokenizer.eos is None:
      raise ValueError("The tokenizer has no token that ends an answer (eos).")
    return self.tokenizer.eos

  def cut(self, text: str) -> str:
    """An answer up to a text that ends it; here only a token does."""
    return text

  def write(
    self, document: Segments, rng: np.random.Generator | None = None
  ) -> Written:
    """A question with its answer, for training or to be scored.

    Raises:
      ValueError: for another shape of document, for more media than there is
        room for, and for what does not fit.
    """
    media, question, answer = self._parts(document)
    if answer is None:
      raise ValueError(f"Document {document.id!r} has no answer (target).")
    order = list(media)
    if self.shuffled and rng is not None:
      order = [media[i] for i in rng.permutation(len(media))]
    sheet = self._asked(order, question, self.question_length)
    sheet.add(self._answer(answer), learned=True)
    written = self._written(sheet, self._instruction(document, question))
    if len(written.tokens) > self.length:
      raise ValueError(self._too_long(document, written))
    check_learned(written, document.id)
    return written

  def query(self, document: Segments, overflow: str = "error") -> Written:
    """A question that is to be answered; nothing of it can go.

    Raises:
      TooLong: when it does not fit.
    """
    del overflow
    media, question, answer = self._parts(document)
    if answer is not None:
      raise ValueError(f"Document {document.id!r} has its answer already.")
    read = self._instruction(document, question)
    written = self._written(self._asked(media, question), read)
    if len(written.tokens) > self.length:
      raise TooLong(self._too_long(document, written))
    return written

  def _too_long(self, document, written) -> str:
    return (
      f"Document {document.id!r} has {len(written.tokens)} tokens, "
      f"{self.length} fit. Use fewer media, a shorter question, or a longer "
      "`length`."
    )

  def _parts(self, document: Segments):
    """Media as (place, kind), the question, and the answer or None."""
    media, question, answer, number = [], [], None, 0
    for part in merged(document, KINDS):
      if not isinstance(part, tuple):
        media.append((number, part.kind))
        number += 1
      elif part[1]:
        if answer is not None:
          raise ValueError(f"Document {document.id!r} has two answers.")
        answer = part[0]
      elif answer is not None:
        raise ValueError(
          f"Document {document.id!r} goes on behind its answer; one question "
          "and one answer are written here."
        )
      else:
        question.append(part[0].strip())
    for kind in {kind for _, kind in media}:
      count = sum(kind == k for _, k in media)
      if count > self.media.get(kind, 0):
        raise ValueError(
          f"Document {document.id!r} has {count} of {kind!r}, "
          f"{self.media.get(kind, 0)} fit. Raise the prompt's `media`."
        )
    return media, " ".join(filter(None, question)), answer

  def answer(self, text: str) -> list[int]:
    """Ids of an answer, a piece of its own, without its end.

    Args:
      text: of it, perhaps behind the space by which templates join it to a
        question; a second one is the answer's own.
    """
    text = self.before_answer + text.removeprefix(" ").rstrip()
    return self.tokenizer.encode(text)

  def _answer(self, answer: str) -> list[int]:
    ids = [*self.answer(answer.strip()), self._end]
    # The start token, which the original drops, takes one of the places.
    return ids[: self.answer_length - bool(self.start)]

  def _asked(
    self,
    media: Sequence[tuple[int, str]],
    question: str,
    room: int | None = None,
  ) -> "_Sheet":
    """All before an answer; `room` is the question's tokens at most."""
    form, sheet = self.format, _Sheet(self)
    if form.prefix:
      sheet.piece(form.prefix, "prefix")
    for i, (runs, space) in enumerate(self._steps(media)):
      if form.numbered:
        sheet.piece(f"{' ' if i else ''}({_letter(i)}) ", "mark")
      for place, kind, frames in runs:
        if form.cues.get(kind):
          sheet.piece(form.cues[kind], "cue")
        for frame in frames:
          sheet.medium(place, frame)
      if space:
        sheet.add(self.tokenizer.encode(space))
    # One that is empty may have its start token.
    sheet.piece(question + form.postfix, "question", room)
    return sheet

  def _steps(
    self, media: Sequence[tuple[int, str]]
  ) -> Iterator[tuple[list[tuple[int, str, Sequence[int]]], str]]:
    """What has one number: runs of frames, and the text behind them.

    A run, which has a cue, is a medium. Of joint media, one of each kind, the
    frames of one time are together, at the place of the first of them:

      video of 2 frames, audio of 2 segments  ->  (v0 a0)  (v1 a1)
    """
    units, turns = self.units, list(self.format.joint)
    joint = [m for m in media if m[1] in turns]
    joint = joint if len(joint) > 1 else []
    for medium in media:
      if medium not in joint:
        frames = range(units.get(medium[1], 1))
        yield [(*medium, frames)], self.format.space
      elif medium == joint[0]:
        in_turn = sorted(joint, key=lambda m: turns.index(m[1]))
        for frame in range(max(units.get(kind, 1) for _, kind in joint)):
          there = [m for m in in_turn if frame < units.get(m[1], 1)]
          yield [(*m, [frame]) for m in there], ""

  def _instruction(self, document: Segments, question: str) -> str:
    """What the connectors read."""
    own = getattr(document, "metadata", {}).get("instruction")
    if own is not None:
      return own
    return question if self.reader_prompt is None else self.reader_prompt

  def _written(self, sheet: "_Sheet", instruction: str) -> Written:
    texts = ()
    if self.reader_length:
      texts = (self._read(instruction),) * len(sheet.media)
    return Written(
      tokens=np.asarray(sheet.tokens, np.int32),
      weights=np.asarray(sheet.weights, np.float32),
      index=np.asarray(sheet.index, np.int32),
      media=tuple(place for place, _ in sheet.media),
      frames=tuple(frame for _, frame in sheet.media),
      texts=texts,
    )

  def _read(self, text: str) -> Int[np.ndarray, "_"]:
    reader = self.tokenizer.reader
    if reader is None:
      raise ValueError(
        "The prompt's connectors read the question (reader_length), but the "
        "tokenizer has no `reader`. Give config.tokenizer.reader a tokenizer."
      )
    first = [] if reader.bos is None else [reader.bos]
    last = [] if reader.eos is None else [reader.eos]
    room = self.reader_length - len(first) - len(last)
    return np.asarray([*first, *reader.encode(text)[-room:], *last], np.int32)


def _letter(i: int) -> str:
  if i >= len(string.ascii_lowercase):
    raise ValueError(
      f"More than {i} media are to be numbered by letters. Use fewer, or a "
      "format that is not `numbered`."
    )
  return string.ascii_lowercase[i]


class _Sheet:
  """Collects ids, what is learned, and which frame each place is of."""

  def __init__(self, prompt: Cued):
    self._prompt = prompt
    self.tokens: list[int] = []
    self.weights: list[float] = []
    self.index: list[int] = []
    self.media: list[tuple[int, int]] = []

  def add(self, ids: Sequence[int], learned: bool = False, medium: int = 0):
    self.tokens += ids
    self.weights += [float(learned)] * len(ids)
    self.index += [medium] * len(ids)

  def piece(self, text: str, name: str, room: int | None = None) -> None:
    """A text of its own, cut on the left where there is little room."""
    prompt, rule = self._prompt, self._prompt.format.starts
    start = []
    if prompt.start and (not self.tokens or name in STARTS[rule]):
      start = [prompt.tokenizer.id(prompt.start)]
    ids = prompt.tokenizer.encode(text)
    self.add([*start, *(ids if room is None else ids[len(start) - room :])])

  def medium(self, place: int, frame: int) -> None:
    prompt = self._prompt
    self.media.append((place, frame))
    ids = [prompt.tokenizer.pad] * prompt.media_tokens
    self.add(ids, medium=len(self.media))
