"""A golden file: weights, inputs and outputs of an original module.

Tensors are named `w.<state-dict key>`, `in.[<call>.]<name>` and
`out.[<call>.]<name>`; the metadata holds component, constructor arguments and
tolerance. A file may hold no weights but the draws that make them.
"""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
from safetensors import safe_open


@dataclasses.dataclass(frozen=True)
class Golden:
  """One file, read.

  Attributes:
    path: of the file.
    component, config: of the metadata.
    weights: by state-dict key.
    inputs, outputs: {call: {name: array}}; the only call of a file is "".
  """

  path: Path
  component: str
  config: dict
  weights: dict[str, np.ndarray]
  inputs: dict[str, dict[str, np.ndarray]]
  outputs: dict[str, dict[str, np.ndarray]]

  @property
  def module(self) -> str:
    return self.config["module"]

  @property
  def constructor(self) -> dict:
    return self.config.get("constructor", {})

  def tolerance(self, name: str) -> tuple[float, float]:
    """(atol, rtol) of an output.

    The metadata says `atol 2e-5, rtol 1e-4`, perhaps in parts parted by `;`
    that name what they are for.
    """
    text = self.config["tolerance"]
    parts = [p.strip() for p in text.split(";")]
    words = re.split(r"[._]", name)
    for part in parts:
      label = re.split(r"\b(?:atol|rtol|exact)\b|\d", part)[0]
      named = re.findall(r"[a-z]+", label.lower())
      if any(w.rstrip("s") in [n.rstrip("s") for n in named] for w in words):
        return _numbers(part)
    return _numbers(parts[0])


def _numbers(part: str) -> tuple[float, float]:
  if "exact" in part:
    return 0.0, 0.0
  found = dict(re.findall(r"(atol|rtol) ([\d.e-]+)", part))
  if not found:
    raise ValueError(f"No atol, rtol or exact in the tolerance {part!r}.")
  return float(found.get("atol", 0.0)), float(found.get("rtol", 0.0))


def read(path: str | Path) -> Golden:
  """Reads a golden file; ValueError says what is wrong with any other."""
  with safe_open(str(path), framework="numpy") as f:
    metadata = f.metadata() or {}
    tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
  if missing := {"component", "config"} - metadata.keys():
    raise ValueError(f"{path}: no {sorted(missing)} in its metadata.")
  config = json.loads(metadata["config"])
  tensors |= drawn(config)
  grouped: dict[str, dict] = {"in": {}, "out": {}}
  weights = {}
  for name, value in tensors.items():
    kind, rest = name.split(".", 1)
    if kind == "w":
      weights[rest] = value
      continue
    call, _, name = rest.rpartition(".")
    grouped[kind].setdefault(call, {})[name] = value
  return Golden(
    Path(path),
    metadata["component"],
    config,
    weights,
    grouped["in"],
    grouped["out"],
  )


def drawn(config: dict) -> dict[str, np.ndarray]:
  """Weights (and inputs) that a file gives by their random draws."""
  if "draw" not in config:
    return {}
  random = np.random.RandomState(config["seed"])
  tensors = {}
  for name, shape, mean, std in config["draw"]:
    value = random.standard_normal(shape).astype(np.float32) * np.float32(std)
    value = value + np.float32(mean)
    tensors[name if name.startswith("in.") else f"w.{name}"] = value
  return tensors
