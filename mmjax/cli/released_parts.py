"""What all folders have in common that `mmjax convert` wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmjax.convert.read import read_json


def default_dtype() -> str:
  """Of weights and computation, for want of another."""
  return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def tokenizer_files(folder: Path) -> tuple[dict[str, Any], Path]:
  """What the files beside a tokenizer say, and where to read it."""
  settings: dict[str, Any] = {}
  for name in ("special_tokens_map.json", "tokenizer_config.json"):
    if (folder / name).is_file():
      read = read_json(folder / name)
      settings |= {k: v for k, v in read.items() if v is not None}
  if (folder / "tokenizer_config.json").is_file():
    return settings, folder
  # The folder's config.json is ours, and does not say of which kind it is.
  path = folder / "tokenizer.json"
  if not path.is_file():
    raise ValueError(
      f"There is no tokenizer in {folder}. Copy tokenizer_config.json and "
      "tokenizer.json or tokenizer.model of the model there."
    )
  return settings, path


def name_of(token: Any) -> str | None:
  """A special token's name, as it is or among its other settings."""
  return token.get("content") if isinstance(token, Mapping) else token
