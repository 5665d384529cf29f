"""`mmjax chat`: a conversation with a model, in a terminal or by a pipe."""

import contextlib
import logging
import re
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from mmjax.cli.evaluate import load_model
from mmjax.cli.generate import for_generation, require_turns
from mmjax.data.document import (
  MAX_BYTES,
  Document,
  File,
  Media,
  Text,
  printable,
)
from mmjax.data.encoder import Encoder
from mmjax.data.fields import text_of
from mmjax.generation.conversation import Conversation

log = logging.getLogger(__name__)
HELP = """\
/image FILE   shows a picture with the next question; may come again
/reset        forgets the conversation and its pictures
/help         shows this
/quit         ends, as Ctrl-D does; Ctrl-C stops an answer"""


def chat(
  config: Mapping[str, Any],
  workdir: str | Path,
  images: Sequence[str] = (),
  wording: Mapping[str, Any] | None = None,
  **fields: Any,
) -> None:
  """Talks with a run's newest checkpoint, or with a released model.

  Args:
    config: of the run, or of cli/released.py.
    workdir: of the run, or the model's folder.
    images: files that the first question is about.
    wording: what differs from the run's prompt (`system`, `length`, ...).
    **fields: of evaluation.model.Model (`max_new_tokens`, ...).
  """
  config = for_generation(config, wording)
  require_turns(config)
  model = load_model(config, workdir, {"batch_size": 1} | fields)
  talk = Talk(model.conversation(), model.encoder)
  for path in images:
    talk.show(path)
  if sys.stdin.isatty():
    with contextlib.suppress(ImportError):
      import readline  # noqa: F401 (gives `input` a history and keys)
    print(f"{workdir}: ask away, or /help.")
    terminal(talk, input, sys.stdout)
  else:
    pipe(talk, sys.stdin, sys.stdout)


class Talk:
  """A conversation, and the pictures that wait for the next question."""

  def __init__(self, conversation: Conversation, encoder: Encoder):
    self.conversation, self._encoder = conversation, encoder
    self._pictures: list[Media] = []

  def show(self, path: str) -> None:
    """Keeps a picture for the next question.

    Raises:
      ValueError: for a file that is no picture.
    """
    # Read at once: it may be gone when all is read anew.
    payload = File(path).read(MAX_BYTES["image"])
    picture = Media("image", payload, path)
    self._encoder.check(picture, "image")
    self._pictures.append(picture)

  def reset(self) -> None:
    self.conversation.reset()
    self._pictures = []

  def say(self, text: str) -> Generator[str, None, None]:
    """The answer to a question about the pictures that wait, piece by piece."""
    question = Text(text_of(text, "The question"))
    document = Document((*self._pictures, question), id=text)
    pieces = self.conversation.say(document)
    self._pictures = []
    return pieces


def terminal(talk: Talk, ask: Callable[[str], str], out: TextIO) -> None:
  """Asks for questions until there are no more."""
  while True:
    try:
      line = ask("> ").strip()
    except EOFError:
      print(file=out)
      return
    except KeyboardInterrupt:
      print("\n/quit or Ctrl-D ends", file=out)
      continue
    if line == "/quit":
      return
    try:
      _do(talk, line, out, visible)
    except ValueError as error:
      print(f"! {error}", file=out)
    except KeyboardInterrupt:
      print("\n(stopped)", file=out)


def pipe(talk: Talk, lines: TextIO, out: TextIO) -> None:
  """Answers every line.

  Raises:
    ValueError: for a line that cannot be answered: nobody is there to mend it.
  """
  for line in lines:
    if line.strip() == "/quit":
      return
    _do(talk, line.strip(), out, str)


def _do(
  talk: Talk, line: str, out: TextIO, written: Callable[[str], str]
) -> None:
  """One line of the user's: a command or a question."""
  command, _, rest = line.partition(" ")
  if command == "/image" and rest.strip():
    path = str(Path(rest.strip().strip("'\"")).expanduser())
    talk.show(path)
  elif line == "/reset":
    talk.reset()
  elif line == "/help":
    print(HELP, file=out)
  elif re.fullmatch(r"/\w*", command):
    raise ValueError(f"{line} is no command.\n{HELP}")
  elif line:
    _answer(talk, line, out, written)


def _answer(
  talk: Talk, question: str, out: TextIO, written: Callable[[str], str]
) -> None:
  # Closed at once, so that an interrupt leaves what was said as the answer.
  with contextlib.closing(talk.say(question)) as pieces:
    for piece in pieces:
      out.write(written(piece))
      out.flush()
  print(file=out)


def visible(text: str) -> str:
  """Text without what a terminal would obey, but for lines and tabs."""
  return re.sub(r"[^\n\t]+", lambda found: printable(found[0]), text)
