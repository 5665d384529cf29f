"""A word-level tokenizer for tables that can be read."""

import tokenizers
from tokenizers import models, pre_tokenizers

from mmjax.text.tokenizer import Tokenizer

WORDS = ("<unk>", "a", "dog", "cat", "sits", "runs", "image", "Output:", "x")


def words(added=("<EOC>", "<image>"), specials=True) -> Tokenizer:
  """Words split at spaces and at `<`, `>`; `<image>` is three tokens."""
  vocabulary = {w: i for i, w in enumerate((*WORDS, "<", ">", "\n"))}
  backend = tokenizers.Tokenizer(
    models.WordLevel(vocabulary, unk_token="<unk>")
  )
  backend.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split("<", "isolated"),
      pre_tokenizers.Split(">", "isolated"),
      pre_tokenizers.Split("\n", "isolated"),
      pre_tokenizers.Split(" ", "removed"),
    ]
  )
  if specials:
    backend.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(backend, added=added, bos="<s>", eos="</s>")
  return Tokenizer(backend, added=added)


def names(tokenizer: Tokenizer, ids) -> list[str]:
  return [tokenizer.decode([i], special=True) for i in ids]
