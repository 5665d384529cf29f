"""What a terminal and a pipe make of a conversation."""

import io

import pytest
from PIL import Image

from mmjax.cli.chat import HELP, Talk, pipe, terminal, visible
from mmjax.data.document import Document, File, Media, Text
from tests.data.pictures import photo
from tests.generation import talking


@pytest.fixture(scope="module")
def model():
  return talking.model(seed=5, max_new_tokens=20)


@pytest.fixture
def talk(model):
  return Talk(model.conversation(), model.encoder)


@pytest.fixture
def picture(tmp_path):
  path = tmp_path / "a b.png"
  Image.fromarray(photo(20, 30, 0)).save(path)
  return path


def typed(*lines):
  """Answers `input` with lines, or raises what stands among them."""
  left = iter([*lines, EOFError])

  def ask(prompt):
    line = next(left)
    if isinstance(line, str):
      return line
    raise line

  return ask


def run(talk, *lines) -> str:
  out = io.StringIO()
  terminal(talk, typed(*lines), out)
  return out.getvalue()


def answer(model, *parts) -> str:
  segments = [
    Text(part) if isinstance(part, str) else Media("image", File(str(part)))
    for part in parts
  ]
  return model.generate([Document(tuple(segments))])[0]


def test_pictures_wait_for_the_next_question(talk, model, picture):
  said = run(talk, f"/image '{picture}'", "", "w1", "w2")
  first, second = said.split("\n")[:2]
  assert first == answer(model, picture, "w1")
  picture.unlink()  # What was shown is kept.
  turns = talk.conversation.turns
  assert [len(turn.media) for turn in turns] == [1, 0]
  assert [turn.segments[-1].text for turn in turns] == [first, second]


def test_commands(talk, model, picture):
  said = run(talk, "/help", "w1", f"/image {picture}", "/reset", "w1", "/quit")
  asked = answer(model, "w1")
  assert said == f"{HELP}\n{asked}\n{asked}\n"
  assert len(talk.conversation.turns) == 1


def test_what_cannot_be_done_is_said_and_the_talk_goes_on(talk, tmp_path):
  (tmp_path / "x.png").write_text("no picture")
  said = run(
    talk,
    "/image",
    "/imagine a.png",
    "/image nowhere.png",
    f"/image {tmp_path / 'x.png'}",
    "w1 " * 200,
    "w1",
  )
  for message in (
    "/image is no command",
    "/imagine a.png is no command",
    "Cannot read nowhere.png",
    "is no JPEG",
    "Use fewer turns",
  ):
    assert message in said
  assert len(talk.conversation.turns) == 1


def test_pictures_wait_on_when_a_question_does_not_fit(talk, model, picture):
  said = run(talk, f"/image {picture}", "w1 " * 200, "w1")
  assert said.splitlines()[-2] == answer(model, picture, "w1")


class Stopping(io.StringIO):
  """A terminal whose user has had enough after the first piece."""

  def write(self, text):
    found = super().write(text)
    if text.startswith("w") and "stopped" not in self.getvalue():
      raise KeyboardInterrupt
    return found


def test_an_interrupt_stops_the_answer_alone(talk, model):
  out = Stopping()
  terminal(talk, typed("w1", KeyboardInterrupt, "w2"), out)
  first, stopped, rest = out.getvalue().split("\n", 2)
  assert len(first.split()) == 8 and stopped == "(stopped)"
  assert answer(model, "w1").startswith(first)
  heard = [turn.segments[-1].text for turn in talk.conversation.turns]
  assert heard[0] == first and len(heard) == 2
  assert "/quit or Ctrl-D ends" in rest and heard[1] in rest


def test_a_pipe_ends_at_what_cannot_be_done(talk):
  out = io.StringIO()
  with pytest.raises(ValueError, match="nowhere.png"):
    pipe(talk, io.StringIO("w1\n/image nowhere.png\nw2\n"), out)
  assert len(out.getvalue().splitlines()) == 1


def test_a_pipe_is_read_to_its_end_or_to_quit(talk):
  out = io.StringIO()
  pipe(talk, io.StringIO("w1\n\nw2\n/quit\nw3"), out)
  assert len(out.getvalue().splitlines()) == 2


def test_a_terminal_obeys_no_answer():
  assert visible("a\n\té\x1b[2J") == "a\n\té\\x1b[2J"
