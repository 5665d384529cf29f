"""Answers that outlive the process that asked for them."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent import futures

import numpy as np
import pytest

from mmjax.data.document import Document, File, Media, Text
from mmjax.evaluation.ledger import Ledger, Share, digest


def documents(count):
  return [Document((Text(f"question {i}"),), str(i)) for i in range(count)]


class Teller:
  """Answers, and dies after so many calls."""

  def __init__(self, calls=10**6):
    self.left, self.asked = calls, []

  def __call__(self, part):
    if not self.left:
      raise KeyboardInterrupt
    self.left -= 1
    self.asked += [d.id for d in part]
    return [f"answer {d.id}\u2028\ud800" for d in part]


def test_nothing_is_asked_twice_after_a_kill(tmp_path, caplog):
  asked, about = documents(7), {"step": 3}
  straight = Ledger(tmp_path / "a", "x", about).ask(Teller(), asked, 2)
  first, second = Teller(2), Teller()
  ledger = Ledger(tmp_path / "b", "x", about)
  with pytest.raises(KeyboardInterrupt):
    ledger.ask(first, asked, 2)
  path = ledger.folder / "answers-0.jsonl"
  with path.open("a") as file:  # Killed in the middle of a line.
    file.write('{"key": "ab", "te')
  told = []
  again = Ledger(tmp_path / "b", "x", about)
  assert again.ask(second, asked, 2, told.append) == straight
  assert sorted(first.asked + second.asked) == [d.id for d in asked]
  assert told[0] == 4 and told[-1] == 7
  assert "answers-0.jsonl line 5 is cut off" in caplog.text
  # Another question is open, and what is whole after the torn line counts.
  third = Teller()
  Ledger(tmp_path / "b", "x", about).ask(third, documents(8), 2)
  assert third.asked == ["7"]


SLOW = """
import sys, time
from mmjax.evaluation.ledger import Ledger
from tests.evaluation.test_ledger import Teller, documents

def generate(part):
  time.sleep(0.05)
  return Teller()(part)

Ledger(sys.argv[1], "x", {}).ask(generate, documents(1000), 2)
"""


def test_a_process_that_is_killed_has_kept_what_it_was_told(tmp_path):
  child = subprocess.Popen(
    [sys.executable, "-c", SLOW, str(tmp_path)],
    env=os.environ | {"PYTHONPATH": "."},
  )
  end = time.monotonic() + 300
  kept = []
  while len(kept) < 4 and child.poll() is None and time.monotonic() < end:
    time.sleep(0.02)
    kept = [
      line
      for path in tmp_path.glob("x-*/answers-0.jsonl")
      for line in path.read_text().splitlines()
    ]
  child.kill()
  child.wait()
  teller = Teller()
  ledger = Ledger(tmp_path, "x", {})
  ledger.ask(teller, documents(50), 2)
  lines = (ledger.folder / "answers-0.jsonl").read_text().splitlines()
  ids = [json.loads(line)["id"] for line in lines]
  assert len(ids) == len(set(ids)) and len(kept) >= 4
  assert len(teller.asked) <= 46 and set(ids) >= {str(i) for i in range(50)}


def test_another_model_has_a_folder_of_its_own(tmp_path):
  asked = documents(2)
  for step in (3, 4, 3):
    teller = Teller()
    ledger = Ledger(tmp_path, "a/b", {"step": step})
    ledger.ask(teller, asked, 8)
    told = json.loads((ledger.folder / "about.json").read_text())
    assert told == {"step": step}
  assert not teller.asked and len(list(tmp_path.iterdir())) == 2
  assert all(p.name.startswith("a_b-") for p in tmp_path.iterdir())


def test_processes_part_what_is_open(tmp_path):
  asked = documents(7)
  Ledger(tmp_path, "x", {}).ask(Teller(), asked[:2], 8)
  tellers, barrier = [Teller(), Teller()], threading.Barrier(2, timeout=60)

  def run(index):
    ledger = Ledger(tmp_path, "x", {}, Share(index, 2, barrier.wait))
    return ledger.ask(tellers[index], asked, 2)

  with futures.ThreadPoolExecutor(2) as pool:
    first, second = pool.map(run, range(2))
  alone = Ledger(tmp_path / "alone", "x", {}).ask(Teller(), asked, 2)
  assert first == second == alone
  parts = [t.asked for t in tellers]
  assert sorted(sum(parts, [])) == ["2", "3", "4", "5", "6"]
  assert [len(part) for part in parts] == [3, 2]


def test_a_generate_that_forgets_some_is_named(tmp_path):
  with pytest.raises(ValueError, match="1 answers for 2 documents"):
    Ledger(tmp_path, "x", {}).ask(lambda part: ["a"], documents(2), 2)


def test_a_digest_tells_all_that_is_shown():
  pixels = np.zeros((2, 2, 3), np.uint8)
  text = Text("a")
  each = [
    Document((text,), "1"),
    Document((text,), "2"),
    Document((Text("b"),), "1"),
    *(
      Document((Media("image", payload, "", about), text), "1")
      for payload, about in (
        (pixels, {}),
        (pixels + 1, {}),
        (pixels, {"key": 3}),
        (b"x", {}),
        (File("x.png"), {}),
      )
    ),
  ]
  assert len({digest(d) for d in each}) == len(each)
  again = Document((Media("image", pixels.copy()), text), "1")
  assert digest(again) == digest(each[3])
