"""The paper's ablations of Flamingo-3B, each a change of baseline_3b.py.

Row of Table 3 or 10 (arXiv 2204.14198 v2) to changes, `key.of.a.key` to its
new value; REMOVED takes the key out. Rows that differ only in where frozen
weights come from have the changes of their architecture; `init` is yours.

  config = make("(v) every 4th")
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.flamingo import baseline_3b
from mmjax.connectors.resamplers import FLAMINGO_MLP, FLAMINGO_TRANSFORMER

REMOVED = object()


def _data(name: str) -> str:
  return f"data.datasets.{name}"


# LAION-400M takes the place of both image-text sets.
LAION = {
  _data("ltip"): REMOVED,
  _data("align"): REMOVED,
  _data("laion"): baseline_3b.dataset(
    "laion400m", batch=1024, weight=0.2, length=64
  ),
}
CLIP = {
  "model.encoder": dict(name="clip_vit", variant="L/14"),
  **{
    f"{_data(name)}.transforms": [dict(name="flip"), dict(name="clip_val")]
    for name in ("m3w", "align", "ltip", "vtp")
  },
}
LAION_CLIP = {
  **{k: v for k, v in CLIP.items() if "align" not in k and "ltip" not in k},
  **LAION,
  f"{_data('laion')}.transforms": CLIP[f"{_data('m3w')}.transforms"],
}
TRAIN_LM = {"train.trainable": [("encoder/.*", False), (".*", True)]}
TRAIN_ENCODER = {
  "train.trainable": [
    ("lm/embedding/extra", True),
    ("lm/.*", False),
    (".*", True),
  ]
}

ABLATIONS: dict[str, dict[str, Any]] = {
  "(i) w/o video-text": {_data("vtp"): REMOVED},
  "(i) w/o image-text": {_data("align"): REMOVED, _data("ltip"): REMOVED},
  "(i) image-text: LAION": LAION,
  "(i) w/o M3W": {_data("m3w"): REMOVED},
  "(ii) round-robin": {"data.update": "round_robin"},
  "(iii) no tanh gate": {"model.xattn.gate": "none"},
  "(iv) vanilla xattn": {
    "model.xattn.place": "vanilla",
    "model.xattn.hidden": 0,
  },
  "(iv) grafting": {
    "model.xattn.place": "graft",
    "model.xattn.graft_layers": 12,
  },
  "(v) single in middle": {"model.xattn.first": 12, "model.xattn.every": 24},
  "(v) every 4th": {"model.xattn.every": 4},
  "(v) every 2nd": {"model.xattn.every": 2},
  "(vi) MLP": {"model.resampler": dict(name="mlp", **FLAMINGO_MLP)},
  "(vi) Transformer": {
    "model.resampler": dict(name="transformer", **FLAMINGO_TRANSFORMER)
  },
  "(vii) CLIP ViT-L/14": CLIP,
  "(vii) NFNet-F0": {"model.encoder.variant": "F0"},
  "(viii) LM trained, random": TRAIN_LM,
  "(viii) LM trained, pretrained": TRAIN_LM,
  "T10 (ii) all previous images": {"model.xattn.previous": True},
  "T10 (iii) p_next 0": {f"{_data('m3w')}.prompt.p_next": 0.0},
  "T10 (iii) p_next 1": {f"{_data('m3w')}.prompt.p_next": 1.0},
  "T10 (v) vision trained, random": TRAIN_ENCODER,
  "T10 (v) vision trained, pretrained": TRAIN_ENCODER,
  "T10 (vii) LAION and CLIP only": {
    **{
      k: v for k, v in LAION_CLIP.items() if "m3w" not in k and "vtp" not in k
    },
    _data("m3w"): REMOVED,
    _data("vtp"): REMOVED,
  },
  "T10 (vii) M3W, LAION, VTP, CLIP": LAION_CLIP,
}


def make(row: str | None = None) -> ConfigDict:
  """The config of a row, or of the baseline."""
  config = baseline_3b.get_config()
  return config if row is None else apply(config, ABLATIONS[row])


def apply(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
  """Changes a config in place.

  Raises:
    KeyError: for a key below a parent that is not there, or one to remove
      that is not there.
  """
  for key, value in changes.items():
    *parents, last = key.split(".")
    node = config
    for name in parents:
      node = node[name]
    if value is REMOVED:
      del node[last]
      continue
    with node.ignore_type():
      node[last] = ConfigDict(value) if isinstance(value, dict) else value
  return config
