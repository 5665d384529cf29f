"""LLaVA's conversations: ids, what is learned, and where images are."""

import hashlib

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from mmjax.data.document import Document, Media, Text
from mmjax.text.prompts import Chat
from mmjax.text.prompts.base import TooLong
from mmjax.text.prompts.chat_templates import CHAT_TEMPLATES
from mmjax.text.tokenizer import Tokenizer
from tests.text.llama import llama
from tests.text.prompts.original_llava import (
  IGNORED,
  IMAGE,
  ORIGINALS,
  Slow,
  mpt,
)

PIXELS = np.zeros((4, 4, 3), np.uint8)
PICTURE = Media("image", PIXELS)
TURNS = {
  "one": [("<image>\nWhat is it?", "A cat.")],
  "several": [
    ("<image>\nWhat is it?", "A cat, I think"),
    ("Sure?", "Yes."),
    ("Why do you ask, USER?", "No reason: 3 < 4, é日本😀"),
  ],
  "no image": [("Hello there", "Hi"), ("  spaces ", "\nnew line first")],
}


def conversation(turns, name="x") -> Document:
  segments = []
  for question, answer in turns:
    for i, text in enumerate(question.split("<image>")):
      segments += [PICTURE] * (i > 0) + [Text(text)] * bool(text)
    segments.append(Text(answer, target=True))
  return Document(tuple(segments), id=name)


def question(text="<image>\nWhat is it?", before=()) -> Document:
  asked = conversation([*before, (text, "")])
  return Document(asked.segments[:-1], id="q")


def slow(tokenizer, legacy=True) -> Slow:
  return Slow(
    tokenizer.encode,
    lambda text: tokenizer.encode(text, continues=True),
    {"<s>": 1, "</s>": 2},
    legacy,
  )


def chat(template="vicuna_v1", **fields) -> Chat:
  return Chat(llama(), template, media_tokens=1, **fields)


def as_original(written):
  """Ids with the mark of an image, and labels."""
  ids = np.where(written.index > 0, IMAGE, written.tokens)
  return ids.tolist(), np.where(written.weights > 0, ids, IGNORED).tolist()


# The others count on a tokenizer of the older kind.
MENDED = ("llava_v1", "v1_mmtag", "vicuna_v1")


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize(
  "template, legacy",
  [(name, True) for name in ORIGINALS] + [(name, False) for name in MENDED],
)
def test_ids_and_labels_are_the_originals(template, turns, legacy):
  turns = TURNS[turns]
  if template == "plain":
    turns = [("<image>", turns[0][1])]
  ours = chat(template, legacy=legacy).write(conversation(turns))
  if template.endswith("mmtag"):
    turns = [
      (q.replace("<image>", "<Image><image></Image>"), a) for q, a in turns
    ]
  system = CHAT_TEMPLATES[template].system
  expected = ORIGINALS[template](slow(llama(), legacy), system, turns)
  assert as_original(ours) == expected


def test_ids_around_an_image_are_those_that_are_known():
  """A lone space on both sides: every chunk is a text of its own."""
  written = chat(system="").write(conversation(TURNS["one"]))
  ids, labels = as_original(written)
  assert ids[:10] == [1, 3148, 1001, 29901, 29871, IMAGE, 29871, 13, 5618, 338]
  assert labels[-4:] == [319, 6635, 29889, 2]
  assert set(labels[:-4]) == {IGNORED}
  assert ids[-9:-4] == [319, 1799, 9047, 13566, 29901]


def test_older_tokenizers_put_a_space_after_the_end_of_an_answer():
  for legacy, user in ((True, [3148, 1001]), (False, [11889])):
    written = chat(legacy=legacy).write(conversation(TURNS["several"]))
    ids = written.tokens.tolist()
    after = ids.index(2) + 1
    assert ids[after : after + len(user)] == user


def test_version_0_learns_where_a_turn_begins():
  ids, labels = as_original(chat("llava_v0").write(conversation(TURNS["one"])))
  at = ids.index(2277)
  assert labels[at : at + 3] == [2277, 29937, IGNORED]
  assert labels[-3:] == [2277, 29937, 29871]


