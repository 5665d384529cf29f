"""Our modules against arrays that the original PyTorch code computed.

`arrays/` holds a copy of what the suite needs; `python -m tests.golden FILE`
runs the same check over any other file.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.golden.__main__ import main
from tests.golden.compare import COMPONENTS, compare

ARRAYS = Path(__file__).parent / "arrays"
FILES = sorted(ARRAYS.glob("*/*.safetensors"))
SMALL = ARRAYS / "flamingo_mini" / "gated_xattn_sqrelu.safetensors"


@pytest.mark.parametrize(
  "path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_all_outputs_agree(path):
  lines = list(compare(path))
  assert lines and all(line.passed for line in lines), "\n".join(
    map(str, lines)
  )


def test_every_component_has_files():
  assert {path.parent.name for path in FILES} == set(COMPONENTS)


def copy(path, change=lambda tensors, config: None) -> Path:
  """SMALL at `path`, changed."""
  with safe_open(SMALL, framework="numpy") as file:
    metadata = file.metadata()
    tensors = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
  config = json.loads(metadata["config"])
  change(tensors, config)
  save_file(tensors, path, metadata | {"config": json.dumps(config)})
  return path


def outputs(tensors):
  return [name for name in tensors if name.startswith("out.")]


def change_output(tensors, config):
  name = outputs(tensors)[0]
  tensors[name].flat[-1] += 1e-2


def shift_output(tensors, config):
  name = outputs(tensors)[0]
  tensors[name] = np.roll(tensors[name], 1, axis=0)


def not_a_number(tensors, config):
  tensors[outputs(tensors)[0]].flat[0] = np.nan


def change_weight(tensors, config):
  name = next(n for n in tensors if n.startswith("w.") and tensors[n].ndim > 1)
  tensors[name] += 0.5


def drop_outputs(tensors, config):
  for name in outputs(tensors):
    del tensors[name]


def add_output(tensors, config):
  tensors[f"{outputs(tensors)[0]}_more"] = np.zeros(3, np.float32)


def cut_output(tensors, config):
  name = outputs(tensors)[0]
  tensors[name] = np.ascontiguousarray(tensors[name][..., :-1])


def drop_weight(tensors, config):
  del tensors[next(name for name in tensors if name.startswith("w."))]


def no_tolerance(tensors, config):
  config["tolerance"] = "close"


def test_an_untouched_copy_passes(tmp_path, capsys):
  assert main([str(copy(tmp_path / "a.safetensors"))]) == 0
  said = capsys.readouterr().out
  assert "ok" in said and "OUT" not in said


@pytest.mark.parametrize(
  "change",
  [
    change_output,
    shift_output,
    not_a_number,
    change_weight,
    drop_outputs,
    add_output,
    cut_output,
    drop_weight,
    no_tolerance,
  ],
)
def test_a_changed_file_fails(change, tmp_path, capsys):
  good = copy(tmp_path / "good.safetensors")
  bad = copy(tmp_path / "bad.safetensors", change)
  assert main([str(bad), str(good)]) == 1
  said = capsys.readouterr().out
  first, second = said.split(str(good))
  assert "OUT" in first and "ok" in second and "OUT" not in second


def test_other_files_fail(tmp_path):
  (tmp_path / "a.safetensors").write_bytes(b"\x00" * 9)
  save_file({"w.x": np.zeros(1)}, tmp_path / "b.safetensors")
  save_file(
    {"out.y": np.zeros(1)},
    tmp_path / "c.safetensors",
    {"component": "none", "config": "{}"},
  )
  for name in "abc":
    assert main([str(tmp_path / f"{name}.safetensors")]) == 1
  assert main([str(tmp_path / "absent.safetensors")]) == 1
  assert main([]) == 2
