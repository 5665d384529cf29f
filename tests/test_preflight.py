"""Machines that do not fit together are named before they begin."""

import json

import pytest

from mmjax import preflight


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


@pytest.mark.skipif("not __import__('os').getuid()", reason="root writes all")
def test_a_directory_that_cannot_be_made(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(ValueError, match="is not writable"):
    preflight.check_workdir(tmp_path / "a" / "b")
