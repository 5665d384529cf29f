"""Single files of LAVIS, BEATs and ULIP, there and back bit by bit.

Names and shapes are those of the originals: of their golden files, where there
are any.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mmjax.cli.convert import convert
from tests.golden.file import read

ARRAYS = Path(__file__).parents[1] / "golden" / "arrays"
# Of tiny models, whose heads are not of the published size.
QFORMER = dict(qformer_config=dict(num_attention_heads=3))


def tensors(name: str) -> dict[str, np.ndarray]:
  return dict(read(ARRAYS / f"{name}.safetensors").weights)


def drawn(**shapes) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {k: rng.random(v, np.float32) for k, v in shapes.items()}


def tower(width: int, blocks: int, root: str) -> dict[str, np.ndarray]:
  """EVA's names, with heads of 2 features for 16 pixels."""
  shapes = {
    "cls_token": (1, 1, width),
    "pos_embed": (1, 5, width),
    "patch_embed.proj.weight": (width, 3, 8, 8),
    "patch_embed.proj.bias": (width,),
  }
  for i in range(blocks):
    for name in ("norm1", "norm2"):
      shapes |= {f"blocks.{i}.{name}.{w}": (width,) for w in ("weight", "bias")}
    for name, out, inner in (
      ("attn.qkv", 3 * width, width),
      ("attn.proj", width, width),
      ("mlp.fc1", 10, width),
      ("mlp.fc2", width, 10),
    ):
      shapes[f"blocks.{i}.{name}.weight"] = (out, inner)
      if name != "attn.qkv":
        shapes[f"blocks.{i}.{name}.bias"] = (out,)
    for name in ("q_bias", "v_bias"):
      shapes[f"blocks.{i}.attn.{name}"] = (width,)
  return drawn(**{root + name: shape for name, shape in shapes.items()})


def saved(folder: Path, weights, settings=None, outer=None, **more) -> Path:
  """A PyTorch file, and a config.json beside it."""
  state = {k: torch.tensor(v) for k, v in weights.items()}
  torch.save({outer: state} | more if outer else state, folder / "x.pth")
  if settings:
    (folder / "config.json").write_text(json.dumps(settings))
  return folder / "x.pth"


def same_bits(folder: Path, weights) -> None:
  found = load_file(folder / "model.safetensors")
  assert found.keys() == weights.keys()
  for name, value in weights.items():
    assert found[name].dtype == value.dtype, name
    assert found[name].shape == value.shape, name
    assert found[name].tobytes() == value.tobytes(), name


def there_and_back(source: Path, family: str, weights, folder: Path) -> dict:
  """Checks it, and returns our settings; what is exported is read again."""
  convert(source, folder / "jax", to="jax", family=family)
  convert(folder / "jax", folder / "back", to="hf")
  same_bits(folder / "back", weights)
  convert(folder / "back", folder / "again", to="jax", family=family)
  same_bits(folder / "again", load_file(folder / "jax" / "model.safetensors"))
  return json.loads((folder / "jax" / "config.json").read_text())["model"]


def connectors(name: str, *modalities: str) -> dict[str, np.ndarray]:
  """Of X-InstructBLIP's golden file, without the language model."""
  heads = tuple(f"{m}_" for m in modalities)
  return {k: v for k, v in tensors(name).items() if k.startswith(heads)}


def kept(weights):
  return {k: v for k, v in weights.items() if "position_ids" not in k}


@pytest.mark.parametrize(
  "modalities, outer",
  [(("pc",), "model"), (("audio",), None), (("image", "video"), "model")],
)
def test_connectors_of_x_instructblip(modalities, outer, tmp_path):
  weights = connectors("xinstructblip/glue_qformer", *modalities)
  more = dict(optimizer={}, epoch=3) if outer else {}
  source = saved(tmp_path, weights, QFORMER, outer, **more)
  found = there_and_back(source, "x_instructblip", kept(weights), tmp_path)
  kinds = ["points" if m == "pc" else m for m in modalities]
  assert sorted(found["media"]) == sorted(kinds)
  connector = found["media"][kinds[0]]["connector"]
  widths = dict(pc=12, audio=16, image=20)
  assert connector == dict(
    name="qformer",
    width=32,
    features_norm_eps=1e-5,
    qformer=dict(
      features_width=widths[modalities[0]],
      width=24,
      num_layers=2,
      num_heads=3,
      num_queries=4,
      cross_every=2,
      hidden=48,
      vocab_size=40,
      max_positions=24,
    ),
  )