@pytest.mark.parametrize(
  "name, text, digest",
  [
    ("vicuna_v1", "", "1fa69e2371b762d1"),
    ("llava_v1", "", "ace78a978005f68a"),
    ("vicuna_v0", "", "ace78a978005f68a"),
    ("v0_mmtag", "", "563c2a621b1102ed"),
    ("v1_mmtag", "", "563c2a621b1102ed"),
    ("llama_2", "", "d52c188a3c969c4e"),
    ("llava_llama_2", "", "790f4cfc05523b0e"),
    ("mpt", "<|im_start|>system\n", "c20002e5cc3abfc8"),
    ("chatml_direct", "<|im_start|>system\n", "9ce12280308edf14"),
  ],
)
def test_system_texts_are_those_of_the_checkpoints(name, text, digest):
  text += CHAT_TEMPLATES[name].system
  assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def bytes_tokenizer() -> Tokenizer:
  """A character is a token, so that whatever is written can be read."""
  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  backend = tokenizers.Tokenizer(
    models.BPE({c: i for i, c in enumerate(letters)}, [])
  )
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = tokenizers.decoders.ByteLevel()
  return Tokenizer(
    backend,
    added=(
      "<s>",
      "</s>",
      "<|im_start|>",
      "<|im_end|>",
      "<image>",
      "<a>",
      "<b>",
    ),
    eos="</s>",
  )


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("template", ["mpt", "chatml_direct"])
def test_ids_and_labels_of_mpt_are_the_originals(template, turns):
  tokenizer = bytes_tokenizer()
  written = Chat(tokenizer, template, media_tokens=1).write(
    conversation(TURNS[turns])
  )
  counted = Slow(
    tokenizer.encode,
    tokenizer.encode,
    {name: tokenizer.id(name) for name in ("<|im_start|>", "<|im_end|>")},
  )
  system = CHAT_TEMPLATES[template].system
  # The tokens before a text are the template's and not the system text's.
  if not system.startswith("<|im_start|>"):
    system = f"<|im_start|>system\n{system}"
  assert as_original(written) == mpt(counted, system, TURNS[turns])


RENDERED = {
  "vicuna_v1": "S USER: Q1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:",
  "llava_v0": "S###Human: Q1###Assistant: A1###Human: Q2###Assistant:",
  "llava_llama_2": "[INST] <<SYS>>\nS\n<</SYS>>\n\nQ1 [/INST] A1 </s><s>[INST] "
  "Q2 [/INST]",
  "mistral_instruct": "[INST] <<SYS>>\nS\n<</SYS>>\n\nQ1 [/INST] A1 </s>[INST] "
  "Q2 [/INST]",
  "mpt": "<|im_start|>system\nS<|im_end|><|im_start|>user\nQ1<|im_end|>"
  "<|im_start|>assistant\nA1<|im_end|><|im_start|>user\nQ2<|im_end|>"
  "<|im_start|>assistant\n",
}


@pytest.mark.parametrize("template", RENDERED)
def test_a_question_is_written_as_the_original_does(template):
  prompt = Chat(bytes_tokenizer(), template, system="S")
  written = prompt.query(question("Q2", [("Q1", "A1")]))
  text = prompt.tokenizer.decode(written.tokens, special=True)
  assert text == RENDERED[template]


def test_the_first_vicuna_is_shown_an_example_when_it_is_asked():
  """Its text by its hash; it is in no training text, and with no old turn."""
  plain = Chat(bytes_tokenizer(), "llava_v0")
  shown = Chat(bytes_tokenizer(), "vicuna_v0")
  asked = question("Q2", [("Q1", "A1")])
  texts = [
    prompt.tokenizer.decode(prompt.query(asked).tokens)
    for prompt in (plain, shown)
  ]
  system = f"{CHAT_TEMPLATES['llava_v0'].system}###"
  before, after = (text.removeprefix(system) for text in texts)
  example = after.removesuffix(before)
  assert after == example + before and before.startswith("Human: Q1###")
  assert example.startswith("Human: What are the key differences between")
  digest = hashlib.sha256(example.encode()).hexdigest()
  assert len(example) == 1487 and digest[:16] == "16cbb247765fdff3"
  learned = conversation([("Q1", "A1")])
  ids = [prompt.write(learned).tokens for prompt in (plain, shown)]
  np.testing.assert_array_equal(*ids)


