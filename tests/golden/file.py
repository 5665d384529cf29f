"""A golden file: weights, inputs and outputs of an original module.

Tensors are named `w.<state-dict key>`, `in.[<call>.]<name>` and
`out.[<call>.]<name>`; the metadata holds component, constructor arguments and
tolerance. A file may hold no weights but the draws that make them. Where the
metadata has no component, it is the name of the folder.
"""

import dataclasses
import json
import math
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

# What a file is of that does not say its component and tolerance: by how its
# `class` or `function` begins, both as the author's README lists them.
UNNAMED = {
  "BEATs": ("beats", "atol 3e-5, rtol 1e-4"),
  "BeatsAudioProcessor": ("beats", "atol 1e-3"),
  "torchaudio": (
    "beats",
    "raw atol 1e-2; normalised atol 1e-3",
  ),
  "eva_vit.VisionTransformer": ("eva_vit", "atol 3e-5, rtol 1e-4"),
  "interpolate_pos_embed": ("eva_vit", "atol 1e-5"),
  "Group:": ("pointbert", "atol 1e-6; distances atol 2e-6"),
  "ULIP_WITH_IMAGE": ("pointbert", "atol 2e-5, rtol 1e-4"),
  "Blip2VicunaXInstruct": (
    "xinstructblip",
    "atol 2e-5, rtol 1e-4; logits atol 5e-5",
  ),
  "Qformer.BertLMHeadModel": (
    "qformer",
    "atol 2e-5, rtol 1e-4; loss rtol 1e-5",
  ),
  # A gradient that is next to nothing as a sum of large terms is no better
  # than float32 makes those.
  "Blip2Qformer": (
    "qformer",
    "atol 5e-5, rtol 1e-4; grad atol 1e-7, peak 1e-4",
  ),
}


class Named(dict):
  """What a file holds under names; a name that it lacks is its fault."""

  def __missing__(self, name):
    raise ValueError(f"The file has no {name!r}, only {sorted(self)}.")


@dataclasses.dataclass(frozen=True)
class Golden:
  """One file, read.

  Attributes:
    path: of the file.
    component, config: of the metadata.
    weights: by state-dict key, float32.
    inputs, outputs: {call: {name: array}}; the only call of a file is "".
  """

  path: Path
  component: str
  config: dict
  weights: dict[str, np.ndarray]
  inputs: dict[str, dict[str, np.ndarray]]
  outputs: dict[str, dict[str, np.ndarray]]

  def settings(self, call: str) -> dict:
    """How a call was made, where the metadata says it."""
    calls = self.config.get("calls")
    if not isinstance(calls, dict):
      return {}
    if len(calls) == 1 and not call:
      call = next(iter(calls))
    found = calls.get(call)
    return found if isinstance(found, dict) else {}

  def tolerance(self, name: str) -> tuple[float, float, float]:
    """(atol, rtol, peak) of an output; peak is of its largest entry.

    The metadata says `atol 2e-5, rtol 1e-4`, perhaps in parts parted by `;`
    that name what they are for; of files that say none, see UNNAMED.
    """
    text = self.config.get("tolerance")
    if not isinstance(text, str):
      raise ValueError(
        f"The metadata's tolerance is {text!r}; expected words such as "
        "'atol 2e-5, rtol 1e-4'."
      )
    parts = [p.strip() for p in text.split(";")]
    words = re.split(r"[._]", name)
    for part in parts:
      label = re.split(r"\b(?:atol|rtol|peak|exact)\b|\d", part)[0]
      named = re.findall(r"[a-z]+", label.lower())
      if any(w.rstrip("s") in [n.rstrip("s") for n in named] for w in words):
        return _numbers(part)
    return _numbers(parts[0])


def _numbers(part: str) -> tuple[float, float, float]:
  if "exact" in part:
    return 0.0, 0.0, 0.0
  found = dict(re.findall(r"\b(atol|rtol|peak)\b[\s=:]*([^\s,;()]+)", part))
  names = ("atol", "rtol", "peak")
  try:
    atol, rtol, peak = (float(found.get(name, 0.0)) for name in names)
  except ValueError:
    found = {}
  if not found or not all(0 <= x < math.inf for x in (atol, rtol, peak)):
    raise ValueError(f"No atol, rtol or exact in the tolerance {part!r}.")
  return atol, rtol, peak


def read(path: str | Path) -> Golden:
  """Reads a golden file; ValueError says what is wrong with any other."""
  with safe_open(str(path), framework="numpy") as f:
    metadata = f.metadata() or {}
    tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
  if "config" not in metadata:
    raise ValueError("No 'config' in the metadata.")
  config = _parsed(metadata["config"])
  component = metadata.get("component") or _recognised(config)
  tensors |= drawn(config)
  grouped: dict[str, dict] = {"in": {}, "out": {}}
  weights = {}
  for name, value in tensors.items():
    kind, _, rest = name.partition(".")
    call, _, rest_name = rest.rpartition(".")
    if kind == "w" and rest:
      weights[rest] = _float32(value)
    elif kind in grouped and rest_name:
      value = _float32(value) if kind == "in" else value
      grouped[kind].setdefault(call, Named())[rest_name] = value
    else:
      raise ValueError(f"A tensor is {name!r}, neither w.*, in.* nor out.*.")
  return Golden(
    Path(path),
    component,
    config,
    weights,
    grouped["in"],
    grouped["out"],
  )


def _recognised(config: dict) -> str:
  """The component of a file that names none; its tolerance is filled in."""
  of = str(config.get("class", config.get("function")))
  found = [each for start, each in UNNAMED.items() if of.startswith(start)]
  if not found:
    raise ValueError(
      f"No 'component' in the metadata, and {of!r} is not known. Known: "
      f"{', '.join(UNNAMED)}."
    )
  component, tolerance = found[0]
  config.setdefault("tolerance", tolerance)
  return component


def _parsed(text: str) -> dict:
  try:
    config = json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(f"The metadata's config is no JSON: {error}") from error
  if not isinstance(config, dict):
    raise ValueError(f"The metadata's config is {config!r}, not an object.")
  return Named(config)


def _float32(value: np.ndarray) -> np.ndarray:
  """Numbers stored at half or double precision, at the one we compute in."""
  if jnp.issubdtype(value.dtype, jnp.floating):
    return value.astype(np.float32)
  return value


def drawn(config: dict) -> dict[str, np.ndarray]:
  """Weights (and inputs) that a file gives by their random draws."""
  if "draw" not in config:
    return {}
  if type(config.get("seed")) is not int:
    raise ValueError(f"A draw needs a seed, not {config.get('seed')!r}.")
  random = np.random.RandomState(config["seed"])
  tensors = {}
  for name, shape, mean, std in config["draw"]:
    value = random.standard_normal(shape).astype(np.float32) * np.float32(std)
    value = value + np.float32(mean)
    tensors[name if name.startswith("in.") else f"w.{name}"] = value
  return tensors
