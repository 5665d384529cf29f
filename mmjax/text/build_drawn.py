"""Writes the word-level tokenizer of the drawn set.

  python -m mmjax.text.build_drawn

A token is what stands between two spaces, in lower case, so that decoding
gives the text back. The words come from the names, groups and made-up words
of the drawn set, and from the prompts.
"""

import json
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from mmjax.text.tokenizer import DRAWN

ASSETS = Path(__file__).parents[1] / "data" / "assets" / "drawn"
# Not words of the model, so that no text can turn into them.
SPECIAL = ("<s>", "</s>", "<pad>")
UNKNOWN = "<unk>"
# Words of the prompts, and a few to write prompts of one's own.
WORDS = """
Output: Question: Answer: what kind? which group? what name? what kind of thing
is it? which group is it in?
what is it called? a an the this that it is are not and or no yes in on with
image picture drawing : , . ? ! one two three four
"""


def vocabulary() -> dict[str, int]:
  texts = [WORDS, (ASSETS / "words.txt").read_text()]
  for line in (ASSETS / "concepts.jsonl").read_text().splitlines():
    row = json.loads(line)
    texts += [row["name"], row["category"], row["subcategory"]]
  words = sorted({w for text in texts for w in text.lower().split()})
  return {w: i for i, w in enumerate((UNKNOWN, *words))}


def make() -> tokenizers.Tokenizer:
  backend = tokenizers.Tokenizer(
    models.WordLevel(vocabulary(), unk_token=UNKNOWN)
  )
  backend.normalizer = normalizers.Lowercase()
  backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  backend.add_special_tokens(list(SPECIAL))
  return backend


def main() -> None:
  backend = make()
  DRAWN.parent.mkdir(exist_ok=True)
  backend.save(str(DRAWN))
  print(f"{backend.get_vocab_size()} tokens in {DRAWN}")


if __name__ == "__main__":
  main()
