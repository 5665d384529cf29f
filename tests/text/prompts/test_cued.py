"""X-InstructBLIP's sequences: ids of cues, order, what is cut and refused."""

import dataclasses

import numpy as np
import pytest

from mmjax.data.document import Document, Media, Text
from mmjax.text.prompts import Cued
from mmjax.text.prompts.base import TooLong
from mmjax.text.prompts.cued import FORMATS, Format
from tests.text.llama import llama
from tests.text.prompts.test_chat import bytes_tokenizer

# Ids behind the start token, of LLaMA's vocabulary.
CUES = {
  "x_instructblip": {
    "image": [29871, 1967, 29901, 29871],
    "points": [259, 29941, 29881, 29901, 29871],
    "video": [29871, 4863, 29901, 29871],
    "audio": [29871, 10348, 29901, 29871],
  },
  "x_instructblip_7b": {
    "image": [1967, 29901, 29871],
    "points": [29871, 29941, 29881, 29901, 29871],
    "video": [4863, 29901, 29871],
    "audio": [10348, 29901, 29871],
  },
}


def document(*kinds, question="Is it loud?", answer="yes"):
  media = [Media(kind, None) for kind in kinds]
  texts = [Text(question)] if question else []
  if answer is not None:
    texts.append(Text(answer, target=True))
  return Document((*media, *texts), id="x")


def cued(format="x_instructblip", **fields) -> Cued:
  given = dict(media=dict.fromkeys(("image", "video", "audio", "points"), 3))
  given |= dict(media_tokens=2, start="<s>") | fields
  return Cued(bytes_tokenizer(), format, **given)


def text_of(prompt, written):
  ids = np.where(written.index > 0, prompt.tokenizer.id("*"), written.tokens)
  return prompt.tokenizer.decode(ids, special=True)


@pytest.mark.parametrize("name", CUES)
@pytest.mark.parametrize("kind", ["image", "points", "video", "audio"])
def test_cues_have_the_ids_that_are_known(name, kind):
  prompt = Cued(llama(), name, media={kind: 1}, media_tokens=1)
  tokens = prompt.query(document(kind, answer=None)).tokens.tolist()
  cue = CUES[name][kind]
  if name == "x_instructblip":
    assert tokens[: len(cue) + 1] == [2, *cue]
  else:
    begin = [2, 3148, 1001, 29901, 29871]
    assert tokens[: len(begin) + len(cue)] == begin + cue


def test_other_texts_have_the_ids_that_are_known():
  ids = llama().encode
  assert ids("(a) ") == [313, 29874, 29897, 29871]
  assert ids(" (b) ") == [29871, 313, 29890, 29897, 29871]
  assert ids(" ") == [259]
  seven = FORMATS["x_instructblip_7b"]
  assert ids(seven.prefix) == [3148, 1001, 29901, 29871]
  assert ids(seven.postfix) == [29871, 13, 22933, 9047, 13566, 29901]


