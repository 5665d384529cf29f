"""Conversations with images in the sequence, as LLaVA writes them.

  <s> A chat … USER: <image>\\nWhat is it? ASSISTANT: A cat.</s>
  0   0        0      1 1 1 1  0           0          0     0    index
  -   -        -      - - - -  -           -          *     *    learned

An image is written as so many tokens as the connector makes of it. Who speaks
is told by the document: a run of segments that are no targets is a turn of the
user, a run of targets one of the assistant.

What is learned is known while the pieces are put together, so that no tokenizer
and no template can shift it. Ids are those of llava/train/train.py, which
tokenizes what lies between images at once: pieces end only where that changes
nothing, at special tokens and where an answer begins and ends.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmjax.config import lookup
from mmjax.text.prompts.base import (
  Segments,
  TooLong,
  Written,
  check_learned,
)
from mmjax.text.prompts.chat_templates import (
  CHAT_TEMPLATES,
  ChatTemplate,
  Piece,
  Pieces,
)
from mmjax.text.prompts.turns import Turn, read_turns
from mmjax.text.tokenizer import Tokenizer

POSITIONS = ("front", "data", "random")


@dataclasses.dataclass(frozen=True)
class Chat:
  """Conversations of any number of turns and images.

  Attributes:
    tokenizer: of the language model.
    template: of CHAT_TEMPLATES.
    length: tokens at most; in training the rest is cut off on the right.
    media: images at most.
    media_tokens: that stand for an image, 576 of CLIP at 336 pixels.
    image: name of the token at these places, whose embedding is not read; ""
      is padding.
    position: of a turn's images: "front" of its text on a line of their own
      (LLaVA from version 1.0 on, whatever the file says), where the "data" has
      them, or "random": before or after the first question (the paper).
    around: names of two special tokens around every image, or none
      (`mm_use_im_start_end`).
    system: in place of the template's; "" leaves it out.
    legacy: text after a special token begins with a space of the tokenizer's,
      as tokenizers of LLaMA did before they were mended.
    loss: "token" weighs all tokens alike; "example" all conversations.
    overflow: "truncate", or an "error".
  """

  tokenizer: Tokenizer
  template: str = "vicuna_v1"
  length: int = 2048
  media: int = 1
  media_tokens: int = 576
  image: str = ""
  position: str = "front"
  around: Sequence[str] = ()
  system: str | None = None
  legacy: bool = True
  loss: str = "token"
  overflow: str = "truncate"

  def __post_init__(self):
    lookup(CHAT_TEMPLATES, self.template, "chat template")
    lookup(dict.fromkeys(POSITIONS), self.position, "position of images")
    lookup(dict.fromkeys(("token", "example")), self.loss, "mean of the loss")
    lookup(dict.fromkeys(("truncate", "error")), self.overflow, "overflow")
    if self.media_tokens < 1 or len(self.around) not in (0, 2):
      raise ValueError(
        f"media_tokens is {self.media_tokens} and around {self.around}; "
        "expected 1 or more, and two names or none."
      )

  @property
  def stops(self) -> tuple[int, ...]:
    """Ids that end an answer."""
    named = {p.text for p in self._pieces.assistant if p.special and p.learned}
    ids = {self.tokenizer.id(name) for name in named}
    return tuple(sorted(ids | {self.tokenizer.eos} - {None}))

  @property
  def stop_text(self) -> str:
    """A text that ends an answer, in templates without a token; else ""."""
    return self._pieces.stop

  def cut(self, text: str) -> str:
    """An answer up to the text that ends it."""
    stop = self.stop_text
    return text.split(stop, 1)[0] if stop else text

  @property
  def _pieces(self) -> ChatTemplate:
    return CHAT_TEMPLATES[self.template]

  def write(
    self, document: Segments, rng: np.random.Generator | None = None
  ) -> Written:
    """A whole conversation, for training; without `rng` nothing is random.

    Raises:
      ValueError: for more images than `media`, a turn without an answer, when
        nothing of it is learned, or overflow="error".
    """
    turns = read_turns(document)
    if turns[-1].answer is None:
      raise ValueError(f"Conversation {document.id!r} ends with a question.")
    # Nothing is drawn where nothing is random: lengths are known by that.
    back = False
    if rng is not None and self.position == "random":
      back = rng.random() < 0.5
    sheet = self._sheet(self._pieces, turns, back)
    sheet.put_all(self._pieces.closing)
    if len(sheet.tokens) > self.length and self.overflow == "error":
      raise ValueError(
        f"Conversation {document.id!r} has {len(sheet.tokens)} tokens, "
        f"{self.length} fit. Use overflow='truncate' or a longer `length`."
      )
    written = sheet.written(self.length)
    if len(written.media) > self.media:
      raise ValueError(
        f"Conversation {document.id!r} has {len(written.media)} images, "
        f"{self.media} fit. Raise the prompt's `media`."
      )
    check_learned(written, document.id)
    if self.loss == "token":
      return written
    weights = written.weights / written.weights[1:].sum()
    return dataclasses.replace(written, weights=weights)

  def query(self, document: Segments, overflow: str = "error") -> Written:
    """A conversation whose last question is to be answered.

    With overflow="left" the oldest turns go until the others fit.

    Raises:
      TooLong: when it does not fit, or its last turn alone.
    """
    turns = read_turns(document)
    if turns[-1].answer is not None:
      raise ValueError(f"Conversation {document.id!r} ends with an answer.")
    first = 0
    while True:
      sheet = self._sheet(self._asked, turns[first:], False)
      fits = len(sheet.tokens) <= self.length and len(sheet.at) <= self.media
      if fits or overflow == "error" or first == len(turns) - 1:
        break
      first += 1
    if not fits:
      raise TooLong(
        f"The conversation {document.id!r} has {len(sheet.tokens)} tokens and "
        f"{len(sheet.at)} images; {self.length} and {self.media} fit. Use "
        "fewer turns, a longer `length`, or more `media`."
      )
    return sheet.written(self.length)

  def follow(self, document: Segments, ended: bool) -> Written:
    """The next question of a conversation that a state has read.

    Args:
      document: that question alone.
      ended: whether the token that ends an answer was read after the one
        before; else it is put first.
    """
    turns = read_turns(document)
    pieces = self._asked
    rest = _from_text(pieces.assistant)[1:]
    end = next((i for i, p in enumerate(rest) if p.special), None)
    behind_end = ended and end is not None
    sheet = _Sheet(self, continues=not (behind_end and self.legacy))
    if not ended:
      sheet.put_all(rest)
    elif behind_end:
      sheet.put_all(rest[end + 1 :])
    self._ask(sheet, pieces, turns[0], first=False, back=False)
    return sheet.written(self.length)

  @property
  def _asked(self) -> ChatTemplate:
    return self._pieces.asks or self._pieces

  def _sheet(
    self, pieces: ChatTemplate, turns: Sequence[Turn], back: bool
  ) -> "_Sheet":
    sheet = _Sheet(self)
    system = pieces.system if self.system is None else self.system
    if system:
      sheet.put_all(pieces.opening, system=system)
    for i, turn in enumerate(turns):
      self._ask(sheet, pieces, turn, first=i == 0, back=back and i == 0)
      if turn.answer is not None:
        rest = _from_text(pieces.assistant)
        sheet.put_all(rest, text=turn.answer)
    return sheet

  def _ask(
    self,
    sheet: "_Sheet",
    pieces: ChatTemplate,
    turn: Turn,
    *,
    first: bool,
    back: bool,
  ) -> None:
    """A turn of the user, and what the assistant's begins with."""
    system = pieces.system if self.system is None else self.system
    question = self._placed(turn.question, pieces, first, back)
    user = pieces.user
    if first and system and pieces.first_user is not None:
      user = pieces.first_user
    elif first and pieces.first_user is not None:
      # Nothing is before the first turn that it would have to be told from.
      user = tuple(p for p in user if not p.special)
    for piece in user:
      before, field, after = piece.text.partition("{text}")
      before, after = (x.replace("{system}", system) for x in (before, after))
      sheet.put(dataclasses.replace(piece, text=before))
      for part in question if field else ():
        sheet.put_part(part, piece.learned, pieces.wrap, self.around)
      if field:
        sheet.put(dataclasses.replace(piece, text=after))
    sheet.put_all(_before_text(pieces.assistant))

  def _placed(
    self,
    question: Sequence[str | int],
    pieces: ChatTemplate,
    first: bool,
    back: bool,
  ) -> tuple[str | int, ...]:
    """A question with its images where they belong."""
    images = [part for part in question if isinstance(part, int)]
    if pieces.images_only and images:
      return tuple(images)
    if pieces.images_only:
      raise ValueError(
        f"Template {self.template!r} writes images and answers only; this "
        "question has no image."
      )
    if not images or self.position == "data":
      return tuple(question)
    text = "".join(p for p in question if isinstance(p, str)).strip()
    if not text:
      return tuple(x for i in images for x in (i, "\n"))[:-1]
    if self.position == "random" and first and back:
      return (text, *(x for i in images for x in ("\n", i)))
    return (*(x for i in images for x in (i, "\n")), text)