@pytest.mark.parametrize("template", CHAT_TEMPLATES)
def test_an_answer_and_what_ends_it_are_learned(template):
  """All that is learned, as text; version 0 learns who speaks, too."""
  prompt = Chat(bytes_tokenizer(), template, media_tokens=2)
  document = conversation([("<image>\nQ1", "A1"), ("Q2", "A2")])
  if "plain" in template:
    document = conversation([("<image>", "A1")])
  written = prompt.write(document)
  learned = prompt.tokenizer.decode(
    written.tokens[written.weights > 0], special=True
  )
  expected = {
    **dict.fromkeys(("plain", "v0_plain"), "A1\n"),
    "mpt": "A1<|im_end|>A2<|im_end|>",
    "chatml": "A1<|im_end|>A2<|im_end|>",
    "chatml_direct": "A1<|im_end|>A2<|im_end|>",
    **dict.fromkeys(
      ("llama_2", "llava_llama_2", "mistral_instruct"), " A1 </s> A2 </s>"
    ),
    **dict.fromkeys(
      ("vicuna_v0", "llava_v0", "v0_mmtag", "default", "v0"),
      "###### Assistant: A1\n###### Assistant: A2\n### ",
    ),
  }
  assert learned == expected.get(template, " A1</s> A2</s>")
  assert (written.index > 0).sum() == 2


def text_of(prompt, written):
  """The text, with `*` for a token of an image."""
  ids = np.where(written.index > 0, prompt.tokenizer.id("*"), written.tokens)
  return prompt.tokenizer.decode(ids, special=True)


def user_turn(prompt, document, rng=None):
  text = text_of(prompt, prompt.write(document, rng))
  return text.removeprefix("USER: ").split(" ASSISTANT:")[0]


def test_images_stand_where_they_are_told_to():
  def made(**fields):
    return Chat(bytes_tokenizer(), media_tokens=2, media=3, system="", **fields)

  after = conversation([("What is it?\n<image>", "A")])
  two = conversation([("one <image> two <image>", "A")])
  alone = conversation([("<image>", "A")])
  assert user_turn(made(), after) == "**\nWhat is it?"
  assert user_turn(made(), two) == "**\n**\none  two"
  assert user_turn(made(), alone) == "**"
  assert user_turn(made(position="data"), after) == "What is it?\n**"
  assert user_turn(made(position="data"), two) == "one ** two **"
  drawn = [
    user_turn(made(position="random"), after, np.random.default_rng(i))
    for i in range(20)
  ]
  assert set(drawn) == {"**\nWhat is it?", "What is it?\n**"}
  around = made(around=("<a>", "<b>"))
  assert user_turn(around, after) == "<a>**<b>\nWhat is it?"


def test_images_are_numbered_in_their_order():
  turns = [("<image> <image>", "A"), ("<image>", "B")]
  written = Chat(llama(), media_tokens=2, media=3).write(conversation(turns))
  index = written.index[written.index > 0]
  assert index.tolist() == [1, 1, 2, 2, 3, 3]
  assert written.media == (0, 1, 2)
  with pytest.raises(ValueError, match="3 images, 2 fit"):
    Chat(llama(), media_tokens=2, media=2).write(conversation(turns))


def test_what_does_not_fit_is_cut_off_and_no_image_in_parts():
  turns = [("<image>\nWhat is it?", "A cat."), ("<image>", "B")]
  whole = Chat(llama(), media_tokens=8, media=2).write(conversation(turns))
  second = int(np.flatnonzero(whole.index == 2)[0])
  cut = Chat(llama(), media_tokens=8, media=2, length=second + 5)
  written = cut.write(conversation(turns))
  assert written.media == (0,)
  np.testing.assert_array_equal(written.tokens, whole.tokens[:second])
  with pytest.raises(ValueError, match="Nothing in document 'x' is learned"):
    Chat(llama(), media_tokens=8, length=9).write(conversation(turns))
  with pytest.raises(ValueError, match="Use overflow='truncate'"):
    Chat(llama(), length=9, overflow="error").write(conversation(turns))


