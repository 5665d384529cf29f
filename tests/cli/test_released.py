"""A released OpenFlamingo, from its published parts to an answer."""

import copy
import json
import re

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file
from tokenizers import models, pre_tokenizers

from configs.flamingo import open_flamingo
from mmjax.cli import main as cli
from tests import original_flamingo as original

# Rows of the published table; the tokenizer has fewer tokens.
WORDS, PADDED = 47, 56
SIZE, SPAN = 28, 8


def save_tokenizer(path):
  words = {f"w{i}": i for i in range(WORDS - 1)} | {"<|endoftext|>": WORDS - 1}
  backend = tokenizers.Tokenizer(models.WordLevel(words, unk_token="w0"))
  backend.pre_tokenizer = pre_tokenizers.Whitespace()
  backend.save(str(path))


def save_parts(model, folder):
  """The three things that are published, as they are published."""
  state = model.state_dict()
  state = {k: v for k, v in state.items() if "old_decoder_blocks" not in k}
  language = transformers.MptConfig(
    vocab_size=PADDED, d_model=32, n_layers=4, n_heads=4
  )
  language = transformers.AutoModelForCausalLM.from_config(language)
  plain = {
    k.removeprefix("lang_encoder.").replace("decoder_layer.", ""): v
    for k, v in state.items()
    if k.startswith("lang_encoder.") and "gated_cross_attn" not in k
  }
  table = language.state_dict()["transformer.wte.weight"].clone()
  table[:WORDS] = plain["transformer.wte.weight"][:WORDS]
  plain["transformer.wte.weight"] = plain["lm_head.weight"] = table
  language.load_state_dict(plain)
  language.save_pretrained(folder / "mpt")
  tower = {
    k.removeprefix("vision_encoder."): v
    for k, v in state.items()
    if k.startswith("vision_encoder.")
  }
  torch.save({f"visual.{k}": v for k, v in tower.items()}, folder / "clip.pt")
  kept = r"perceiver|.*gated_cross_attn_layer\.|.*wte"
  trained = {k: v for k, v in state.items() if re.match(kept, k)}
  torch.save(trained, folder / "checkpoint.pt")


def config_of(folder):
  """The shipped recipe around parts of this size."""
  config = open_flamingo.released("3B", str(folder / "of_jax")).to_dict()
  config["model"]["lm"].update(
    vocab_size=WORDS, width=32, num_layers=4, num_heads=4, hidden=128
  )
  config["model"]["lm"]["qk_norm"] = False
  config["model"]["dtype"] = config["train"]["frozen_dtype"] = "float32"
  config["model"]["encoder"] = dict(
    name="vit",
    width=64,
    num_layers=2,
    num_heads=1,
    patch=14,
    image_size=SIZE,
    hidden=128,
    activation="quick_gelu",
    norm_tokens=True,
  )
  config["model"]["resampler"].update(width=64, hidden=256)
  config["model"]["xattn"].update(every=2, first=1, hidden=128)
  for part, name in (("lm", "mpt_jax"), ("encoder", "clip_jax")):
    config["init"][part]["path"] = str(folder / name)
  config["tokenizer"]["path"] = str(folder / "tokenizer.json")
  for entry in config["data"]["datasets"].values():
    entry["transforms"] = [dict(name="clip_val", size=SIZE)]
  return config


@pytest.fixture(scope="module")
def released(tmp_path_factory):
  """The original, and a folder of its parts, converted."""
  folder = tmp_path_factory.mktemp("released")
  model = original.whole("mpt")
  with torch.no_grad():  # As drawn, it says one word for ever.
    for name, value in model.lang_encoder.named_parameters():
      if value.dim() > 1:
        value.mul_(8 if "wte" not in name else 2)
  save_tokenizer(folder / "tokenizer.json")
  save_parts(model, folder)
  for source, target, family in (
    ("mpt", "mpt_jax", "mpt"),
    ("clip.pt", "clip_jax", "clip"),
    ("checkpoint.pt", "of_jax", "open_flamingo"),
  ):
    made = [str(folder / source), str(folder / target)]
    extra = ["--family", family]
    assert cli.main(["convert", *made, "--to", "jax", *extra]) == 0
  return model, folder


