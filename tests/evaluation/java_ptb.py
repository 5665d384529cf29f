"""Runs the original caption tokenizer, where java and its jar are."""

import importlib.util
import shutil


def missing() -> str | None:
  """Why the original cannot run here, or None."""
  if shutil.which("java") is None:
    return "no java on this machine; the recorded table is tested instead"
  if importlib.util.find_spec("pycocoevalcap") is None:
    return "pycocoevalcap is not installed; the recorded table is tested"
  return None


def captions(lines: list[str]) -> list[str]:
  """The official tokens of each caption, joined by spaces."""
  from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

  table = {i: [{"caption": line}] for i, line in enumerate(lines)}
  made = PTBTokenizer().tokenize(table)
  return [made[i][0] for i in range(len(lines))]
