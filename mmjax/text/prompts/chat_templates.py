"""How conversations are written: LLaVA's templates as data.

A template is a row of pieces for what opens a conversation, for a turn of the
user and for one of the assistant. `{system}` and `{text}` are filled in:

  vicuna_v1   "{system} "   "USER: {text} "   "ASSISTANT:" " {text}"* </s>*
              opening       user              assistant

Pieces with a star are learned. Special tokens are pieces of their own. System
texts are part of what a checkpoint was trained with, and stand here as they
were published (llava/conversation.py, Apache-2.0).
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Piece:
  """A part of a conversation.

  Attributes:
    text: with `{system}` or `{text}` in it, or the name of a special token.
    learned: whether a model is trained to say it.
    special: a token of its own.
  """

  text: str
  learned: bool = False
  special: bool = False


def _text(text: str) -> Piece:
  return Piece(text)


def _learned(text: str) -> Piece:
  return Piece(text, learned=True)


def _special(name: str) -> Piece:
  return Piece(name, special=True)


def _end(name: str) -> Piece:
  return Piece(name, learned=True, special=True)


Pieces = tuple[Piece, ...]


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
  """A way to write conversations.

  Attributes:
    user: a turn of the user.
    assistant: a turn of the assistant; the pieces before its `{text}` are what
      a question ends with.
    opening: what comes first, left out without a system text; an example of a
      conversation belongs to it.
    system: its text.
    first_user: the first turn of the user, where it is another.
    closing: what comes last in training.
    stop: a text that ends an answer, where no token does.
    images_only: of the user's turn only images are written (the captions of
      stage 1).
    wrap: what is written around each image.
    asks: how a question is written, where it is not as in training.
  """

  user: Pieces
  assistant: Pieces
  opening: Pieces = ()
  system: str = ""
  first_user: Pieces | None = None
  closing: Pieces = ()
  stop: str = ""
  images_only: bool = False
  wrap: tuple[str, str] = ("", "")
  asks: "ChatTemplate | None" = None


_HELPFUL = (
  "A chat between a curious {0} and an artificial intelligence assistant. "
  "The assistant gives helpful, detailed, and polite answers to the {0}'s "
  "questions."
)
USER_SYSTEM = _HELPFUL.format("user")
HUMAN_SYSTEM = _HELPFUL.format("human")
# The missing space before the last sentence is the original's.
TAG_SYSTEM = (
  "A chat between a curious user and an artificial intelligence assistant. "
  "The assistant is able to understand the visual content that the user "
  "provides, and assist the user with a variety of tasks using natural "
  "language.The visual content will be provided with the following format: "
  "<Image>visual content</Image>."
)
LLAMA_2_SYSTEM = (
  "You are a helpful, respectful and honest assistant. Always answer as "
  "helpfully as possible, while being safe.  Your answers should not include "
  "any harmful, unethical, racist, sexist, toxic, dangerous, or illegal "
  "content. Please ensure that your responses are socially unbiased and "
  "positive in nature.\n\nIf a question does not make any sense, or is not "
  "factually coherent, explain why instead of answering something not correct. "
  "If you don't know the answer to a question, please don't share false "
  "information."
)
LLAVA_LLAMA_2_SYSTEM = (
  "You are a helpful language and vision assistant. You are able to understand "
  "the visual content that the user provides, and assist the user with a "
  "variety of tasks using natural language."
)
MPT_SYSTEM = (
  "A conversation between a user and an LLM-based AI assistant. The assistant "
  "gives helpful and honest answers."
)
CHATML_SYSTEM = "Answer the questions."
TAGS = ("<Image>", "</Image>")
# What the first Vicuna was shown before any question.
EXAMPLE_QUESTION = (
  "What are the key differences between renewable and non-renewable energy "
  "sources?"
)
EXAMPLE_ANSWER = (
  "Renewable energy sources are those that can be replenished naturally in a "
  "relatively short amount of time, such as solar, wind, hydro, geothermal, "
  "and biomass. Non-renewable energy sources, on the other hand, are finite "
  "and will eventually be depleted, such as coal, oil, and natural gas. Here "
  "are some key differences between renewable and non-renewable energy "
  "sources:\n"
  "1. Availability: Renewable energy sources are virtually inexhaustible, "
  "while non-renewable energy sources are finite and will eventually run out.\n"
  "2. Environmental impact: Renewable energy sources have a much lower "
  "environmental impact than non-renewable sources, which can lead to air and "
  "water pollution, greenhouse gas emissions, and other negative effects.\n"
  "3. Cost: Renewable energy sources can be more expensive to initially set "
  "up, but they typically have lower operational costs than non-renewable "
  "sources.\n"
  "4. Reliability: Renewable energy sources are often more reliable and can be "
  "used in more remote locations than non-renewable sources.\n"
  "5. Flexibility: Renewable energy sources are often more flexible and can be "
  "adapted to different situations and needs, while non-renewable sources are "
  "more rigid and inflexible.\n"
  "6. Sustainability: Renewable energy sources are more sustainable over the "
  "long term, while non-renewable sources are not, and their depletion can "
  "lead to economic and social instability.\n"
)
EXAMPLE = f"Human: {EXAMPLE_QUESTION}###Assistant: {EXAMPLE_ANSWER}###"


def _two(system: str, **fields) -> ChatTemplate:
  """Vicuna from version 1.1 on."""
  return ChatTemplate(
    opening=(_text("{system} "),),
    user=(_text("USER: {text} "),),
    assistant=(_text("ASSISTANT:"), _learned(" {text}"), _end("</s>")),
    system=system,
    **fields,
  )


def _single(system: str, example: str = "", **fields) -> ChatTemplate:
  """Vicuna before it; trained with other spaces than it is asked with.

  What ends an answer is the beginning of the next turn, which is learned
  therefore, and so is the name of who speaks.

  Args:
    system: its text.
    example: turns that stand before a question, and in no training text.
    **fields: of the template.
  """
  asks = ChatTemplate(
    opening=(_text("{system}###" + example),),
    user=(_text("Human: {text}###"),),
    assistant=(_text("Assistant:"), _learned(" {text}"), _learned("###")),
    system=system,
    stop="###",
    **fields,
  )
  return ChatTemplate(
    opening=(_text("{system}\n\n"),),
    user=(_learned("###"), _text(" Human: {text}\n")),
    assistant=(_learned("### Assistant: {text}\n"),),
    closing=(_learned("### "),),
    system=system,
    stop="###",
    asks=asks,
    **fields,
  )


def _instruct(system: str, begin: Pieces) -> ChatTemplate:
  """LLaMA 2 and Mistral: the system text is within the first turn."""
  return ChatTemplate(
    first_user=(_text("[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{text} [/INST]"),),
    user=(*begin, _text("[INST] {text} [/INST]")),
    assistant=(_learned(" {text} "), _end("</s>")),
    system=system,
  )


def _chatml(system: str) -> ChatTemplate:
  """MPT-chat's."""
  start, end = "<|im_start|>", "<|im_end|>"
  return ChatTemplate(
    opening=(_special(start), _text("system\n{system}"), _special(end)),
    user=(_special(start), _text("user\n{text}"), _special(end)),
    assistant=(
      _special(start),
      _text("assistant\n"),
      _learned("{text}"),
      _end(end),
    ),
    system=system,
  )


