"""Conversations over a state that goes on, against all of it read anew."""

import dataclasses
import itertools
import logging

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from mmjax.data.document import BadSample, Document, Media
from mmjax.evaluation.model import Model
from mmjax.generation import conversation
from mmjax.generation.conversation import Streamed
from mmjax.text.prompts import Flamingo
from mmjax.text.prompts.base import TooLong
from tests.generation import talking

QUESTIONS = (
  talking.ask("w1 w2", 0),
  talking.ask("w3"),
  talking.ask("w4 w5 w6", 1),
)


def said(chat, question) -> str:
  return "".join(chat.say(question))


def whole(chat, question) -> Document:
  return talking.joined([*chat.turns, question])


@pytest.fixture
def reads(monkeypatch):
  """How many tokens every reading of a question has room for."""
  seen = []
  prefill = conversation._prefill

  def note(module, params, batch, *rest):
    seen.append(batch["tokens"].shape[1])
    return prefill(module, params, batch, *rest)

  monkeypatch.setattr(conversation, "_prefill", note)
  return seen


@pytest.mark.parametrize(
  "seed, lengths",
  [
    (5, (10, 10, 8)),  # Two answers have no end, one has.
    (9, (10, 1, 10)),
    (3, (0, 0, 0)),  # They end at once.
  ],
)
def test_turns_are_those_of_the_whole_read_anew(seed, lengths, reads):
  model = talking.model(seed=seed)
  chat = model.conversation()
  for question, length in zip(QUESTIONS, lengths):
    expected = model.generate([whole(chat, question)])[0]
    assert said(chat, question) == expected
    assert len(expected.split()) == length
  # The first with its system text; the others alone.
  assert reads == [32, 16, 16]


def test_a_turn_without_pictures_runs_no_encoder(monkeypatch):
  chat, seen = talking.model().conversation(), []
  prefill = conversation._prefill

  def note(module, params, batch, *rest):
    seen.append(list(batch["media"]))
    return prefill(module, params, batch, *rest)

  monkeypatch.setattr(conversation, "_prefill", note)
  for question in QUESTIONS:
    said(chat, question)
  assert seen == [["image"], [], ["image"]]


def test_sampling_is_that_of_the_model_and_of_a_seed():
  fields = dict(temperature=1.0, top_k=20, top_p=0.9, max_new_tokens=20)
  answers = []
  for seed in (1, 1, 2):
    model = talking.model(**fields, seed=5)
    model = dataclasses.replace(model, seed=seed)
    chat = model.conversation()
    answers.append([said(chat, question) for question in QUESTIONS])
    assert answers[-1][0] == model.generate([QUESTIONS[0]])[0]
  assert answers[0] == answers[1] != answers[2]


def test_pieces_come_while_it_speaks():
  model = talking.model(seed=5, max_new_tokens=20)
  pieces = list(model.conversation().say(QUESTIONS[0]))
  assert [len(piece.split()) for piece in pieces] == [8, 8, 4]


@pytest.mark.parametrize("how", ["left", "closed", "never heard"])
def test_an_answer_that_is_left_is_what_was_said(how):
  model = talking.model(seed=5, max_new_tokens=20)
  chat = model.conversation()
  pieces = chat.say(QUESTIONS[0])
  if how != "never heard":
    first = next(pieces)
    assert len(first.split()) == conversation.CHUNK
  if how == "closed":
    pieces.close()
  following = chat.say(QUESTIONS[1])
  heard = chat.turns[0].segments[-1].text
  assert heard == ("" if how == "never heard" else first)
  asked = talking.joined([QUESTIONS[0].answered(heard), QUESTIONS[1]])
  assert "".join(following) == model.generate([asked])[0]
  assert list(pieces) == []


@pytest.mark.parametrize("at", ["_prefill", "_decode"])
def test_an_interrupt_within_a_computation_loses_no_turn(at, monkeypatch):
  """Its state is gone; the conversation is read anew."""
  model = talking.model(seed=5, max_new_tokens=20)
  chat = model.conversation()
  said(chat, QUESTIONS[0])
  inner, calls = getattr(conversation, at), itertools.count()

  def interrupted(*args):
    found = inner(*args)
    if next(calls) == (at == "_decode"):
      raise KeyboardInterrupt
    return found

  monkeypatch.setattr(conversation, at, interrupted)
  with pytest.raises(KeyboardInterrupt):
    said(chat, QUESTIONS[1])
  monkeypatch.undo()
  # Before an answer begins, nothing was asked.
  assert len(chat.turns) == (2 if at == "_decode" else 1)
  if at == "_decode":
    heard = chat.turns[1].segments[-1].text
    assert len(heard.split()) == conversation.CHUNK
  expected = model.generate([whole(chat, QUESTIONS[2])])[0]
  assert said(chat, QUESTIONS[2]) == expected


