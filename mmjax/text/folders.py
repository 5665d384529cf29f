"""Tokenizers of Hugging Face's folders.

One file, tokenizer.json, needs nothing. Whatever else there is (vocab.json and
merges.txt, vocab.txt, SentencePiece's tokenizer.model, tokens added in
tokenizer_config.json) is put together by transformers: without network, and
without running code of the folder.
"""

from pathlib import Path

import tokenizers

_PLAIN = "tokenizer.json"
# What tells transformers which kind of tokenizer the files are for.
_CONFIGS = ("tokenizer_config.json", "config.json")


def read(path: Path) -> tokenizers.Tokenizer:
  """The tokenizer of a file or a folder.

  Raises:
    ValueError: when it is not there, damaged, or of a kind that cannot be told.
  """
  if path.is_dir() and any((path / name).is_file() for name in _CONFIGS):
    return _assembled(path)
  file = path / _PLAIN if path.is_dir() else path
  if path.is_dir() and not file.is_file() and any(path.iterdir()):
    raise ValueError(
      f"No tokenizer at {path}: it has no {_PLAIN}, and for other files a "
      f"{_CONFIGS[0]} must say of which kind they are, such as "
      '{"tokenizer_class": "GPT2Tokenizer"}.'
    )
  if not file.is_file():
    raise ValueError(
      f"No tokenizer at {path}. Give a {_PLAIN} or a tokenizer's folder."
    )
  try:
    return tokenizers.Tokenizer.from_file(str(file))
  except Exception as error:  # The binding raises nothing narrower.
    hint = "" if file.suffix == ".json" else " Give its folder."
    raise ValueError(f"{file} is no {_PLAIN}: {error}.{hint}") from error


def _assembled(folder: Path) -> tokenizers.Tokenizer:
  """What transformers makes of all files of a folder."""
  # Takes seconds to import.
  import transformers

  try:
    made = transformers.AutoTokenizer.from_pretrained(
      str(folder.absolute()), local_files_only=True, trust_remote_code=False
    )
  except Exception as error:  # It lets out whatever its many readers raise.
    raise ValueError(
      f"transformers reads no tokenizer from {folder}: "
      f"{type(error).__name__}: {str(error).strip()}"
    ) from error
  backend = getattr(made, "backend_tokenizer", None)
  if not isinstance(backend, tokenizers.Tokenizer):
    raise ValueError(
      f"{folder} holds a {type(made).__name__}, which has no fast tokenizer. "
      "tokenizer.model files need sentencepiece: pip install sentencepiece"
    )
  return backend
