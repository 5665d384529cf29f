"""The command line: what is said, and how it ends."""

import re
import subprocess
import sys

import pytest

from mmjax.cli import arguments
from mmjax.cli import main as cli
from mmjax.cli.families import FAMILIES
from mmjax.data.formats import FORMATS
from mmjax.training.loop import REQUEUE, Preempted

DEMO = ["--config", cli.DEMO]


def test_help_imports_no_jax():
  code = (
    "import sys; from mmjax.cli.arguments import make_parser; "
    "make_parser().format_help(); assert 'jax' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_progress_takes_no_devices():
  """A run beside it may have them all."""
  code = (
    "from mmjax.cli.progress import show_progress; show_progress()(1, 1); "
    "from jax._src import xla_bridge; "
    "assert not xla_bridge.backends_are_initialized()"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("text", ["Event loop is closed", "a new one"])
def test_a_write_of_a_failed_save_shows_no_traceback(text):
  """TensorStore's threads say the first of each that Orbax has left."""
  code = (
    "import sys; from mmjax.cli.main import _log; _log(debug=False)\n"
    "class Writer:\n"
    f"  def __del__(self): raise RuntimeError({text!r})\n"
    "Writer()"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], check=True, capture_output=True, text=True
  )
  assert ("Traceback" in done.stderr) == (text == "a new one")


def test_help_names_every_family_and_format(capsys):
  for verb, names in ((["convert"], FAMILIES), (["data", "inspect"], FORMATS)):
    with pytest.raises(SystemExit):
      cli.main([*verb, "--help"])
    assert set(names) <= set(re.findall(r"\w+", capsys.readouterr().out))


def test_changes_are_parted_from_other_arguments():
  given = ["train", "--config", "a.py", "--config.b.c=x=1", "--debug"]
  rest, changes = arguments.take_changes([*given, "--config.d", "2"])
  assert rest == ["train", "--config", "a.py", "--debug"]
  assert changes == ["b.c=x=1", "d=2"]


def test_train_takes_the_changed_config(monkeypatch, tmp_path):
  seen = {}
  monkeypatch.setattr(
    "mmjax.cli.train.train", lambda c, w: seen.update(config=c, workdir=w)
  )
  code = cli.main(
    ["train", *DEMO, "--config.train.plan.steps=7", "--workdir", str(tmp_path)]
  )
  assert code == 0 and seen["workdir"] == tmp_path
  assert seen["config"].train.plan.steps == 7


def test_an_explained_error_is_one_line(capsys):
  assert cli.main(["train", *DEMO, "--config.sede=1"]) == 1
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and "Did you mean 'seed'?" in said


def test_paths_below_a_variable_that_is_not_set(monkeypatch, capsys):
  monkeypatch.delenv("MMJAX_DATA", raising=False)
  config = "configs/x_instructblip/image.py:7b"
  assert cli.main(["data", "inspect", "--config", config]) == 1
  assert "export MMJAX_DATA=" in capsys.readouterr().err


def test_a_missing_file_is_one_line(capsys, tmp_path):
  assert cli.main(["data", "inspect", str(tmp_path / "no.jsonl")]) == 1
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and "no.jsonl" in said


def test_debug_shows_where(capsys):
  with pytest.raises(ValueError, match="seed"):
    cli.main(["train", *DEMO, "--config.sede=1", "--debug"])


def test_a_fault_of_ours_is_not_hidden(monkeypatch, tmp_path, capsys):
  def fail(config, workdir):
    raise KeyError("x")

  monkeypatch.setattr("mmjax.cli.train.train", fail)
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
  assert cli.main(["train", *DEMO]) == 1
  said = capsys.readouterr().err
  (kept,) = tmp_path.iterdir()
  assert said.count("\n") == 1 and "KeyError: 'x'" in said and str(kept) in said
  assert "in fail" in kept.read_text()
  with pytest.raises(KeyError):
    cli.main(["train", *DEMO, "--debug"])


def test_a_stopped_run_ends_with_its_own_code(monkeypatch):
  def stop(config, workdir):
    raise Preempted(3)

  monkeypatch.setattr("mmjax.cli.train.train", stop)
  with pytest.raises(SystemExit) as end:
    cli.main(["train", *DEMO])
  assert end.value.code == REQUEUE == 75


@pytest.mark.parametrize(
  "arguments", [[], ["fly"], ["data"], ["train", "--config.a"], ["convert"]]
)
def test_wrong_arguments_end_with_two(arguments):
  with pytest.raises(SystemExit) as end:
    cli.main(arguments)
  assert end.value.code == 2


def test_data_verbs_take_no_change_without_a_config(capsys):
  with pytest.raises(SystemExit) as end:
    cli.main(["data", "index", "x.tar", "--config.a=1"])
  assert end.value.code == 2


def test_inspect_wants_one_thing(capsys):
  assert cli.main(["data", "inspect"]) == 1
  assert "either" in capsys.readouterr().err
