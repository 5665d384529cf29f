"""A converted LLaVA asked without a run, against Hugging Face's own."""

import io
import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch

from mmjax.cli import main
from mmjax.cli.evaluate import load_model
from mmjax.cli.released import config_of
from mmjax.data.document import Document, File, Media, Text
from mmjax.data.image import ClipVal, Expand
from mmjax.text.prompts.chat_templates import CHAT_TEMPLATES
from tests.cli import released_llava
from tests.llava import hugging_face as hf

ASPECTS = {"pad": (Expand(), ClipVal(16)), "square": (ClipVal(16),)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """Hugging Face's model, both folders, and a picture."""
  folder = tmp_path_factory.mktemp("released")
  model = released_llava.make(folder)
  return model, folder, released_llava.picture(folder)


def theirs(model, folder, path, aspect, **prompt):
  """What Hugging Face's model says greedily of the picture."""
  ours = load_model(config_of(folder / "jax", **prompt), folder / "jax")
  document = Document((Media("image", File(path)), Text("w1 w2")))
  written = ours.encoder.prompt.query(document)
  assert (written.tokens == hf.IMAGE).sum() == hf.image_tokens(model.config)
  pixels = released_llava.square(path, ASPECTS[aspect])
  with torch.no_grad():
    said = model.generate(
      input_ids=torch.tensor(written.tokens[None].astype(np.int64)),
      attention_mask=torch.ones(1, len(written.tokens), dtype=torch.long),
      pixel_values=hf.normalised(pixels[None]),
      do_sample=False,
      max_new_tokens=8,
      eos_token_id=ours.tokenizer.eos,
    )
  return ours.tokenizer.decode(said[0, len(written.tokens) :]).strip()


@pytest.mark.parametrize(
  "aspect, options, prompt",
  [
    ("pad", [], {}),
    ("square", ["--aspect", "square", "--system", ""], dict(system="")),
  ],
)
def test_it_says_what_hugging_faces_says(made, capsys, aspect, options, prompt):
  model, folder, path = made
  ask = ["generate", str(folder / "jax"), "--max-new-tokens", "8", *options]
  assert main.main([*ask, "--image", path, "--prompt", "w1 w2"]) == 0
  found = capsys.readouterr().out.splitlines()[-1]
  assert found == theirs(model, folder, path, aspect, **prompt)
  assert len(set(found.split())) > 1


@pytest.mark.parametrize("kind", ["folder", "run"])
def test_a_pipe_is_answered(made, tmp_path, monkeypatch, capsys, kind):
  """`echo "w1 w2" | mmjax chat FOLDER --image a.png`."""
  model, folder, path = made
  where = [str(folder / "jax")]
  if kind == "run":
    config = json.dumps(config_of(folder / "jax"))
    (tmp_path / "config.json").write_text(config)
    where = ["--workdir", str(tmp_path)]
  monkeypatch.setattr("sys.stdin", io.StringIO("w1 w2\n"))
  options = ["--max-new-tokens", "8", "--image", path]
  assert main.main(["chat", *where, *options]) == 0
  found = capsys.readouterr().out
  assert found == theirs(model, folder, path, "pad") + "\n"


def test_its_config_is_that_of_a_run(made):
  _, folder, _ = made
  config = config_of(folder / "jax", length=40, template="mpt", system="w1")
  json.dumps(config)
  (entry,) = config["data"]["datasets"].values()
  # Room for as many pictures as there is for their tokens.
  assert entry["prompt"] == dict(
    name="chat",
    template="mpt",
    system="w1",
    length=40,
    media=10,
    media_tokens=4,
    image="<image>",
    legacy=True,
  )
  names = [transform["name"] for transform in entry["transforms"]]
  assert names == ["expand", "clip_val"]
  tokenizer = config["tokenizer"]
  assert (tokenizer["bos"], tokenizer["eos"]) == ("<s>", "</s>")
  assert config["model"]["dtype"] == "float32"


def test_weights_are_of_the_dtype_that_is_asked_for(made):
  _, folder, _ = made
  config = config_of(folder / "jax", dtype="bfloat16")
  model = load_model(config, folder / "jax")
  kernel = model.params["connector"]["linear_1"]["kernel"]
  assert kernel.dtype == ml_dtypes.bfloat16
  expected = made[0].model.multi_modal_projector.linear_1.weight
  found = np.asarray(kernel).astype(np.float32).T
  np.testing.assert_allclose(found, expected.detach(), rtol=1e-2)


def test_a_tokenizer_without_settings_ends_as_llamas(made, tmp_path):
  _, folder, _ = made
  shutil.copytree(folder / "jax", tmp_path / "jax")
  (tmp_path / "jax" / "tokenizer_config.json").unlink()
  tokenizer = config_of(tmp_path / "jax")["tokenizer"]
  assert tokenizer["path"].endswith("tokenizer.json")
  assert (tokenizer["bos"], tokenizer["eos"]) == ("<s>", "</s>")
  (tmp_path / "jax" / "tokenizer.json").unlink()
  with pytest.raises(ValueError, match="no tokenizer in"):
    config_of(tmp_path / "jax")


def changed(folder, target, **changes):
  """A folder with another config.json."""
  shutil.copytree(folder / "jax", target)
  config = json.loads((target / "config.json").read_text())
  config["model"] |= changes.pop("model", {})
  (target / "config.json").write_text(json.dumps(config | changes))
  return target


def test_places_that_no_token_names_are_padding(made, tmp_path):
  """As in the original's layout."""
  folder = changed(made[1], tmp_path / "a", model=dict(image_token=None))
  settings = json.loads((folder / "tokenizer_config.json").read_text())
  settings["legacy"] = False
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))
  (entry,) = config_of(folder)["data"]["datasets"].values()
  assert entry["prompt"]["image"] == "" and not entry["prompt"]["legacy"]


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(model=dict(encoder=None)), "--tower DIR"),
    (dict(model=dict(lm=None)), "projector alone"),
    (dict(family="clip"), "of the family 'clip'"),
  ],
)
def test_what_a_folder_lacks_is_told(made, tmp_path, changes, message, capsys):
  folder = changed(made[1], tmp_path / "a", **changes)
  assert main.main(["chat", str(folder)]) == 1
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  "arguments, message",
  [
    ([], "Name either a run"),
    (["FOLDER", "--workdir", "x"], "Name either a run"),
    (["FOLDER", "--config", "x.py"], "--config is for a run"),
    (["--workdir", "x", "--aspect", "pad"], "--aspect is for a FOLDER"),
    (["FOLDER", "--template", "vicuna"], "Unknown chat template"),
    (["FOLDER/../hf"], "--to jax"),
  ],
)
def test_options_that_do_not_fit_are_told(made, arguments, message, capsys):
  folder = str(made[1] / "jax")
  given = [argument.replace("FOLDER", folder) for argument in arguments]
  assert main.main(["chat", *given]) == 1
  assert message in capsys.readouterr().err


def test_help_names_every_template(capsys):
  with pytest.raises(SystemExit):
    main.main(["chat", "--help"])
  said = capsys.readouterr().out
  assert all(name in said for name in CHAT_TEMPLATES)
