"""The paper's ablations of Flamingo-3B, each a change of baseline_3b.py.

Row of Table 3 or 10 (arXiv 2204.14198 v2) to changes, `key.of.a.key` to its
new value; REMOVED takes the key out.

  config = make("(v) every 4th")

A row with a "random" part takes it out of `init`; its "pretrained" twin keeps
the baseline's. Weights of another part are looked for in $MMJAX_DATA, as are
those of the baseline:

  clip_vit_l14/  nfnet_f0/  lm_c4/    massivetext/*.parquet

The paper does not say, and these are chosen: the resamplers' shapes of T10
(i), where depth alone is changed until the totals are 3.1B and 3.4B, and the
batch, length and weight of MassiveText, which are those of M3W.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.flamingo import baseline_3b, common
from mmjax.connectors.resampler_ablations import (
  FLAMINGO_MLP,
  FLAMINGO_TRANSFORMER,
)

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
  "init.encoder": common.clip("clip_vit_l14"),
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
RANDOM_LM = {"init.lm": REMOVED}
RANDOM_ENCODER = {"init.encoder": REMOVED}
# Texts without pictures, in the layout of OBELICS like M3W. Such a row has
# room for no medium, so the vision encoder does not run.
COTRAIN = {
  **TRAIN_LM,
  _data("massivetext"): baseline_3b.dataset(
    "massivetext",
    batch=256,
    weight=1.0,
    length=256,
    media=0,
    kind="obelics",
    prompt=dict(overflow="window"),
  ),
}
SLOW_LM = {
  "train.optimizer.lr_scale": [
    ("lm/embedding/extra", 1.0),
    ("lm/.*", 0.1),
    (".*", 1.0),
  ]
}

ABLATIONS: dict[str, dict[str, Any]] = {
  "(i) w/o video-text": {_data("vtp"): REMOVED},
  "(i) w/o image-text": {_data("align"): REMOVED, _data("ltip"): REMOVED},
  "(i) image-text: LAION": LAION,
  "(i) w/o M3W": {_data("m3w"): REMOVED},
  "(i) M3W only": {_data(name): REMOVED for name in ("align", "ltip", "vtp")},
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
  "(vii) NFNet-F0": {
    "model.encoder.variant": "F0",
    "init.encoder": common.converted("nfnet_f0"),
  },
  "(viii) LM trained, random": TRAIN_LM | RANDOM_LM,
  "(viii) LM trained, pretrained": TRAIN_LM,
  "T10 (i) small resampler": {"model.resampler.depth": 3},
  "T10 (i) large resampler": {"model.resampler.depth": 12},
  "T10 (ii) all previous images": {"model.xattn.previous": True},
  "T10 (iii) p_next 0": {f"{_data('m3w')}.prompt.p_next": 0.0},
  "T10 (iii) p_next 1": {f"{_data('m3w')}.prompt.p_next": 1.0},
  "T10 (iv) LM pretrained on C4": {"init.lm": common.converted("lm_c4")},
  "T10 (v) vision trained, random": TRAIN_ENCODER | RANDOM_ENCODER,
  "T10 (v) vision trained, pretrained": TRAIN_ENCODER,
  "T10 (vi) co-trained LM, random": COTRAIN | RANDOM_LM,
  "T10 (vi) co-trained LM, pretrained": COTRAIN | SLOW_LM,
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