def _lines() -> ChatTemplate:
  """ChatML with a line's end behind every turn: SmolLM2, Qwen."""
  plain = _chatml("")
  end = Piece("\n")
  return dataclasses.replace(
    plain,
    opening=(*plain.opening, end),
    user=(*plain.user, end),
    assistant=(*plain.assistant, end),
  )


_BOS = (_special("<s>"),)
CHAT_TEMPLATES = {
  "chatml": _lines(),
  "chatml_direct": _chatml(CHATML_SYSTEM),
  "llama_2": _instruct(LLAMA_2_SYSTEM, _BOS),
  "llava_llama_2": _instruct(LLAVA_LLAMA_2_SYSTEM, _BOS),
  "llava_v0": _single(HUMAN_SYSTEM),
  "llava_v1": _two(HUMAN_SYSTEM),
  "mistral_instruct": _instruct("", ()),
  "mpt": _chatml(MPT_SYSTEM),
  "plain": ChatTemplate(
    user=(_text("{text}"),),
    assistant=(_learned("{text}\n"),),
    stop="\n",
    images_only=True,
  ),
  "v0_mmtag": _single(TAG_SYSTEM, wrap=TAGS),
  "v1_mmtag": _two(TAG_SYSTEM, wrap=TAGS),
  "vicuna_v0": _single(HUMAN_SYSTEM, EXAMPLE),
  "vicuna_v1": _two(USER_SYSTEM),
}
# What else the original's `--version` and `--conv-mode` call them.
_ALSO = {
  "default": "vicuna_v0",
  "v0": "vicuna_v0",
  "v0_plain": "plain",
  "v1": "vicuna_v1",
}
CHAT_TEMPLATES |= {also: CHAT_TEMPLATES[name] for also, name in _ALSO.items()}