def test_all_conversations_can_weigh_alike():
  for turns in TURNS.values():
    written = chat(loss="example").write(conversation(turns))
    assert written.weights.sum() == pytest.approx(1)
    alike = chat().write(conversation(turns)).weights
    np.testing.assert_array_equal(written.weights > 0, alike > 0)


def test_old_turns_go_when_a_question_does_not_fit():
  before = [("<image>\nFirst", "one"), ("<image>\nSecond", "two")]
  prompt = chat(length=75, media=1)
  with pytest.raises(TooLong, match="Use fewer turns"):
    prompt.query(question("And now?", before))
  written = prompt.query(question("And now?", before), overflow="left")
  alone = prompt.query(question("And now?", before[1:]))
  np.testing.assert_array_equal(written.tokens[1:], alone.tokens[1:])
  assert written.media == (1,)
  with pytest.raises(TooLong):
    chat(length=20).query(question("word " * 30), overflow="left")


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
  "template", ["vicuna_v1", "llava_llama_2", "mistral_instruct"]
)
def test_a_conversation_goes_on_from_what_was_read(template, legacy):
  """Turn by turn the ids are those of the whole, ended answers or not."""
  prompt = chat(template, legacy=legacy, media=2)
  turns = [("<image>\nWhat is it?", "A cat."), ("<image>\nThis?", "B")]
  whole = prompt.query(question(turns[1][0], turns[:1])).tokens
  first = prompt.query(question()).tokens
  answer = prompt.write(conversation(turns[:1])).tokens[len(first) :]
  for ended in (True, False):
    following = prompt.follow(question(turns[1][0]), ended).tokens
    given = answer if ended else answer[:-1]
    together = np.concatenate([first, given, following])
    np.testing.assert_array_equal(together, whole)


def test_what_stands_behind_the_end_of_an_answer_follows_it():
  """ChatML's line ends: the model's last token was the end itself."""
  prompt = Chat(bytes_tokenizer(), "chatml", media_tokens=1, media=2)
  turns = [("<image>\nWhat is it?", "A cat."), ("This?", "B")]
  whole = prompt.query(question(turns[1][0], turns[:1])).tokens
  first = prompt.query(question()).tokens
  answer = prompt.write(conversation(turns[:1])).tokens[len(first) :]
  assert prompt.tokenizer.decode(answer[-1:]) == "\n"
  for ended, given in ((True, answer[:-1]), (False, answer[:-2])):
    following = prompt.follow(question(turns[1][0]), ended).tokens
    together = np.concatenate([first, given, following])
    np.testing.assert_array_equal(together, whole)


def test_answers_end_where_the_template_says():
  assert chat().stops == (2,)
  assert chat("llava_v0").cut(" a cat###Human: b") == " a cat"
  mpt = Chat(bytes_tokenizer(), "mpt")
  names = {mpt.tokenizer.decode([i], special=True) for i in mpt.stops}
  assert names == {"<|im_end|>", "</s>"}


@pytest.mark.parametrize(
  "document, message",
  [
    (Document((Text("A", target=True),), id="x"), "before any question"),
    (Document((), id="x"), "is empty"),
    (question(), "ends with a question"),
  ],
)
def test_what_is_no_conversation_is_refused(document, message):
  with pytest.raises(ValueError, match=message):
    chat().write(document)


def test_bad_settings_are_refused():
  for fields, message in (
    (dict(template="vicuna"), "Unknown chat template"),
    (dict(position="back"), "Unknown position"),
    (dict(loss="row"), "Unknown mean"),
    (dict(around=("<a>",)), "two names or none"),
  ):
    with pytest.raises(ValueError, match=message):
      chat(**fields)
  with pytest.raises(ValueError, match="has no image"):
    chat("plain").write(conversation([("caption", "A cat.")]))
