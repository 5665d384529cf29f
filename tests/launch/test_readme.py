"""What the page on launching tells a user to type is understood."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from launch import __main__ as main

PAGE = Path("launch/README.md").read_text()
IMAGE = "us-east5-docker.pkg.dev/PROJECT/mmjax/mmjax:1"


def commands() -> list[list[str]]:
  """Indented `python -m launch ...`, up to a pipe."""
  joined = re.sub(r"\\\n *", " ", PAGE)
  found = re.findall(r"^    python -m launch (.*)$", joined, re.MULTILINE)
  lines = [line.replace("$IMAGE", IMAGE).split(" | ")[0] for line in found]
  return [shlex.split(line) for line in lines]


COMMANDS = [c for c in commands() if "..." not in c]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_is_understood(command, capsys, monkeypatch):
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  given = [x for x in command if x != "--dry-run"]
  assert main.main([*given, "--dry-run"]) == 0, capsys.readouterr().err


def test_every_target_is_shown():
  assert {command[0] for command in COMMANDS} == set(main.TARGETS)


def test_names_that_other_commands_use():
  name = main._name("configs/contrastive/tiny.py")
  sets = re.findall(r"(?:jobset-name=|jobset )([a-z0-9-]+)", PAGE)
  assert set(sets) == {name}


def test_links_and_files_are_there():
  for path in re.findall(r"\]\(([\w./]+)\)", PAGE):
    assert (Path("launch") / path).exists(), path
  for path in set(re.findall(r"(?:launch|configs)/[\w/]+\.\w+", PAGE)):
    assert Path(path).exists(), path


def test_the_setup_of_gke_fits_its_commands():
  queue, claim = (
    next(c[c.index(flag) + 1] for c in COMMANDS if flag in c)
    for flag in ("--queue", "--claim")
  )
  text = Path("launch/gke_setup.yaml").read_text()
  made = {(x["kind"], x["metadata"]["name"]) for x in yaml.safe_load_all(text)}
  assert ("LocalQueue", queue) in made
  assert ("PersistentVolumeClaim", claim) in made