def _place_of_text(pieces: Pieces) -> int:
  return next(i for i, p in enumerate(pieces) if "{text}" in p.text)


def _before_text(pieces: Pieces) -> Pieces:
  return pieces[: _place_of_text(pieces)]


def _from_text(pieces: Pieces) -> Pieces:
  return pieces[_place_of_text(pieces) :]


class _Sheet:
  """Collects pieces, and tokenizes neighbouring texts together."""

  def __init__(self, chat: Chat, continues: bool | None = None):
    """Begins one.

    Args:
      chat: how to write.
      continues: whether the first text goes on from other text, where
        something is before it; None begins a conversation.
    """
    self._chat, self._tokenizer = chat, chat.tokenizer
    self._ids: list[int] = []
    self._learned: list[bool] = []
    self._index: list[int] = []
    self.at: list[int] = []  # Where each image begins, and
    self._media: list[int] = []  # which of the document it is.
    self._text, self._is_learned = "", False
    self._continues = bool(continues)
    if continues is None and chat.tokenizer.bos is not None:
      self._add([chat.tokenizer.bos], False)

  @property
  def tokens(self) -> list[int]:
    self._flush()
    return self._ids

  def put_all(self, pieces: Pieces, **fields: str) -> None:
    for piece in pieces:
      text = piece.text
      for name, value in fields.items():
        before, field, after = text.partition(f"{{{name}}}")
        text = before + (value if field else "") + after
      self.put(dataclasses.replace(piece, text=text))

  def put(self, piece: Piece) -> None:
    if not piece.text:
      return
    if piece.special:
      self._flush()
      self._add([self._tokenizer.id(piece.text)], piece.learned)
      self._continues = not self._chat.legacy
      return
    if self._text and piece.learned != self._is_learned:
      self._flush()
    self._text, self._is_learned = self._text + piece.text, piece.learned

  def put_part(
    self,
    part: str | int,
    learned: bool,
    wrap: tuple[str, str],
    around: Sequence[str],
  ) -> None:
    """A part of a question: text, or an image with what is around it."""
    if isinstance(part, str):
      self.put(Piece(part, learned))
      return
    self.put(Piece(wrap[0]))
    for name in around[:1]:
      self.put(Piece(name, special=True))
    self._image(part)
    for name in around[1:]:
      self.put(Piece(name, special=True))
    self.put(Piece(wrap[1]))

  def _image(self, number: int) -> None:
    self._flush()
    chat, tokenizer = self._chat, self._tokenizer
    mark = tokenizer.id(chat.image) if chat.image else tokenizer.pad
    self.at.append(len(self._ids))
    self._media.append(number)
    self._add([mark] * chat.media_tokens, False, len(self.at))
    self._continues = False

  def _flush(self) -> None:
    if self._text:
      ids = self._tokenizer.encode(self._text, self._continues)
      self._add(ids, self._is_learned)
      self._text, self._continues = "", True

  def _add(self, ids: Sequence[int], learned: bool, medium: int = 0) -> None:
    self._ids += ids
    self._learned += [learned] * len(ids)
    self._index += [medium] * len(ids)

  def written(self, length: int) -> Written:
    """The first tokens; an image of which not all fit ends them."""
    count = self._chat.media_tokens
    stop = min(len(self.tokens), length)
    kept = [at for at in self.at if at + count <= stop]
    if len(kept) < len(self.at):
      stop = min(stop, self.at[len(kept)])
    return Written(
      tokens=np.asarray(self._ids[:stop], np.int32),
      weights=np.asarray(self._learned[:stop], np.float32),
      index=np.asarray(self._index[:stop], np.int32),
      media=tuple(self._media[: len(kept)]),
    )