def test_frozen_parts_beside_connectors_stay_behind(tmp_path):
  weights = connectors("xinstructblip/glue_qformer", "audio", "pc")
  norm = "pc_encoder.point_encoder.encoder.first_conv.1"
  frozen = {
    f"{norm}.running_mean": np.ones(3, np.float32),
    f"{norm}.num_batches_tracked": np.ones((), np.int64),
    "llm_model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2),
  }
  source = saved(tmp_path, weights | frozen, QFORMER, "model")
  there_and_back(source, "x_instructblip", kept(weights), tmp_path)


@pytest.mark.parametrize("modality", ["audio", "pc"])
def test_linear_projections(modality, tmp_path):
  weights = connectors("xinstructblip/glue_linear", modality)
  found = there_and_back(
    saved(tmp_path, weights, outer="model"), "x_instructblip", weights, tmp_path
  )
  kind = "points" if modality == "pc" else modality
  connector = found["media"][kind]["connector"]
  assert connector["name"] == "pooled_projection"
  assert (connector["num_queries"], connector["inner"]) == (4, 24)


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda s: s.pop("audio_ln.bias"), "features_norm/bias <- audio_ln.bias"),
    (
      lambda s: s.pop("audio_Qformer.bert.encoder.layer.1.output.dense.bias"),
      r"text_mlp/down/bias <- audio_Qformer\.bert\.encoder\.layer\.1",
    ),
    (lambda s: s.update(audio_extra=np.ones(1, np.float32)), "audio_extra"),
    (lambda s: s.update({"image_ln.bias": np.ones(1)}), "image_ln.bias"),
    (lambda s: s.pop("audio_query_tokens"), "no audio_query_tokens"),
    (lambda s: s.pop("audio_llm_proj.weight"), "such as audio_llm_proj"),
  ],
)
def test_no_name_passes_in_silence(change, message, tmp_path):
  weights = connectors("xinstructblip/glue_qformer", "audio")
  change(weights)
  source = saved(tmp_path, weights, QFORMER)
  with pytest.raises(ValueError, match=message):
    convert(source, tmp_path / "jax", to="jax", family="x_instructblip")


def test_heads_that_no_tensor_tells(tmp_path):
  source = saved(tmp_path, connectors("xinstructblip/glue_qformer", "audio"))
  with pytest.raises(ValueError, match="qformer_config.*--settings FILE"):
    convert(source, tmp_path / "jax", to="jax", family="x_instructblip")


@pytest.mark.parametrize("with_tower", [True, False])
def test_the_first_stage(with_tower, tmp_path):
  weights = tensors("qformer/stage1_losses")
  if with_tower:
    weights |= tower(24, 2, "visual_encoder.")
  head, bert = "Qformer.cls.predictions.", "Qformer.bert.embeddings."
  weights |= {
    f"{head}decoder.weight": weights[f"{bert}word_embeddings.weight"],
    f"{head}decoder.bias": weights[f"{head}bias"],
  }
  heads = dict(num_attention_heads=4)
  settings = dict(qformer_config=heads, vision_config=heads)
  source = saved(tmp_path, weights, settings, "model")
  found = there_and_back(source, "blip2", kept(weights), tmp_path)
  assert (found["encoder"] is not None) == with_tower
  weights[f"{head}decoder.weight"] = weights[f"{head}decoder.weight"] + 1
  source = saved(tmp_path, weights, settings, "model")
  with pytest.raises(ValueError, match="names of one tensor, but differ"):
    convert(source, tmp_path / "x", to="jax", family="blip2")


