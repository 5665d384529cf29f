"""Our modules against arrays that the original PyTorch code computed.

`arrays/` holds a copy of what the suite needs; `python -m tests.golden FILE`
runs the same check over any other file.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.golden.__main__ import main
from tests.golden.compare import COMPONENTS, compare
from tests.golden.file import read
from tests.golden.open_flamingo import language_model

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


def test_settings_that_the_class_of_mpt_does_not_read():
  path = ARRAYS / "open_flamingo" / "model_mpt_every4.safetensors"
  golden = read(path)
  given = golden.config["language_model_config"]
  attention = dict(qk_ln=True, clip_qkv=1, alibi_bias_max=4, alibi=False)
  more = dict(logit_scale=2, no_bias=False, expansion_ratio=2)
  config = given | more | dict(attn_config=attention)
  config = golden.config | dict(language_model_config=config)
  changed = dataclasses.replace(golden, config=config)
  assert language_model(changed) == language_model(golden)


def test_every_component_has_files():
  assert {path.parent.name for path in FILES} == set(COMPONENTS)


def copy(path, change=lambda tensors, config: None, source=SMALL) -> Path:
  """A file at `path`, changed."""
  with safe_open(source, framework="numpy") as file:
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


def tolerance_left_out(tensors, config):
  del config["tolerance"]


def tolerance_in_numbers(tensors, config):
  config["tolerance"] = 1e-3


def boundless_tolerance(tensors, config):
  config["tolerance"] = "atol inf, rtol 0"


def unknown_option(tensors, config):
  config["constructor"]["dim_heads"] = 8


def option_left_out(tensors, config):
  del config["constructor"]["dim"]


def no_heads(tensors, config):
  config["constructor"]["heads"] = 0


def input_left_out(tensors, config):
  del tensors["in.media"]


def unknown_activation(tensors, config):
  config["constructor"]["act"] = "mish"


def unknown_module(tensors, config):
  config["module"] = "GatedCrossAttention"


def unknown_tensor(tensors, config):
  tensors["weight"] = np.zeros(1, np.float32)


def draw_without_seed(tensors, config):
  config["draw"] = []


def test_an_untouched_copy_passes(tmp_path, capsys):
  assert main([str(copy(tmp_path / "a.safetensors"))]) == 0
  said = capsys.readouterr().out
  assert "ok" in said and "OUT" not in said


@pytest.mark.parametrize(
  "change, reason",
  [
    (change_output, "max|d| 1.00e-02"),
    (shift_output, "max|d|"),
    (not_a_number, "theirs has 1 values that are not finite"),
    (change_weight, "max|d|"),
    (drop_outputs, "no output to compare"),
    (add_output, "nothing was computed for it"),
    (cut_output, "ours is (4, 12, 16), theirs (4, 12, 15)"),
    (drop_weight, "parameters that nothing fills"),
    (no_tolerance, "No atol, rtol or exact in the tolerance 'close'"),
    (tolerance_left_out, "tolerance is None"),
    (tolerance_in_numbers, "tolerance is 0.001"),
    (boundless_tolerance, "in the tolerance 'atol inf, rtol 0'"),
    (unknown_option, "Unknown option 'dim_heads'. Did you mean 'dim_head'?"),
    (option_left_out, "lacks the options ['dim']"),
    (no_heads, "The option heads is 0, not a size"),
    (input_left_out, "The file has no 'media', only ['media_locations', 'x']"),
    (unknown_activation, "Unknown activation 'mish'"),
    (unknown_module, "Did you mean 'GatedCrossAttentionBlock'?"),
    (unknown_tensor, "A tensor is 'weight'"),
    (draw_without_seed, "A draw needs a seed"),
  ],
)
def test_a_changed_file_fails(change, reason, tmp_path, capsys):
  good = copy(tmp_path / "good.safetensors")
  bad = copy(tmp_path / "bad.safetensors", change)
  assert main([str(bad), str(good)]) == 1
  said = capsys.readouterr().out
  first, second = said.split(str(good))
  assert "OUT" in first and reason in first
  assert "ok" in second and "OUT" not in second


def test_every_output_has_its_line(tmp_path, capsys):
  path = copy(tmp_path / "bad.safetensors", add_output)
  main([str(path)])
  assert capsys.readouterr().out.count("\n  ") == 2


def test_a_folder_is_all_of_its_files(tmp_path, capsys):
  (tmp_path / "below").mkdir()
  paths = [copy(tmp_path / f"{n}.safetensors") for n in ("a", "below/b")]
  assert main([str(tmp_path)]) == 0
  said = capsys.readouterr().out
  assert [said.count(str(path)) for path in paths] == [1, 1]


@pytest.mark.parametrize(
  "text, name, expected",
  [
    ("atol 2e-5, rtol 1e-4", "y", (2e-5, 1e-4, 0.0)),
    ("atol=1e-5 rtol=0.001", "a.y", (1e-5, 1e-3, 0.0)),
    ("rtol 1e-3", "y", (0.0, 1e-3, 0.0)),
    ("logits/loss atol 1e-4, rtol 1e-3; ids exact", "loss", (1e-4, 1e-3, 0.0)),
    ("atol 1e-4; grad norms rtol 1e-3", "grad_norms", (0.0, 1e-3, 0.0)),
    ("logits atol 1e-4; scores exact", "beam_scores", (0.0, 0.0, 0.0)),
    ("atol 1e-5; grad peak 1e-4", "grad.x.weight", (0.0, 0.0, 1e-4)),
  ],
)
def test_tolerances_in_words(text, name, expected):
  golden = dataclasses.replace(read(SMALL), config={"tolerance": text})
  assert golden.tolerance(name) == expected


def test_other_files_fail(tmp_path, capsys):
  whole = SMALL.read_bytes()
  (tmp_path / "zeros.safetensors").write_bytes(b"\x00" * 9)
  (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
  metadata = {
    "none": None,
    "other": {"component": "none", "config": "{}"},
    "text": {"component": "nfnet", "config": "{"},
    "list": {"component": "nfnet", "config": "[]"},
  }
  for name, given in metadata.items():
    path = tmp_path / f"{name}.safetensors"
    save_file({"out.y": np.zeros(1)}, path, given)
  for name in ("zeros", "cut", *metadata, "absent"):
    assert main([str(tmp_path / f"{name}.safetensors")]) == 1, name
    assert capsys.readouterr().out.count("  OUT") == 1, name
  (tmp_path / "empty").mkdir()
  assert main([str(tmp_path / "empty")]) == 1
  assert main([]) == 2
