"""Picture encoders from PyTorch's files to ours and back, bit by bit."""

import json

import numpy as np
import pytest
import torch
import transformers
from efficientnet_lite_pytorch import EfficientNet
from safetensors.numpy import load_file

from mmjax.cli.convert import convert
from mmjax.convert.families.efficientnet import pretrained
from mmjax.convert.read import Safetensors, open_weights
from tests.convert.test_torch_file import Tree
from tests.encoders.test_nfnet import reference
from tests.timm_import import import_open_clip, import_timm

PIXELS = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def tower(act="gelu"):
  return transformers.CLIPVisionConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=8,
    patch_size=4,
    projection_dim=6,
    hidden_act=act,
    layer_norm_eps=1e-4,
  )


def assert_same_bits(folder, state):
  back = load_file(folder / "model.safetensors")
  assert back.keys() == state.keys()
  for key, value in state.items():
    assert back[key].shape == tuple(value.shape), key
    assert back[key].tobytes() == np.asarray(value).tobytes(), key


@pytest.mark.parametrize(
  "projection, act", [(True, "gelu"), (False, "gelu_new"), (False, "swish")]
)
def test_clip_there_and_back(projection, act, tmp_path):
  name = "CLIPVisionModelWithProjection" if projection else "CLIPVisionModel"
  model = getattr(transformers, name)(tower(act)).eval()
  model.save_pretrained(tmp_path / "hf")
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  assert_same_bits(tmp_path / "back", Safetensors(tmp_path / "hf"))
  # The settings alone, without what else the source's config.json said.
  settings = tmp_path / "jax" / "config.json"
  content = json.loads(settings.read_text()) | {"hugging_face": {}}
  settings.write_text(json.dumps(content))
  convert(tmp_path / "jax", tmp_path / "bare", to="hf")
  for folder in ("back", "bare"):
    again = getattr(transformers, name).from_pretrained(tmp_path / folder)
    with torch.no_grad():
      assert torch.equal(
        model(PIXELS).last_hidden_state, again.eval()(PIXELS).last_hidden_state
      )


def test_heads_that_a_nested_config_leaves_out(tmp_path):
  """transformers 4 saves no default of a nested config, such as 12 heads."""
  config = tower()
  config.hidden_size, config.num_attention_heads = 192, 12
  transformers.CLIPVisionModel(config).save_pretrained(tmp_path / "hf")
  nested = dict(hidden_size=192, patch_size=4, image_size=8)
  shown = dict(model_type="clip", vision_config=nested)
  (tmp_path / "hf" / "config.json").write_text(json.dumps(shown))
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  shown = json.loads((tmp_path / "jax" / "config.json").read_text())
  assert shown["model"]["num_heads"] == 12


def test_a_whole_clip_gives_its_tower(tmp_path):
  text = transformers.CLIPTextConfig(
    vocab_size=20,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
  )
  config = transformers.CLIPConfig(
    text_config=text.to_dict(),
    vision_config=tower().to_dict(),
    projection_dim=6,
  )
  model = transformers.CLIPModel(config).eval()
  model.save_pretrained(tmp_path / "hf")
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  again = transformers.CLIPVisionModelWithProjection.from_pretrained(
    tmp_path / "back"
  ).eval()
  with torch.no_grad():
    embeds = model.vision_model(PIXELS).pooler_output
    embeds = model.visual_projection(embeds)
    assert torch.equal(embeds, again(PIXELS).image_embeds)
  shown = json.loads((tmp_path / "back" / "config.json").read_text())
  assert shown["model_type"] == "clip_vision_model"
  assert "text_config" not in shown