@pytest.mark.parametrize("projection", ["llm_proj", "opt_proj", "t5_proj"])
def test_trimmed_instructblip(projection, tmp_path):
  """Only what trains; of BLIP-2 without what reads text."""
  names = {
    "image_ln": "ln_vision",
    "image_llm_proj": projection,
    "image_Qformer": "Qformer",
    "image_query_tokens": "query_tokens",
  }
  weights = {
    names[(head := key.split(".")[0])] + key.removeprefix(head): value
    for key, value in connectors("xinstructblip/glue_qformer", "image").items()
  }
  if blip2 := projection == "opt_proj":
    text = re.compile(
      r".*(_embeddings|position_ids|\d\.(intermediate|output)\.).*"
    )
    weights = {k: v for k, v in weights.items() if not text.fullmatch(k)}
  source = saved(tmp_path, weights, QFORMER)
  if projection == "t5_proj":
    with pytest.raises(ValueError, match="language model is T5"):
      convert(source, tmp_path / "jax", to="jax", family="instructblip")
    return
  found = there_and_back(source, "instructblip", kept(weights), tmp_path)
  vocabulary = found["media"]["image"]["connector"]["qformer"]["vocab_size"]
  assert vocabulary == (0 if blip2 else 40)


def test_eva_as_lavis_has_it(tmp_path):
  weights = tensors("eva_vit/as_used")
  norm = [k for k in weights if k.startswith("ln_vision")]
  weights = {k: v for k, v in weights.items() if k not in norm}
  settings = dict(vision_config=dict(num_attention_heads=4))
  found = there_and_back(
    saved(tmp_path, weights, settings), "eva", weights, tmp_path
  )
  assert (found["image_size"], found["output_layer"]) == (42, -1)


def test_eva_with_the_block_and_the_head_that_lavis_cuts_off(tmp_path):
  weights = tower(8, 40, "")
  head = drawn(
    **{"norm.weight": (8,), "norm.bias": (8,), "head.weight": (3, 8)}
  )
  settings = dict(vision_config=dict(num_attention_heads=4))
  source = saved(tmp_path, weights | head, settings, "model")
  found = there_and_back(source, "eva", weights, tmp_path)
  assert (found["num_layers"], found["output_layer"]) == (40, -2)
  source = saved(tmp_path, weights | {"blocks.0.gamma_1": np.ones(8)}, settings)
  with pytest.raises(ValueError, match=r"blocks\.0\.gamma_1"):
    convert(source, tmp_path / "x", to="jax", family="eva")


def test_beats_says_its_settings_itself(tmp_path):
  name = "beats/small"
  weights = tensors(name)
  cfg = read(ARRAYS / f"{name}.safetensors").config["constructor"]
  extra = {"predictor.weight": np.ones((3, 24), np.float32)}
  source = saved(tmp_path, weights | extra, outer="model", cfg=cfg)
  found = there_and_back(source, "beats", weights, tmp_path)
  assert (found["num_layers"], found["num_buckets"]) == (3, 16)
  back = json.loads((tmp_path / "back" / "config.json").read_text())
  assert back == cfg
  for change, message in (
    (dict(deep_norn=True), "Did you mean 'deep_norm'"),
    (dict(encoder_layers=4), "nothing fills"),
  ):
    source = saved(tmp_path, weights, outer="model", cfg=cfg | change)
    with pytest.raises(ValueError, match=message):
      convert(source, tmp_path / "x", to="jax", family="beats")
  source = saved(tmp_path, weights, outer="model")
  with pytest.raises(ValueError, match="cfg lacks"):
    convert(source, tmp_path / "x", to="jax", family="beats")


@pytest.mark.parametrize("root, outer", [("module.", "state_dict"), ("", None)])
def test_ulip2_without_the_prefix_of_its_training(root, outer, tmp_path):
  weights = tensors("pointbert/pointbert")
  weights = {k: v for k, v in weights.items() if "num_batches" not in k}
  others = {"logit_scale": np.ones((), np.float32)}
  others |= drawn(**{"visual.blocks.0.norm1.bias": (4,), "ln_final.bias": (4,)})
  named = {root + k: v for k, v in (weights | others).items()}
  settings = dict(num_attention_heads=3, num_group=10, group_size=8)
  source = saved(tmp_path, named, settings, outer)
  found = there_and_back(source, "ulip2", weights, tmp_path)
  assert (found["groups"], found["projection"]) == (10, 20)
  named[f"{root}point_encoder.more"] = np.ones(1, np.float32)
  source = saved(tmp_path, named, settings, outer)
  with pytest.raises(ValueError, match=r"point_encoder\.more"):
    convert(source, tmp_path / "x", to="jax", family="ulip2")
