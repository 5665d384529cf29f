"""Token ids of text, and of the special tokens that a system adds.

Added tokens get the ids after the base vocabulary, in the order given, as a
resized embedding table has them:

  base 0 ... 50276 | <|endofchunk|> 50277 | <image> 50278 | <PAD> 50279

Text never turns into a special token: "<image>" typed by a user is plain
text. Special tokens are put in by id, by the prompts.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsInt

import tokenizers

from mmjax.config import nearest
from mmjax.text import folders

# Stands before a text that goes on from another; no token reaches beyond it.
GLUE = "\n"
DRAWN = Path(__file__).parent / "assets" / "drawn_tokenizer.json"


class Tokenizer:
  """A Hugging Face fast tokenizer with named special tokens.

  Attributes:
    bos: id of the token that begins a document, None where there is none.
    eos: id of the token that ends one.
    pad: id of padding; 0 where the vocabulary has none (it is masked).
    base_size: entries of the base vocabulary.
    vocab_size: those and the added tokens.
    reader: of what connectors read beside media, with first and last token;
      None where they read nothing.
  """

  reader: "Tokenizer | None" = None

  def __init__(
    self,
    backend: tokenizers.Tokenizer,
    *,
    added: Sequence[str] = (),
    bos: str | None = None,
    eos: str | None = None,
    pad: str | None = None,
  ):
    """Wraps a tokenizer.

    Args:
      backend: the base tokenizer.
      added: new special tokens, appended after its vocabulary.
      bos: name of the first token of a document.
      eos: name of the last token of a document.
      pad: name of the token for padding.

    Raises:
      ValueError: for a name that is neither in the vocabulary nor added, or
        an added one that the vocabulary has.
    """
    self._backend = _plain(backend.to_str())
    first = self._backend.encode("a", add_special_tokens=False).tokens[:1]
    self._puts_space = bool(first) and first[0].startswith("▁")
    # Ids may have holes, which new tokens must not fall into.
    ids = backend.get_vocab(with_added_tokens=True).values()
    self.base_size = max(ids, default=-1) + 1
    self.added = tuple(added)
    for token in self.added:
      if backend.token_to_id(token) is not None:
        raise ValueError(
          f"{token!r} is in the vocabulary already; do not add it."
        )
    self._ids = {t: self.base_size + i for i, t in enumerate(self.added)}
    if len(self._ids) < len(self.added):
      raise ValueError(f"An added token is there twice: {self.added}.")
    self.vocab_size = self.base_size + len(self.added)
    self.bos = None if bos is None else self.id(bos)
    self.eos = None if eos is None else self.id(eos)
    self.pad = 0 if pad is None else self.id(pad)

  @classmethod
  def from_file(
    cls,
    path: str | Path,
    added: Sequence[str] = (),
    bos: str | None = None,
    eos: str | None = None,
    pad: str | None = None,
  ) -> "Tokenizer":
    """Reads a `tokenizer.json`, or a tokenizer of Hugging Face in a folder.

    Args:
      path: see `folders`.
      added, bos, eos, pad: as above; none is taken from the folder.

    Raises:
      ValueError: for a file that is not there or not a tokenizer.
    """
    backend = folders.read(Path(path))
    return cls(backend, added=added, bos=bos, eos=eos, pad=pad)

  def __getstate__(self) -> dict:
    return self.__dict__ | {"_backend": self._backend.to_str()}

  def __setstate__(self, state: dict) -> None:
    self.__dict__.update(state, _backend=_plain(state["_backend"]))

  @property
  def fingerprint(self) -> str:
    """Tells it from any other, for what is kept on disk."""
    reader = self.reader.fingerprint if self.reader else ""
    named = (self.added, self.bos, self.eos, self.pad, reader)
    text = json.dumps([self._backend.to_str(), *named])
    return hashlib.sha256(text.encode()).hexdigest()

  def id(self, token: str) -> int:
    """The id of a special token, or of any entry of the vocabulary."""
    found = self._ids.get(token)
    if found is None:
      found = self._backend.token_to_id(token)
    if found is None:
      raise ValueError(
        f"No token {token!r} in the vocabulary. {nearest(token, self._ids)}"
      )
    return found

  def encode(self, text: str, continues: bool = False) -> list[int]:
    """Ids of plain text, with no special tokens.

    Args:
      text: what to encode.
      continues: it goes on from other text. Tokenizers such as LLaMA's put a
        space before a text, which does not belong there:

          "Answer:" + " cat"   ▁Answer : ▁cat   and not   ▁Answer : ▁▁ cat
    """
    if not (continues and self._puts_space):
      return self._ids_of(text)
    return self._ids_of(GLUE + text)[len(self._ids_of(GLUE)) :]

  def _ids_of(self, text: str) -> list[int]:
    return self._backend.encode(text, add_special_tokens=False).ids

  def unknown(self, text: str) -> list[str]:
    """The pieces of a text for which the vocabulary has only its unknown."""
    name = getattr(self._backend.model, "unk_token", None)
    encoding = self._backend.encode(text, add_special_tokens=False)
    pieces = zip(encoding.tokens, encoding.offsets)
    return [
      text[start:stop] for piece, (start, stop) in pieces if piece == name
    ]

  def decode(self, ids: Iterable[SupportsInt], special: bool = False) -> str:
    """The text of ids.

    Args:
      ids: token ids; those past the vocabulary are an error.
      special: writes special tokens too, by their names.
    """
    pieces, run = [], []

    def flush():
      if run:
        pieces.append(
          self._backend.decode(list(run), skip_special_tokens=not special)
        )
        run.clear()

    for i in map(int, ids):
      if not 0 <= i < self.vocab_size:
        raise ValueError(f"Id {i} is outside 0..{self.vocab_size - 1}.")
      if i < self.base_size:
        run.append(i)
      elif special:
        flush()
        pieces.append(self.added[i - self.base_size])
    flush()
    return "".join(pieces)


def _plain(content: str) -> tokenizers.Tokenizer:
  """A tokenizer that takes special tokens in a text for text.

  That setting is not part of the file, and is lost when it is copied.
  """
  backend = tokenizers.Tokenizer.from_str(content)
  backend.encode_special_tokens = True
  backend.no_truncation()
  backend.no_padding()
  return backend


def drawn() -> Tokenizer:
  """The word-level tokenizer of the drawn set, with Flamingo's tokens."""
  return Tokenizer.from_file(
    DRAWN, bos="<s>", eos="</s>", pad="<pad>", added=("<EOC>", "<image>")
  )


def byte_level(
  tokens: Sequence[str], merges: Sequence[str], digits: bool = False
) -> tokenizers.Tokenizer:
  """A byte-pair tokenizer in GPT-2's manner, from its tables.

  Args:
    tokens: the vocabulary in the order of its ids.
    merges: "a b", the most frequent first.
    digits: every digit is a token of its own (SmolLM).
  """
  model = tokenizers.models.BPE(
    {token: i for i, token in enumerate(tokens)},
    [tuple(merge.split(" ", 1)) for merge in merges],
  )
  backend = tokenizers.Tokenizer(model)
  steps = [tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
  if digits:
    alone = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    steps.insert(0, alone)
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
  backend.decoder = tokenizers.decoders.ByteLevel()
  return backend
