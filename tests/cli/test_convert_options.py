"""The command's options, and settings that are not what they should be."""

import json
import shutil

import pytest
import torch
from safetensors.numpy import load_file

from mmjax.cli import main as cli
from mmjax.cli.convert import convert
from tests import original_flamingo as original
from tests.cli.test_convert import make
from tests.cli.test_convert_vision import open_clip_model
from tests.encoders.test_nfnet import reference


def refused(capsys, *arguments):
  assert cli.main(["convert", *map(str, arguments)]) == 1
  said = capsys.readouterr().err
  assert said.startswith("mmjax convert: ") and "Traceback" not in said
  assert said.count("\n") == 1, said
  return said


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """A model of each family, theirs and ours."""
  root = tmp_path_factory.mktemp("families")
  for name in ("llama", "opt", "mpt", "gpt_neox"):
    make(name, root / name / "hf")
  for name, state in (
    ("clip", open_clip_model().state_dict()),
    ("nfnet", reference((1, 2), (16, 16), 16, 8, 32, 3).state_dict()),
    ("open_flamingo", original.whole("llama").state_dict()),
  ):
    (root / name / "hf").mkdir(parents=True)
    torch.save(state, root / name / "hf" / "weights.pt")
  config = original.LMS["llama"]().to_dict()
  (root / "open_flamingo/hf/config.json").write_text(json.dumps(config))
  for folder in root.iterdir():
    convert(folder / "hf", folder / "jax", to="jax", family=folder.name)
  return root


FAMILIES = ["llama", "opt", "mpt", "gpt_neox", "clip", "nfnet", "open_flamingo"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_command_both_ways(name, folders, tmp_path, capsys):
  """`mmjax convert` itself; what comes back is converted to the same bits."""
  ours = folders / name / "jax"
  arguments = ["convert", str(ours), str(tmp_path / "hf"), "--to", "hf"]
  assert cli.main(arguments) == 0
  arguments = ["convert", str(tmp_path / "hf"), str(tmp_path / "jax")]
  assert cli.main([*arguments, "--to", "jax", "--family", name]) == 0
  first = load_file(ours / "model.safetensors")
  again = load_file(tmp_path / "jax" / "model.safetensors")
  assert first.keys() == again.keys()
  assert all(v.tobytes() == again[k].tobytes() for k, v in first.items())
  assert "Traceback" not in capsys.readouterr().err


# Where a setting stands in our config.json, and what it must not be.
_BENT = [None, -1, 0, 10**30, 1.5, "x", [], {}, True]


@pytest.mark.parametrize("name", ["opt", "clip", "nfnet", "open_flamingo"])
def test_bent_settings_of_ours(name, folders, tmp_path, capsys):
  """Every setting, bent in every way: refused, or harmless to the weights."""
  shutil.copytree(folders / name / "jax", tmp_path / "jax")
  path = tmp_path / "jax" / "config.json"
  whole = json.loads(path.read_text())
  cases = [{**whole, "model": bent} for bent in _BENT]
  cases += [
    {**whole, "model": {**whole["model"], key: bent}}
    for i, key in enumerate([*whole["model"], "surplus"])
    for bent in (_BENT[i % 9], _BENT[(i + 4) % 9])
  ]
  cases += [{**whole, "names": bent} for bent in ("x", [1], {"a": "b"}, 3)]
  cases += [{**whole, "family": bent} for bent in ("llame", 3, None, [])]
  done = 0
  for case in cases:
    path.write_text(json.dumps(case))
    code = cli.main(
      ["convert", str(path.parent), str(tmp_path / "hf"), "--to", "hf"]
    )
    said = capsys.readouterr().err
    assert code in (0, 1) and "Traceback" not in said, case
    assert code == 0 or said.startswith("mmjax convert: ")
    done += code == 0
    shutil.rmtree(tmp_path / "hf", ignore_errors=True)
  assert done < len(cases) / 2


@pytest.mark.parametrize("name", ["llama", "opt", "mpt", "gpt_neox"])
def test_bent_settings_of_theirs(name, folders, tmp_path, capsys):
  shutil.copytree(folders / name / "hf", tmp_path / "hf")
  path = tmp_path / "hf" / "config.json"
  whole = json.loads(path.read_text())
  keys = [
    k for k in whole if k not in ("architectures", "transformers_version")
  ]
  cases = [{**whole, key: _BENT[i % 9]} for i, key in enumerate(keys)]
  refusals = 0
  for case in cases:
    path.write_text(json.dumps(case))
    arguments = [str(path.parent), str(tmp_path / "jax"), "--to", "jax"]
    code = cli.main(["convert", *arguments])
    said = capsys.readouterr().err
    assert code in (0, 1) and "Traceback" not in said, case
    refusals += code
    shutil.rmtree(tmp_path / "jax", ignore_errors=True)
  assert refusals >= 5


def test_options_that_do_not_fit(folders, tmp_path, capsys):
  hf, jax, out = folders / "llama/hf", folders / "llama/jax", tmp_path / "out"
  there = tmp_path / "there.json"
  there.write_text("[1]")
  for arguments, message in (
    ((tmp_path / "none", out, "--to", "jax"), "There is no"),
    ((hf, hf, "--to", "jax"), "is there already"),
    ((hf, out, "--to", "jax", "--part", "model"), "has no parts"),
    ((hf, out, "--to", "jax", "--family", "lama"), "Did you mean 'llama'"),
    ((hf, out, "--to", "jax", "--settings", tmp_path), "directory"),
    ((hf, out, "--to", "jax", "--settings", out / "x"), "No such file"),
    ((hf, out, "--to", "jax", "--settings", there), "holds a list"),
    ((jax, out, "--to", "hf", "--settings", there), "for --to jax only"),
    ((jax, out, "--to", "hf", "--part", "x"), "for --to jax only"),
    ((jax, out, "--to", "hf", "--family", "opt"), "is of family llama"),
    ((hf, out, "--to", "hf"), "no directory that"),
  ):
    assert message in refused(capsys, *arguments), arguments
  assert [p.name for p in tmp_path.iterdir()] == ["there.json"]


def test_a_model_of_another_kind(folders, tmp_path, capsys):
  """Granite's names are LLaMA's, its numbers are not."""
  shutil.copytree(folders / "llama/hf", tmp_path / "hf")
  path = tmp_path / "hf" / "config.json"
  config = json.loads(path.read_text()) | dict(model_type="granite")
  path.write_text(json.dumps(config))
  asked = (tmp_path / "hf", tmp_path / "out", "--to", "jax")
  assert "is of 'granite', not llama" in refused(
    capsys, *asked, "--family", "llama"
  )


def test_a_part_that_is_not_there(folders, tmp_path, capsys):
  source = folders / "nfnet/hf/weights.pt"
  said = refused(
    capsys,
    source,
    tmp_path / "out",
    *("--to", "jax", "--family", "nfnet", "--part", "state_dict"),
  )
  assert "no part 'state_dict'" in said
