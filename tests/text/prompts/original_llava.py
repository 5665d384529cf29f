"""What llava/train/train.py makes of a conversation, stated anew.

It writes the whole conversation, tokenizes what lies between images, and then
looks for what is learned by tokenizing pieces again and counting.
"""

from collections.abc import Callable

IMAGE = -200
IGNORED = -100
Ids = list[int]


class Slow:
  """A LLaMA tokenizer as Python code around SentencePiece.

  Args:
    encode: of a text that is not cut, with a space put before it.
    pieces: the same without that space.
    specials: names of special tokens to their ids; a text begins with "<s>"
      if there is one.
    legacy: whether text after a special token begins with that space.
  """

  def __init__(
    self,
    encode: Callable[[str], Ids],
    pieces: Callable[[str], Ids],
    specials: dict[str, int],
    legacy: bool = True,
  ):
    self.encode, self.pieces = encode, pieces
    self.specials, self.legacy = specials, legacy
    self.first = [specials["<s>"]] if "<s>" in specials else []

  def __call__(self, text: str) -> Ids:
    """With the first token, as the tokenizer is called."""
    ids, first = list(self.first), True
    while text:
      found = [(text.find(s), s) for s in self.specials if s in text]
      at, special = min(found, default=(len(text), ""))
      if at:
        spaced = first or self.legacy
        ids += self.encode(text[:at]) if spaced else self.pieces(text[:at])
      if special:
        ids.append(self.specials[special])
      text, first = text[at + len(special) :], False
    return ids

  def with_images(self, text: str) -> Ids:
    """`tokenizer_image_token`."""
    ids = list(self.first)
    for i, chunk in enumerate(text.split("<image>")):
      ids += [IMAGE] * (i > 0) + self(chunk)[len(self.first) :]
    return ids


def vicuna_v1(slow: Slow, system: str, turns: list[tuple[str, str]]):
  """`preprocess_v1`."""
  text = system + " "
  for question, answer in turns:
    text += f"USER: {question} ASSISTANT: {answer}</s>"
  ids = slow.with_images(text)
  labels, at = list(ids), 1
  labels[0] = IGNORED
  for i, round_ in enumerate(text.split("</s>")[:-1]):
    asked = round_.split(" ASSISTANT: ")[0] + " ASSISTANT: "
    length = len(slow.with_images(round_))
    instruction = len(slow.with_images(asked)) - 2
    if i and not slow.legacy:
      length, instruction = length - 1, instruction - 1
    labels[at : at + instruction] = [IGNORED] * instruction
    at += length
  assert at == len(ids), "tokenization mismatch"
  return ids, labels


def llama_2(slow: Slow, system: str, turns: list[tuple[str, str]]):
  """`preprocess_llama_2`."""
  text = ""
  for i, (question, answer) in enumerate(turns):
    asked = question if i else f"<<SYS>>\n{system}\n<</SYS>>\n\n{question}"
    text += f"{'<s>' if i else ''}[INST] {asked} [/INST] {answer} </s>"
  ids = slow.with_images(text)
  labels, at = list(ids), 1
  labels[0] = IGNORED
  for round_ in text.split("</s>")[:-1]:
    asked = round_.split("[/INST] ")[0] + "[/INST] "
    instruction = len(slow.with_images(asked)) - 2
    labels[at : at + instruction] = [IGNORED] * instruction
    at += len(slow.with_images(round_))
  assert at == len(ids), "tokenization mismatch"
  return ids, labels


def v0(slow: Slow, system: str, turns: list[tuple[str, str]]):
  """`_add_speaker_and_signal` and `_mask_targets`."""
  header = f"{system}\n\n"
  said = [
    f"### {name}: {text}\n"
    for turn in turns
    for name, text in zip(("Human", "Assistant"), turn)
  ]
  ids = slow.with_images(header + "".join(said) + "### ")
  labels = list(ids)
  at = len(slow.with_images(header))
  labels[:at] = [IGNORED] * at
  for i, text in enumerate(said):
    length = len(slow.with_images(text))
    if i % 2 == 0:
      labels[at + 2 : at + length] = [IGNORED] * (length - 2)
    at += length
  return ids, labels


def mpt(slow: Slow, system: str, turns: list[tuple[str, str]]):
  """`preprocess_mpt`, with a tokenizer that begins no text with a token."""
  end, answers = "<|im_end|>", "<|im_end|><|im_start|>assistant\n"
  text = system + end
  for question, answer in turns:
    text += f"<|im_start|>user\n{question}{answers}{answer}{end}"
  ids = slow.with_images(text)
  labels, at = list(ids), 0
  # The system text belongs to the first round.
  said = text.split(end)[:-1]
  rounds = [said[:3], *(said[i : i + 2] for i in range(3, len(said), 2))]
  for round_ in map(end.join, rounds):
    asked = round_.split(answers)[0] + answers
    instruction = len(slow.with_images(asked))
    labels[at : at + instruction] = [IGNORED] * instruction
    at += len(slow.with_images(round_)) + len(slow.with_images(end))
  assert at == len(ids), "tokenization mismatch"
  return ids, labels


def plain(slow: Slow, system: str, turns: list[tuple[str, str]]):
  """`preprocess_plain`."""
  del system
  [(_, caption)] = turns
  ids = slow.with_images(f"<image>{caption}\n")
  return ids, [IGNORED, IGNORED, *ids[2:]]


ORIGINALS = {
  "llama_2": llama_2,
  "llava_llama_2": llama_2,
  "llava_v0": v0,
  "llava_v1": vicuna_v1,
  "plain": plain,
  "v1_mmtag": vicuna_v1,
  "vicuna_v1": vicuna_v1,
}