WRITTEN = {
  "x_instructblip": "<s> image: **<s> audio: **<s>Is it loud?yes</s>",
  "x_instructblip_7b": "<s>USER: image: **audio: **Is it loud?\nASSISTANT:"
  "yes</s>",
  "x_instructblip_no_cue": "****<s>Is it loud?yes</s>",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written(name):
  prompt = cued(name)
  written = prompt.write(document("image", "audio"))
  assert text_of(prompt, written) == WRITTEN[name]
  learned = written.tokens[written.weights > 0]
  assert prompt.tokenizer.decode(learned, special=True) == "yes</s>"
  asked = prompt.query(document("image", "audio", answer=None))
  assert text_of(prompt, asked) == WRITTEN[name].removesuffix("yes</s>")
  assert prompt.stops == (prompt.tokenizer.id("</s>"),)


# LAVIS' generate with `enumerate_inputs`: what its options write of an image
# and points, or of two frames of each joint kind.
PAIR, JOINT = dict(numbered=True, space="_"), dict(joint=["video", "audio"])
NUMBERED = [
  (PAIR, "<s>(a) <s>i**_ (b) <s>p**_<s>q"),
  (PAIR | dict(starts="first"), "<s>(a) i**_ (b) p**_q"),
  (PAIR | dict(starts="first_and_question"), "<s>(a) i**_ (b) p**_<s>q"),
  (PAIR | dict(prefix="U"), "<s>U(a) <s>i**_ (b) <s>p**_<s>q"),
  (PAIR | dict(prefix="U", starts="first"), "<s>U(a) i**_ (b) p**_q"),
  (JOINT, "<s>v**<s>a**<s>v**<s>a**<s>q"),
  (JOINT | PAIR, "<s>(a) <s>v**<s>a** (b) <s>v**<s>a**<s>q"),
  (
    JOINT | PAIR | dict(prefix="U", starts="first"),
    "<s>U(a) v**a** (b) v**a**q",
  ),
]


@pytest.mark.parametrize("form, expected", NUMBERED)
def test_numbers_and_joint_media(form, expected):
  cues = dict(image="i", points="p", video="v", audio="a")
  prompt = cued(form | dict(cues=cues), units=dict(video=2, audio=2))
  kinds = ("audio", "video") if "joint" in form else ("image", "points")
  written = prompt.query(document(*kinds, question="q", answer=None))
  assert text_of(prompt, written) == expected


def test_a_number_behind_a_prefix_has_the_ids_that_are_known():
  form = dataclasses.replace(FORMATS["x_instructblip_7b"], numbered=True)
  prompt = Cued(llama(), form, media={"image": 1}, media_tokens=1)
  tokens = prompt.query(document("image", answer=None)).tokens.tolist()
  begin = [2, 3148, 1001, 29901, 29871, 313, 29874, 29897, 29871]
  assert tokens[:12] == begin + CUES["x_instructblip_7b"]["image"]


def test_frames_of_joint_media_take_turns():
  form = dict(cues={"video": "v", "audio": "a"}, starts="first")
  units = {"video": 2, "audio": 2}
  asked = document("video", "audio", question="?", answer=None)
  apart = cued(form, units=units)
  written = apart.query(asked)
  assert text_of(apart, written) == "<s>v****a****?"
  assert written.media == (0, 0, 1, 1) and written.frames == (0, 1, 0, 1)
  joint = cued(form | dict(joint=["video", "audio"]), units=units)
  written = joint.query(asked)
  assert text_of(joint, written) == "<s>v**a**v**a**?"
  assert written.media == (0, 1, 0, 1) and written.frames == (0, 0, 1, 1)
  other = joint.query(document("audio", "video", question="?", answer=None))
  assert other.media == (1, 0, 1, 0) and other.frames == written.frames
  kinds = [m.kind for m in asked.media]
  own, index = written.of_kind("audio", kinds)
  assert own == [1, 3]
  places = "..." + "." + "11" + "." + ".." + "." + "22" + "."
  assert len(index) == len(written.tokens)
  found = "".join(str(i) if i else "." for i in index)
  assert found == places[1:].rjust(len(found), ".")


def test_an_order_by_chance_is_one_of_the_seed():
  prompt = cued("x_instructblip_no_cue", shuffled=True)
  media = document("image", "audio", "points")
  orders = {
    prompt.write(media, np.random.default_rng(i)).media for i in range(40)
  }
  assert len(orders) == 6
  assert prompt.write(media).media == (0, 1, 2)
  again = [prompt.write(media, np.random.default_rng(7)).media] * 2
  assert again[0] == again[1]


def test_one_space_before_an_answer_is_the_templates():
  prompt = cued("instructblip", before_answer="_")
  decode = prompt.tokenizer.decode
  for text, expected in (
    ("a cat", "_a cat"),
    (" a cat ", "_a cat"),
    # As LAVIS writes candidates of ModelNet40.
    ("  a cat", "_ a cat"),
  ):
    assert decode(prompt.answer(text)) == expected
  learned = prompt.write(document("image", answer="  a cat "))
  assert text_of(prompt, learned).endswith("_a cat</s>")


def test_trained_questions_are_cut_on_the_left_and_answers_on_the_right():
  prompt = cued("instructblip", question_length=5, answer_length=4)
  written = prompt.write(document("image", answer="a long answer"))
  # The start token has one of the places of each.
  assert text_of(prompt, written) == "**<s>oud?a l"
  asked = prompt.query(document("image", answer=None))
  assert text_of(prompt, asked) == "**<s>Is it loud?"
  reader = bytes_tokenizer()
  reader.bos, reader.eos = reader.id("<a>"), reader.id("<b>")
  prompt = cued(reader_length=6)
  with pytest.raises(ValueError, match="the tokenizer has no `reader`"):
    prompt.query(document("image", answer=None))
  prompt.tokenizer.reader = reader
  (text,) = prompt.query(document("image", answer=None)).texts
  assert reader.decode(text, special=True) == "<a>oud?<b>"
  prompt = dataclasses.replace(prompt, reader_prompt="what")
  (text,) = prompt.query(document("image", answer=None)).texts
  assert reader.decode(text, special=True) == "<a>what<b>"
  own = document("image", answer=None)
  own = dataclasses.replace(own, metadata={"instruction": "when"})
  (text,) = prompt.query(own).texts
  assert reader.decode(text, special=True) == "<a>when<b>"


@pytest.mark.parametrize(
  "made, message",
  [
    (document("image", answer=None), "has no answer"),
    (document("image", "image", "image", "image"), "has 4 of 'image', 3 fit"),
    (
      Document((Text("a", target=True), Text("b")), id="x"),
      "goes on behind its answer",
    ),
    (
      Document(
        (Text("q"), Text("a", True), Media("image", None), Text("b", True)),
        id="x",
      ),
      "has two answers",
    ),
    (document("image", question="q" * 600), None),
    (document("image", answer="q" * 600, question="q" * 300), None),
  ],
)
def test_documents_of_another_shape_are_refused(made, message):
  prompt = cued(length=400)
  if message is None:
    assert len(prompt.write(made).tokens) <= 400
    return
  with pytest.raises(ValueError, match=message):
    prompt.write(made)


def test_what_does_not_fit_is_refused():
  prompt = cued(length=20)
  with pytest.raises(TooLong, match="tokens, 20 fit"):
    prompt.query(document("image", "audio", answer=None))
  prompt = cued("instructblip", length=140)
  with pytest.raises(TooLong, match="'x' has 203 tokens, 140 fit.*question"):
    prompt.query(document("image", question="q" * 200, answer=None))
  prompt = cued(length=20)
  with pytest.raises(ValueError, match="tokens, 20 fit"):
    prompt.write(document("image", "audio"))
  with pytest.raises(ValueError, match="has its answer already"):
    prompt.query(document("image"))


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(format="x_instructblp"), "Did you mean 'x_instructblip'"),
    (dict(media=dict(sound=1)), "kind of medium"),
    (dict(format=dict(cues=dict(images="a"))), "Did you mean 'image'"),
    (dict(format=dict(starts="last")), "rule of the start token"),
    (dict(media_tokens=0), "1 token or more"),
  ],
)
def test_bad_settings_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    cued(**fields)


def test_letters_end():
  form = Format(numbered=True)
  prompt = cued(form, media=dict(image=40))
  with pytest.raises(ValueError, match="More than 26 media"):
    prompt.query(document(*["image"] * 27, answer=None))
