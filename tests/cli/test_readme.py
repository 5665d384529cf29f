"""What README and the recipes tell a user to type is understood."""

import re
import shlex
from pathlib import Path

import pytest

from mmjax.cli.arguments import make_parser, take_changes
from mmjax.cli.configs import load, parted

PAGES = ("README.md", "CONTRIBUTING.md", "configs/flamingo/folder.py")
README, CONTRIBUTING, _ = TEXTS = [Path(page).read_text() for page in PAGES]


def commands(text):
  """Indented `mmjax ...`, with the lines that they go on in."""
  joined = re.sub(r"\\+\n", " ", text)
  return re.findall(r"^ {2,4}mmjax (?!convert SRC)(.*)$", joined, re.MULTILINE)


@pytest.mark.parametrize("line", [c for text in TEXTS for c in commands(text)])
def test_a_command_is_understood(line):
  given, changes = take_changes(shlex.split(line))
  args = make_parser().parse_args(given)
  config = getattr(args, "config", None)
  # What stands for a folder of the reader's is not there.
  if config and "/" not in (parted(config)[1] or ""):
    load(config, changes)
  assert args.verb == given[0]


def test_commands_are_found():
  assert [len(commands(text)) > 1 for text in TEXTS] == [True, False, True]


@pytest.mark.parametrize("text", [README, CONTRIBUTING])
def test_links_and_named_files_are_there(text):
  links = re.findall(r"\]\(([\w./]+)\)", text)
  named = re.findall(r"(?:mmjax|configs|tests|benchmarks)/[\w/]+\.\w+", text)
  assert len(links) > 1
  for path in links + named:
    assert "NAME" in path or Path(path).exists(), path


def test_named_tables_are_there():
  """`NAME` in, or of, `file.py`, below mmjax or one of its folders."""
  found = re.findall(r"`(\w+)` (?:in|of) `([\w/]+\.py)`", CONTRIBUTING)
  assert len(found) > 8
  for name, path in found:
    files = [Path(path), *Path("mmjax").glob(f"**/{path}")]
    files += Path("tests").glob(f"**/{path}")
    text = "\n".join(f.read_text() for f in files if f.exists())
    assert re.search(rf"^{name}\b", text, re.MULTILINE), (name, path)