@pytest.fixture(scope="module")
def picture(released):
  pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
  path = released[1] / "picture.png"
  Image.fromarray(pixels).save(path)
  return pixels, str(path)


def greedy(model, pixels, ids, count):
  """What the original goes on with, one forward pass a token."""
  mean, std = (np.array(x, np.float32) for x in original.NORMALISE)
  image = torch.tensor((pixels / 255 - mean) / std).float()
  image = image.permute(2, 0, 1)[None, None, None]
  said = []
  for _ in range(count):
    with torch.no_grad():
      logits = model(image, torch.tensor([ids + said])).logits
    said.append(int(logits[0, -1].argmax()))
    if said[-1] == original.END:
      break
  return said


def ask(folder, config, *arguments):
  path = folder / "asked.json"
  path.write_text(json.dumps(config))
  run = ["--config", str(path), "--workdir", str(folder / "no_run")]
  return cli.main(["generate", *run, *arguments])


def test_it_says_what_the_original_says(released, picture, capsys):
  model, folder = released
  pixels, path = picture
  arguments = ["--image", path, "--prompt", "w3 w9", "--max-new-tokens", "8"]
  assert ask(folder, config_of(folder), *arguments) == 0
  ours = capsys.readouterr().out.split()
  theirs = greedy(model, pixels, [original.IMAGE, 3, 9], SPAN)
  assert len(set(theirs)) > 2
  words = [f"w{i}" for i in theirs if i < WORDS - 1]
  assert ours == words


def test_a_vocabulary_that_is_padded_is_refused(released, picture, capsys):
  """Its new tokens would read rows that never train."""
  _, folder = released
  config = config_of(folder)
  config["model"]["lm"]["vocab_size"] = PADDED
  assert ask(folder, config, "--image", picture[1]) == 1
  said = capsys.readouterr().err
  assert f"begin at {WORDS}" in said and f"at {PADDED}" in said
  config = config_of(folder)
  del config["init"]["lm"]["cut_vocabulary"]
  assert ask(folder, config, "--image", picture[1]) == 1
  assert "embedding/table: (56, 32), the model's is (47, 32)" in (
    capsys.readouterr().err
  )


def test_a_checkpoint_that_is_not_whole_is_refused(released, picture, capsys):
  _, folder = released
  config = config_of(folder)
  config["model"]["lm"]["extra_tokens"] = 4
  assert ask(folder, config, "--image", picture[1]) == 1
  assert "embedding/extra: (3, 32), the model's is (4, 32)" in (
    capsys.readouterr().err
  )
  without = copy.deepcopy(config_of(folder))
  del without["init"]["all"]
  assert ask(folder, without, "--image", picture[1]) == 1
  assert "is no directory of checkpoints" in capsys.readouterr().err


def test_the_tables_of_the_checkpoint_win(released):
  """The rows of the new tokens are the last of its table."""
  _, folder = released
  files = (folder / "of_jax").glob("*.safetensors")
  table = next(iter(load_file(f) for f in files))["lm/embedding/table"]
  assert table.shape == (WORDS + 3, 32)


def test_it_is_evaluated_on_official_files(released, picture, capsys):
  """Without a run: the config alone says where everything is."""
  _, folder = released
  captions = [dict(image_id=i, id=i, caption="w3 w9") for i in range(3)]
  images = [dict(id=i, file_name="picture.png") for i in range(3)]
  path = folder / "captions.json"
  path.write_text(json.dumps(dict(images=images, annotations=captions)))
  source = dict(name="coco_captions", annotations=str(path), images=str(folder))
  config = config_of(folder)
  config["evaluate"].update(
    tasks=dict(coco=dict(queries=source, support=source, max_new_tokens=4)),
    protocol=dict(style="open_flamingo", shots=[2]),
    model=dict(num_beams=2, batch_size=3),
    prompt=dict(length=48, media=3),
  )
  path = folder / "evaluated.json"
  path.write_text(json.dumps(config))
  run = ["--config", str(path), "--workdir", str(folder / "evaluated")]
  assert cli.main(["evaluate", *run]) == 0
  said = capsys.readouterr().out.splitlines()[-1].split()
  assert said[:2] == ["coco", "2"]
  lines = (folder / "evaluated" / "records.jsonl").read_text().splitlines()
  assert len(lines) == 3