def open_clip_model(width=64, heads=1):
  module = import_open_clip()
  sizes = dict(image_size=8, patch_size=4, layers=2, width=width)
  return module.CLIP(
    embed_dim=6,
    vision_cfg=dict(**sizes, head_width=width // heads, mlp_ratio=2.0),
    text_cfg=dict(context_length=4, vocab_size=20, width=16, heads=2, layers=1),
    quick_gelu=True,
  )


def test_open_clip_there_and_back(tmp_path, caplog):
  """As its training saves it: in a part, with DDP's prefix."""
  state = open_clip_model().state_dict()
  saved = {f"module.{key}": value for key, value in state.items()}
  torch.save({"state_dict": saved, "epoch": 1}, tmp_path / "epoch.pt")
  convert(
    tmp_path / "epoch.pt",
    tmp_path / "jax",
    to="jax",
    family="clip",
    part="state_dict",
  )
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  vision = {k: v for k, v in state.items() if k.startswith("visual.")}
  assert_same_bits(tmp_path / "back", vision)
  assert "taking quick_gelu" in caplog.text


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torch_script_archive_as_openai_published(tmp_path):
  state = open_clip_model().half().state_dict()
  sizes = {"input_resolution": torch.tensor(8), "vocab_size": torch.tensor(20)}
  made = torch.jit.script(Tree(state | sizes))
  made.save(str(tmp_path / "ViT-X.pt"))
  convert(tmp_path / "ViT-X.pt", tmp_path / "jax", to="jax", family="clip")
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  vision = {k: v for k, v in state.items() if k.startswith("visual.")}
  assert_same_bits(tmp_path / "back", vision)


def test_heads_that_no_tensor_tells(tmp_path):
  state = open_clip_model(width=80, heads=2).state_dict()
  torch.save(state, tmp_path / "clip.pt")
  asked = dict(to="jax", family="clip")
  with pytest.raises(ValueError, match="--settings FILE"):
    convert(tmp_path / "clip.pt", tmp_path / "jax", **asked)
  for heads, fits in ((2, True), (3, False), ("2", False)):
    config = {"vision_config": {"num_attention_heads": heads}}
    (tmp_path / "vision.json").write_text(json.dumps(config))
    asked["settings"] = tmp_path / "vision.json"
    if fits:
      convert(tmp_path / "clip.pt", tmp_path / "jax", **asked)
    else:
      with pytest.raises(ValueError, match="num_attention_heads"):
        convert(tmp_path / "clip.pt", tmp_path / "other", **asked)
  shown = json.loads((tmp_path / "jax" / "config.json").read_text())
  assert shown["model"]["num_heads"] == 2


@pytest.mark.parametrize("features, classes", [(64, 7), (0, 0)])
def test_nfnet_there_and_back(features, classes, tmp_path):
  sizes = dict(depths=(1, 2, 1), widths=(16, 32, 48), stem=16, group=8)
  model = reference(**sizes, features=features, classes=classes)
  torch.save(model.state_dict(), tmp_path / "nfnet.pth")
  convert(tmp_path / "nfnet.pth", tmp_path / "jax", to="jax", family="nfnet")
  shown = json.loads((tmp_path / "jax" / "config.json").read_text())["model"]
  wanted = {k: list(v) if isinstance(v, tuple) else v for k, v in sizes.items()}
  assert shown == wanted | dict(features=features, classes=classes)
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  assert_same_bits(tmp_path / "back", model.state_dict())
  assert not (tmp_path / "back" / "config.json").exists()


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda s: s.pop("stages.1.0.conv2b.gain"), "stages_1/first"),
    (lambda s: s.pop("stages.1.0.skipinit_gain"), "for every stage"),
    (lambda s: s.pop("stem.conv4.bias"), "it has no stem.conv4.bias"),
    (lambda s: s.clear() or s.update(w=torch.ones(1)), "This is no NFNet"),
    (lambda s: s.update(x=torch.ones(1)), "no rule"),
  ],
)
def test_what_is_no_nfnet(change, message, tmp_path):
  model = reference((1, 1, 1), (16, 16, 16), 16, 8, 0, 0)
  state = model.state_dict()
  change(state)
  torch.save(state, tmp_path / "nfnet.pth")
  with pytest.raises(ValueError, match=message):
    convert(tmp_path / "nfnet.pth", tmp_path / "jax", to="jax", family="nfnet")


@pytest.mark.parametrize(
  "config",
  [
    dict(architecture="nfnet_f0"),
    dict(model_args=dict(act_layer="silu")),
    dict(model_args=dict(num_classes=3, alpha=0.1)),
    dict(global_pool="max"),
  ],
)
def test_settings_of_timm_that_no_tensor_tells(config, tmp_path):
  state = reference((1,), (16,), 16, 8, 0, 0).state_dict()
  torch.save(state, tmp_path / "nfnet.pth")
  config = dict(architecture="dm_nfnet_f0") | config
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match=r"config\.json"):
    convert(tmp_path / "nfnet.pth", tmp_path / "jax", to="jax", family="nfnet")


def test_timm_loads_an_exported_nfnet(tmp_path):
  """A published size, so that its folder says which model it is."""
  timm = import_timm()
  model = timm.create_model("dm_nfnet_f0", num_classes=2).eval()
  torch.save(model.state_dict(), tmp_path / "f0.pth")
  convert(tmp_path / "f0.pth", tmp_path / "jax", to="jax", family="nfnet")
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  again = timm.create_model(f"local-dir:{tmp_path / 'back'}", pretrained=True)
  state = again.state_dict()
  for key, value in model.state_dict().items():
    assert torch.equal(value, state[key]), key


def test_efficientnet_there_and_back(tmp_path):
  """The published file; counters of its training are left out."""
  asked = dict(to="jax", family="efficientnet_lite0")
  convert(pretrained(), tmp_path / "jax", **asked)
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  weights = open_weights(pretrained())
  state = {k: weights[k] for k in weights if "num_batches" not in k}
  assert_same_bits(tmp_path / "back", state)
  model = EfficientNet.from_name("efficientnet-lite0")
  back = load_file(tmp_path / "back" / "model.safetensors")
  model.load_state_dict({k: torch.tensor(v) for k, v in back.items()})