def test_the_oldest_turns_go_when_there_is_no_room(caplog, reads):
  """As when a model is asked the whole, which loses them, too."""
  model = talking.model(seed=5, length=64)
  chat = model.conversation()
  with caplog.at_level(logging.WARNING):
    for i in range(6):
      question = talking.ask(f"w{i}", *([i] if i < 3 else []))
      expected = model.generate([whole(chat, question)])[0]
      assert said(chat, question) == expected
  assert "no longer fits 64 tokens and 4 images" in caplog.text
  assert "its oldest turn is forgotten" in caplog.text
  assert 16 in reads and reads.count(64) > 1


def test_so_do_they_when_there_are_too_many_pictures(caplog):
  model = talking.model(seed=5, media=2)
  chat = model.conversation()
  for i in range(3):
    question = talking.ask("w1", i)
    expected = model.generate([whole(chat, question)])[0]
    assert said(chat, question) == expected
  assert len(chat.turns) == 2 and "2 images" in caplog.text


def test_what_cannot_be_read_leaves_the_conversation_as_it_was():
  model = talking.model(seed=5, length=64)
  chat = model.conversation()
  said(chat, QUESTIONS[0])
  for question, error in (
    (talking.ask("w1 " * 99), TooLong),
    (Document((Media("image", b"no picture"),)), BadSample),
  ):
    with pytest.raises(error):
      chat.say(question)
    assert len(chat.turns) == 1
  expected = model.generate([whole(chat, QUESTIONS[1])])[0]
  assert said(chat, QUESTIONS[1]) == expected
  chat.reset()
  assert said(chat, QUESTIONS[0]) == model.generate([QUESTIONS[0]])[0]


def test_a_template_whose_answers_end_in_a_text_is_read_anew(reads):
  """Of version 0; its words are none of the model's, so the stop is given."""
  model = talking.model(seed=5, length=128)
  model = with_stop(model, "w1")
  chat = model.conversation()
  answers = []
  for question in QUESTIONS:
    expected = model.generate([whole(chat, question)])[0]
    answers.append(said(chat, question))
    assert answers[-1] == expected
  assert len(reads) == 3 and min(reads) > 16
  assert any(len(answer.split()) < 10 for answer in answers)


def with_stop(model: Model, stop: str) -> Model:
  """A model whose answers end before a text."""
  kind = type(model.encoder.prompt)
  stopping = type("Stopping", (kind,), {"stop_text": stop})
  fields = {
    field.name: getattr(model.encoder.prompt, field.name)
    for field in dataclasses.fields(kind)
  }
  encoder = dataclasses.replace(model.encoder, prompt=stopping(**fields))
  return dataclasses.replace(model, encoder=encoder)


def test_only_conversations_are_held():
  model = talking.model()
  with pytest.raises(ValueError, match="num_beams is 2"):
    dataclasses.replace(model, num_beams=2).conversation()
  prompt = Flamingo(talking.words(), image_as_text=False)
  encoder = dataclasses.replace(model.encoder, prompt=prompt)
  with pytest.raises(ValueError, match="its prompt is Flamingo"):
    dataclasses.replace(model, encoder=encoder).conversation()


def byte_pairs():
  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  made = tokenizers.Tokenizer(
    models.BPE({c: i for i, c in enumerate(letters)}, [])
  )
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  return made


def byte_fallback():
  """As LLaMA's: what is no piece is written as its bytes."""
  pieces = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "▁a"]
  made = tokenizers.Tokenizer(
    models.BPE(
      {p: i for i, p in enumerate(pieces)},
      [("▁", "a")],
      unk_token="<unk>",
      byte_fallback=True,
    )
  )
  made.pre_tokenizer = pre_tokenizers.Metaspace()
  made.decoder = decoders.Sequence(
    [
      decoders.Replace("▁", " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(" ", 1, 0),
    ]
  )
  return made


@pytest.mark.parametrize("make", [byte_pairs, byte_fallback])
@pytest.mark.parametrize("step", [1, 2, 3, 8])
def test_no_character_is_shown_in_parts(make, step):
  backend, text = make(), " a aa 你好 é🎉日本\n\na a  "
  ids = backend.encode(text).ids
  stream = Streamed(backend.decode)
  shown = []
  for start in range(0, len(ids), step):
    shown.append(stream.add(ids[start : start + step]))
  shown.append(stream.end())
  assert "".join(shown) == stream.text == text.strip()
  assert not any("\ufffd" in piece for piece in shown)
  assert sum(map(bool, shown)) > 2


def test_what_is_no_character_is_shown_at_the_end():
  stream = Streamed(bytes_decode := byte_pairs().decode)
  ids = byte_pairs().encode("aé").ids[:-1]
  assert stream.add(ids) == "a"
  assert stream.end() == "\ufffd" and stream.text == bytes_decode(ids)


@pytest.mark.parametrize(
  "text, expected",
  [("a ## a###b", "a ## a"), ("a #", "a #"), ("###", ""), ("a\n###", "a")],
)
def test_a_stop_is_never_shown(text, expected):
  backend = byte_pairs()
  stream, shown = Streamed(backend.decode, "###"), []
  for i in backend.encode(text).ids:
    shown.append(stream.add([i]))
    if stream.stopped:
      break
  shown.append(stream.end())
  assert "".join(shown) == stream.text == expected
  assert stream.stopped == ("###" in text)
