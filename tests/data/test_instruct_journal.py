"""Folders of instruction data after a kill, and of other hands."""

import contextlib
import json
import subprocess
import sys
import threading
import time

import pytest

from mmjax.data.instruct import journal
from mmjax.data.instruct.journal import Journal
from tests.data.instructing import (
  SETTINGS,
  Server,
  check_output,
  lines,
  run,
  wanted,
)


def full_folder(folder, count=4):
  with Server().running() as server:
    run(folder, server, wanted(count, ["detail"]))
  return folder / journal.NAME


@pytest.mark.parametrize("torn", [1, 30, -1], ids=["byte", "part", "newline"])
def test_a_torn_last_line_is_done_anew(tmp_path, torn, caplog):
  path = full_folder(tmp_path)
  *whole, last = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join(whole) + last[:torn])
  with Server().running() as server:
    assert run(tmp_path, server, wanted(4, ["detail"])).done == 4
    assert server.asked == {(json.loads(last)["id"], "detail"): 1}
  assert "unfinished line" in caplog.text
  assert len(lines(tmp_path)) == 4
  check_output(tmp_path, wanted(4, ["detail"]))


@pytest.mark.parametrize(
  "change",
  [
    {"prompt_tokens": None},
    {"completion_tokens": 10**400},
    {"completion_tokens": True},
    {"id": None},
    {"kind": 3},
    {"status": "other"},
    {"status": "rejected"},
    {"status": "rejected", "reason": ["none"]},
  ],
  ids=str,
)
def test_a_last_line_of_something_else_is_done_anew(tmp_path, change):
  """It leaves no trace in what is known."""
  path = full_folder(tmp_path)
  *whole, last = path.read_bytes().splitlines(keepends=True)
  wrong = json.dumps({**json.loads(last), **change}).encode()
  path.write_bytes(b"".join(whole) + wrong + b"\n")
  found = journal.read(tmp_path, SETTINGS)
  assert len(found.done) == 3 and not found.rejected
  assert found.prompt_tokens == 300 and found.size == len(b"".join(whole))
  with Server().running() as server:
    assert run(tmp_path, server, wanted(4, ["detail"])).done == 4
    assert server.asked.total() == 1
  check_output(tmp_path, wanted(4, ["detail"]))


@pytest.mark.parametrize("content", [b"{}\n", b"\0\0\n", b'["id"]\n'])
def test_a_damaged_line_in_the_middle_is_told(tmp_path, content):
  path = full_folder(tmp_path)
  whole = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join([whole[0], content, *whole[2:]]))
  with pytest.raises(ValueError, match=r"journal\.jsonl, line 2 is damaged"):
    Journal(tmp_path, SETTINGS)
  # It did not keep the folder.
  path.write_bytes(b"".join(whole))
  Journal(tmp_path, SETTINGS).close()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(model="n"), "model was 'm', is 'n'"),
    (dict(prompts="x"), "prompts was"),
    (dict(data="other"), "data was 'data', is 'other'"),
    (dict(temperature=0.0, seed=1), "seed was 0, is 1; temperature was 1.0"),
  ],
)
def test_other_settings_are_refused(tmp_path, change, message):
  path = full_folder(tmp_path)
  before = path.read_bytes()
  with pytest.raises(ValueError, match=message):
    Journal(tmp_path, {**SETTINGS, **change})
  assert path.read_bytes() == before
  # As they are, they are not.
  Journal(tmp_path, json.loads(json.dumps(SETTINGS))).close()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
  (tmp_path / journal.NAME).write_text("mine")
  with pytest.raises(ValueError, match=r"no settings\.json"):
    Journal(tmp_path, SETTINGS)
  assert (tmp_path / journal.NAME).read_text() == "mine"
  (tmp_path / "settings.json").write_text("{")
  with pytest.raises(ValueError, match=r"settings\.json is damaged"):
    Journal(tmp_path, SETTINGS)


def test_a_folder_has_one_process(tmp_path):
  with Journal(tmp_path, SETTINGS):
    with pytest.raises(ValueError, match="Another process is at work"):
      Journal(tmp_path, SETTINGS)
    # Looking is allowed.
    assert not journal.read(tmp_path, SETTINGS).done
  Journal(tmp_path, SETTINGS).close()


CHILD = """
import sys
from tests.data import instructing as t
t.run(sys.argv[1], t.Address(sys.argv[2]), t.wanted(20))
"""


@contextlib.contextmanager
def child(folder, server):
  process = subprocess.Popen(
    [sys.executable, "-c", CHILD, str(folder), server.url],
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    yield process
  finally:
    process.kill()
    process.communicate()


def test_a_killed_run_goes_on(tmp_path):
  """Only what was under way, four at most, may be asked about again."""
  jobs, killed = wanted(20), threading.Event()
  kills = iter((7, 25, 40))
  limit = next(kills)

  def bad(key, number):
    time.sleep(0.01)
    if limit and server.asked.total() >= limit:
      process.kill()
      killed.set()

  server = Server(bad)
  with server.running():
    again = 0
    while limit:
      killed.clear()
      with child(tmp_path, server) as process:
        assert killed.wait(20)
        process.wait()
      server.settle()
      before = server.asked.copy()
      content = (tmp_path / journal.NAME).read_bytes()
      kept = content[: content.rfind(b"\n") + 1].splitlines()
      keys = [(x["id"], x["kind"]) for x in map(json.loads, kept)]
      assert len(keys) == len(set(keys))
      again += 4
      assert before.total() - len(keys) <= again
      limit = next(kills, 0)
    with child(tmp_path, server) as process:
      _, said = process.communicate(timeout=30)
      assert process.returncode == 0, said
    # What stood in the journal was never asked about again.
    assert all(server.asked[key] == before[key] for key in keys)
  assert server.asked.total() <= len(jobs) + again
  assert len(lines(tmp_path)) == len(jobs)
  check_output(tmp_path, jobs)
