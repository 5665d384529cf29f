"""From Hugging Face, trained, and back: the same loss on both sides."""

import json

import jax
import numpy as np
import peft
import pytest
import torch
import transformers
from flax import linen as nn
from PIL import Image

from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.cli.convert import convert
from mmjax.cli.llava_run import fields_of
from mmjax.cli.train import train
from mmjax.convert.read import Safetensors, read_json
from mmjax.data import build
from mmjax.losses.token import next_token
from mmjax.systems import llava
from mmjax.training.sources import load_parts, make_tokenizer
from tests.data.pictures import photo
from tests.llava import hugging_face as hf
from tests.llava.test_layouts import words

SIDE = 16
LORA = dict(rank=2, alpha=8.0, dropout=0.1)


def conversations(folder):
  """Four of them: with a picture, with two, in two turns, without any."""
  turns = [
    [("<image>\nw1 w2", "w3 w4")],
    [("<image> <image> w5", "w6")],
    [("<image> w7", "w8 w9 w10"), ("w11", "w12")],
    [("w13 w14", "w15")],
  ]
  records, number = [], 0
  for i, own in enumerate(turns):
    names = []
    for _ in range(sum(q.count("<image>") for q, _ in own)):
      Image.fromarray(photo(24, 20, number)).save(folder / f"{number}.png")
      names.append(f"{number}.png")
      number += 1
    said = [
      {"from": who, "value": text}
      for turn in own
      for who, text in zip(("human", "gpt"), turn)
    ]
    records.append(dict(id=str(i), image=names, conversations=said))
  (folder / "chats.json").write_text(json.dumps(records))


def config_of(folder, fields, lora=None, trainable=((".*", True),)):
  model = hf.model_config(fields)
  if lora:
    model["lm"] = model["lm"] | dict(lora=lora)
  return dict(
    system="llava",
    seed=0,
    model=model,
    init=dict(all=dict(name="converted", path=str(folder / "jax"))),
    tokenizer=dict(
      name="file",
      path=str(folder / "jax" / "tokenizer.json"),
      bos="<s>",
      eos="</s>",
      pad="<unk>",
    ),
    data=dict(
      seed=0,
      threads=1,
      datasets=dict(
        chats=dict(
          source=dict(name="json", paths=str(folder / "chats.json")),
          format=dict(name="conversations", folder=str(folder)),
          prompt=dict(
            name="chat", length=48, media=2, media_tokens=4, image="<image>"
          ),
          transforms=[dict(name="expand"), dict(name="clip_val", size=SIDE)],
          batch=4,
        )
      ),
    ),
    train=dict(
      trainable=[list(rule) for rule in trainable],
      optimizer=dict(
        name="adamw",
        clip_norm=1.0,
        schedule=dict(name="warmup_constant", peak=0.02, warmup=0),
      ),
      plan=dict(steps=2, log_every=1, checkpoint_every=2),
    ),
    mesh=dict(data=1, fsdp=1, sequence=1, tensor=1),
  )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  conversations(folder)
  theirs = hf.make("plain")
  theirs.save_pretrained(folder / "hf")
  words(folder / "hf", image=True)
  convert(folder / "hf", folder / "jax", to="jax")
  return folder


def batch_of(config):
  tokenizer = make_tokenizer(config["tokenizer"])
  with build.batches(config["data"], tokenizer) as batches:
    return next(batches)["chats"]


def loss_here(config, run, batch):
  module = llava.build(config["model"])
  trained = load_trainable(run / "checkpoints")
  batch = {k: v for k, v in batch.items() if k != "skipped"}
  like = jax.eval_shape(module.init, jax.random.key(0), batch)["params"]
  loaded = load_parts(config["init"], nn.unbox(like))
  flat = {k: np.asarray(v) for k, v in loaded.items()} | tree.flatten(trained)
  params = tree.unflatten(flat)
  logits = jax.jit(module.apply)({"params": params}, batch).logits
  total, count = next_token(logits, batch)["loss"]
  return float(total / count)


def loss_there(model, batch, image):
  """Hugging Face's own loss of the same conversations."""
  tokens, places = batch["tokens"], batch["media"]["image"]["index"]
  labels = np.full(tokens.shape, -100)
  labels[:, 1:] = np.where(batch["weights"] > 0, batch["targets"], -100)[:, :-1]
  media = batch["media"]["image"]
  with torch.no_grad():
    found = model(
      input_ids=torch.tensor(np.where(places > 0, image, tokens)).long(),
      attention_mask=torch.tensor(batch["segments"]),
      pixel_values=hf.normalised(media["values"][media["mask"]]),
      labels=torch.tensor(labels).long(),
    )
  return float(found.loss)


def load(folder):
  return transformers.LlavaForConditionalGeneration.from_pretrained(
    folder
  ).eval()


def test_the_loss_after_training_is_the_same_there(folder):
  fields = read_json(folder / "jax" / "config.json")["model"]
  config = config_of(
    folder, fields, trainable=[("encoder/.*", False), (".*", True)]
  )
  run = folder / "run"
  train(config, run)
  convert(run, folder / "trained", to="hf")
  batch = batch_of(config)
  here = loss_here(config, run, batch)
  model = load(folder / "trained")
  image = model.config.image_token_id
  assert image == hf.IMAGE
  assert loss_there(model, batch, image) == pytest.approx(here, rel=1e-5)
  before = loss_there(load(folder / "hf"), batch, hf.IMAGE)
  assert before > here + 0.1
  processor = transformers.AutoProcessor.from_pretrained(
    folder / "trained", backend="pil"
  )
  assert processor.tokenizer.convert_tokens_to_ids("<image>") == image


def test_low_rank_updates_leave_merged_and_as_an_adapter(folder):
  fields = read_json(folder / "jax" / "config.json")["model"]
  config = config_of(
    folder,
    fields,
    LORA,
    [("lm/.*/lora_[ab]", True), ("connector/.*", True), (".*", False)],
  )
  run = folder / "lora"
  train(config, run)
  batch = batch_of(config)
  here = loss_here(config, run, batch)
  convert(run, folder / "merged", to="hf")
  model = load(folder / "merged")
  image = model.config.image_token_id
  assert loss_there(model, batch, image) == pytest.approx(here, rel=1e-5)
  convert(run, folder / "adapter", to="hf", adapter=True)
  base = load(folder / "hf")
  untouched = set(base.model.vision_tower.state_dict())
  adapted = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
  assert loss_there(adapted, batch, hf.IMAGE) == pytest.approx(here, rel=1e-5)
  tower = adapted.get_base_model().model.vision_tower.state_dict()
  assert set(tower) == untouched
  names = set(Safetensors(folder / "adapter"))
  assert len([n for n in names if ".lora_A." in n]) == 7 * 2


def test_what_no_layout_has_is_told(folder, tmp_path):
  fields = read_json(folder / "jax" / "config.json")["model"]
  config = config_of(folder, fields)
  (tmp_path / "run").mkdir()
  for changes, message in (
    (dict(encoder=dict(name="efficientnet_lite")), "EfficientNetLite"),
    (dict(lm=config["model"]["lm"] | dict(extra_tokens=1)), "extra_tokens"),
  ):
    wrong = config | dict(model=config["model"] | changes)
    with pytest.raises(ValueError, match=message):
      fields_of(wrong)
