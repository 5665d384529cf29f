"""Machines that do not fit together are named before they begin."""

import json
import os
import socket
import tempfile
from pathlib import Path

import pytest

from mmjax import preflight
from tests.fits import NOBODY
from tests.job import Job


def test_what_is_different_is_named():
  first = preflight.facts()
  second = first | {"host": "b", "jax": "0.1", "number of devices": 3}
  assert preflight.odd_ones([first, first | {"host": "c"}]) == []
  problems = preflight.odd_ones([first, first, second])
  assert len(problems) == 2
  assert problems[0].startswith("process 2 on b has jax 0.1, process 0 on ")


def test_keys_of_a_config_that_differ():
  one = {"train": {"plan": {"steps": 3}}, "seed": 0}
  two = {"train": {"plan": {"steps": 4}}, "seed": 0}
  texts = [json.dumps(config) for config in (one, one, two)]
  told = [{"host": "abc"[i], "config": text} for i, text in enumerate(texts)]
  assert preflight.changed_keys(texts, told) == [
    "process 2 on c has another config.train.plan.steps"
  ]
  # Where there is no room for all of it, the hashes still tell.
  cut = [texts[0][:9], texts[2][:9]]
  (problem,) = preflight.changed_keys(cut, [told[0], told[2]])
  assert problem == "process 1 on c has another config"


def refused(workdir, *how, devices=1) -> str:
  """The last line of processes that do not fit, which is that of all."""
  shape = dict(processes=len(how), devices=devices)
  with Job("tests.fits", str(workdir), list(how), **shape) as job:
    assert job.codes() == [1] * len(how), job.said
  (line,) = {said.splitlines()[-1] for said in job.said}
  return line


def test_processes_that_fit(tmp_path):
  with Job("tests.fits", str(tmp_path), {}, processes=2, devices=1) as job:
    assert job.codes() == [0, 0], job.said
  assert not list(tmp_path.iterdir())


def test_another_version_on_one_machine(tmp_path):
  line = refused(tmp_path, {}, {"facts": {"jax": "0.1"}})
  assert "do not fit together: process 1 on " in line
  assert " has jax 0.1, process 0 on " in line


def test_another_number_of_devices_on_one_machine(tmp_path):
  line = refused(tmp_path, {}, {}, devices=[2, 1])
  assert "has number of devices 1, process 0 on " in line


@pytest.mark.parametrize("processes", [1, 2])
def test_fewer_devices_than_were_asked_for(processes, tmp_path):
  line = refused(tmp_path, *[{"asked": 4}] * processes)
  assert "has 1 device(s) (cpu), but 4 were asked for" in line
  assert line.count("asked for") == processes


@pytest.fixture
def closed():
  """A directory of root's that nobody can read and no one else can write."""
  path = Path(tempfile.mkdtemp())
  path.chmod(0o555)
  yield path
  path.rmdir()


@pytest.mark.skipif("__import__('os').getuid()", reason="only root can change")
def test_one_process_may_not_write(closed):
  line = refused(closed / "run", {}, {"nobody": True})
  assert f"process 1 on {socket.gethostname()} cannot write in {closed}" in line
  assert "Permission denied" in line
  (closed / "run").rmdir()


def test_a_directory_that_cannot_be_made(closed):
  ids = os.getresuid()
  if not ids[0]:  # Root writes everywhere.
    os.setresuid(NOBODY, NOBODY, 0)
  try:
    with pytest.raises(ValueError, match="cannot be made: .* is not writable"):
      preflight.check_workdir(closed / "a" / "b")
  finally:
    os.setresuid(*ids)
