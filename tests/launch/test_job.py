"""What a job refuses, and what it makes of the rest."""

import pytest

from launch.job import CONTRACT, FINAL, RESTART, Job, again, verdict
from mmjax.training.loop import REQUEUE


def job(**fields) -> Job:
  return Job(**({"config": "configs/a.py", "workdir": "/mnt/run"} | fields))


def test_a_command_is_that_of_mmjax():
  made = job(changes=("train.plan.steps=3", "name=a b"))
  assert made.command("py") == [
    *("py", "-m", "mmjax.cli.main", "train", "--config", "configs/a.py"),
    *("--workdir", "/mnt/run", "--config.train.plan.steps=3"),
    "--config.name=a b",
  ]
  assert job(python="/bin/p").command("py")[0] == "/bin/p"


def test_devices_are_shared():
  made = job(nodes=3, devices=8, processes=2, cpu=True, env={"A": "b"})
  assert (made.each, made.total) == (4, 6)
  assert made.device_env() == {
    "MMJAX_DEVICES": "4",
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "4",
    "A": "b",
  }


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"nodes": 0}, "nodes is 0"),
    ({"devices": -1}, "devices is -1"),
    ({"processes": 0}, "processes is 0"),
    ({"max_restarts": -1}, "max_restarts is -1"),
    ({"devices": 4, "processes": 3}, "take a divisor"),
    ({"config": ""}, "needs a config"),
    ({"changes": ("train",)}, "no key.of.a.key=value"),
    ({"changes": ("a b=1",)}, "no key.of.a.key=value"),
    ({"changes": ("a=1\n#SBATCH --wrap=x",)}, "is not allowed"),
    ({"env": {"A-B": "x"}}, "letters, digits and _"),
    ({"env": {"A=B; touch x #": "x"}}, "letters, digits and _"),
    ({"env": {"A\n": "x"}}, "letters, digits and _"),
    ({"env": {"A": "x\ny"}}, "is not allowed"),
    ({"env": {"A": "x\0y"}}, "is not allowed"),
    ({"env": {CONTRACT[0]: "x"}}, "set by the launcher"),
    ({"name": "Demo"}, "a-z, 0-9 and -"),
    ({"name": "-x"}, "a-z, 0-9 and -"),
    ({"name": "x\n"}, "is not allowed"),
    ({"name": "a" * 41}, "40 at most"),
    ({"name": "$(touch x)"}, "a-z, 0-9 and -"),
    ({"workdir": "/mnt/a\r\nb"}, "is not allowed"),
    ({"config": "a\u2028b.py"}, "is not allowed"),
    ({"python": "p\n"}, "is not allowed"),
  ],
)
def test_what_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    job(**fields)


def test_restart_codes_are_those_of_training():
  assert REQUEUE in RESTART
  assert not set(RESTART) & set(FINAL)


@pytest.mark.parametrize(
  "codes, expected",
  [
    ([0, 0], 0),
    ([75, 75], 75),
    ([76, -6], 76),
    ([-6, 76], 76),
    # It lost a peer, which had said why it ends.
    ([76, 1], 1),
    ([2, 76], 2),
    ([-9, 76], 76),
    ([0, -9], 137),
    ([3, 4], 3),
    # Ctrl-C where nobody catches it, and a peer that it left.
    ([-6, -2], 130),
  ],
)
def test_one_code_for_all(codes, expected):
  assert verdict(codes) == expected


def test_all_but_final_codes_start_again():
  # Of the dead, of those that JAX aborted as a peer had died, of what nobody
  # has thought of; but not of a config that is wrong.
  for code in (*RESTART, 134, 137, 139, 143, 3, 255):
    assert again(code)
  for code in (0, 1, 2, 126, 127, 130):
    assert not again(code)
