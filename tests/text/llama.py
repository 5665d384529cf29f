"""LLaMA's tokenizer, for the ids that its users know.

Its vocabulary may not be passed on with this library; a package of npm,
llama-tokenizer-js (MIT), has it. Tests that need it are left out without npm.
"""

import base64
import functools
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers

from mmjax.text.tokenizer import Tokenizer

PACKAGE = "llama-tokenizer-js@1.2.2"


def backend() -> tokenizers.Tokenizer:
  """32,000 pieces, byte fallback, a space before every text."""
  source = _source()
  vocabulary, merges = (
    base64.b64decode(re.search(f'{name} = "([^"]+)"', source)[1])
    for name in ("llama_vocab_base64", "llama_merges_binary")
  )
  pieces = vocabulary.decode().split("\n")
  assert len(pieces) == 32_000 and pieces[:3] == ["<unk>", "<s>", "</s>"]
  pairs = memoryview(merges).cast("H").tolist()
  model = models.BPE(
    {piece: i for i, piece in enumerate(pieces)},
    [(pieces[a], pieces[b]) for a, b in zip(pairs[::2], pairs[1::2])],
    unk_token="<unk>",
    fuse_unk=True,
    byte_fallback=True,
  )
  made = tokenizers.Tokenizer(model)
  made.normalizer = normalizers.Sequence(
    [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
  )
  made.decoder = decoders.Sequence(
    [
      decoders.Replace("▁", " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(" ", 1, 0),
    ]
  )
  made.add_special_tokens(["<unk>", "<s>", "</s>"])
  return made


@functools.cache
def llama() -> Tokenizer:
  return Tokenizer(backend(), bos="<s>", eos="</s>", pad="<unk>")


@functools.cache
def _source() -> str:
  root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
  path = root / "mmjax" / f"{PACKAGE}.js"
  if not path.is_file():
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(_fetched())
    part.rename(path)
  return path.read_text()


def _fetched() -> str:
  npm = shutil.which("npm")
  if npm is None:
    pytest.skip("LLaMA's vocabulary comes from npm, which is not here")
  with tempfile.TemporaryDirectory() as folder:
    command = [npm, "pack", PACKAGE, "--pack-destination", folder]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
      file = archive.extractfile("package/llama-tokenizer.js")
      return file.read().decode()
