"""Converted BLIP-2s and InstructBLIPs asked without a run, as Hugging Face's.

Pictures and ids are those of Hugging Face's own processors. That of videos
needs torchvision; what it makes of a clip is what InstructBLIP's makes of as
many pictures.
"""

import json
import shutil

import numpy as np
import pytest
import tokenizers
import transformers
from PIL import Image
from tokenizers import models, pre_tokenizers, processors
from transformers.models.blip import image_processing_pil_blip

from mmjax.cli import main
from mmjax.cli.convert import convert
from mmjax.cli.evaluate import load_model
from mmjax.cli.released import config_of
from mmjax.data.document import Document, File, Media, Text
from mmjax.layers.conv import normalise
from tests.blip2 import hugging_face as hf
from tests.data.pictures import photo
from tests.data.test_video import clip
from tests.llava.hugging_face import VISION

SIDE = VISION["image_size"]
VARIANTS = {
  "BLIP-2": ("BLIP-2, OPT", "image"),
  "InstructBLIP": ("grouped queries", "image"),
  "InstructBLIP of videos": ("video", "video"),
}
ASKED = "w7 w9 w11"


def words(count, names, around):
  """A tokenizer of so many words that puts special tokens around a text."""
  every = [*names, *(f"w{i}" for i in range(len(names), count))]
  made = tokenizers.Tokenizer(
    models.WordLevel({word: i for i, word in enumerate(every)}, names[1])
  )
  made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  made.add_special_tokens(list(names))
  ids = [(name, made.token_to_id(name)) for name in names]
  made.post_processor = processors.TemplateProcessing(
    single=around, special_tokens=ids
  )
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=made, unk_token=names[1], pad_token=names[0]
  )


def processor(kind, instructed):
  """Hugging Face's, with small tokenizers."""
  # The id 2 ends an answer of LLaMA and OPT.
  names = ("<pad>", "<unk>", "</s>")
  lm = words(hf.MEDIA, names, "</s> $A")
  frames = hf.FRAMES if kind == "video" else 1
  given = dict(tokenizer=lm, num_query_tokens=hf.QUERIES * frames)
  if instructed:
    ends = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    given["qformer_tokenizer"] = words(41, ends, "[CLS] $A [SEP]")
  size = dict(height=SIDE, width=SIDE)
  # Of two that differ by a step of a pixel, the one that resizes as PIL does.
  images = image_processing_pil_blip.BlipImageProcessorPil(size=size)
  make = "InstructBlipProcessor" if instructed else "Blip2Processor"
  return getattr(transformers, make)(images, **given)


@pytest.fixture(scope="module", params=VARIANTS)
def made(request, tmp_path_factory):
  """Hugging Face's model and processor, the folders, and a file."""
  folder = tmp_path_factory.mktemp("blip")
  variant, kind = VARIANTS[request.param]
  model = hf.make(variant)
  process = processor(kind, "Instruct" in type(model).__name__)
  model.save_pretrained(folder / "hf")
  process.save_pretrained(folder / "hf")
  convert(folder / "hf", folder / "jax", to="jax")
  if kind == "video":
    (folder / "file").write_bytes(clip(size=(SIDE, SIDE)))
  else:
    Image.fromarray(photo(40, 20)).save(folder / "file", format="PNG")
  return model, process, kind, folder


def theirs(made, document, model):
  """What the processor makes of a document, by our reader of its file."""
  _, process, kind, folder = made
  if kind == "video":
    clip = model.encoder.readers["video"].read(document.media[0], "", ())
    shown = list(map(Image.fromarray, clip.values))
  else:
    shown = Image.open(folder / "file")
  given = process(images=shown, text=document.text, return_tensors="pt")
  if kind == "video":
    given["pixel_values"] = given["pixel_values"][None]
  return given


def test_inputs_are_those_of_the_processor(made):
  _, _, kind, folder = made
  ours = load_model(config_of(folder / "jax"), folder / "jax")
  path = str(folder / "file")
  document = Document((Media(kind, File(path)), Text(ASKED)))
  given = theirs(made, document, ours)
  example = ours.encoder.query(document)
  count = int((example["segments"] > 0).sum())
  ids, index = given["input_ids"][0].numpy(), example["media"][kind]["index"]
  assert count == len(ids)
  np.testing.assert_array_equal(index[:count] > 0, ids == hf.MEDIA)
  text = index[:count] == 0
  np.testing.assert_array_equal(example["tokens"][:count][text], ids[text])
  pixels = example["media"][kind]["values"][:, 0]
  seen = np.asarray(normalise(pixels, *_scale(ours), np.float32))
  expected = given["pixel_values"].reshape(-1, 3, SIDE, SIDE).numpy()
  np.testing.assert_allclose(seen, expected.transpose(0, 2, 3, 1), atol=1e-5)
  if "qformer_input_ids" in given:
    read = given["qformer_input_ids"][0].tolist()
    for row in example["media"][kind]["text"]:
      assert row.tolist() == read + [0] * (len(row) - len(read))


def _scale(model):
  encoder = model.module.encoders["eva"]
  return encoder.mean, encoder.std


def test_it_says_what_hugging_faces_says(made, capsys):
  model, process, kind, folder = made
  path = str(folder / "file")
  ask = ["generate", str(folder / "jax"), "--max-new-tokens", "8"]
  assert main.main([*ask, f"--{kind}", path, "--prompt", ASKED]) == 0
  found = capsys.readouterr().out.splitlines()[-1]
  ours = load_model(config_of(folder / "jax"), folder / "jax")
  document = Document((Media(kind, File(path)), Text(ASKED)))
  given = theirs(made, document, ours)
  given = {k: v for k, v in given.items() if k != "token_type_ids"}
  said = model.generate(**given, do_sample=False, max_new_tokens=8)
  new = said[0, given["input_ids"].shape[1] :]
  assert found == process.tokenizer.decode(new, skip_special_tokens=True)
  assert len(found.split()) > 1


def test_released_formats_are_templates(made, capsys):
  _, _, kind, folder = made
  config = config_of(folder / "jax", template="x_instructblip_7b", length=99)
  (entry,) = config["data"]["datasets"].values()
  assert entry["prompt"]["format"] == "x_instructblip_7b"
  json.dumps(config)
  ask = ["generate", str(folder / "jax"), "--template", "vicuna_v1"]
  assert main.main([*ask, "--prompt", "w1"]) == 1
  assert "format of prompts" in capsys.readouterr().err


def test_what_does_not_fit_is_told(made, tmp_path, capsys):
  _, process, kind, folder = made
  ask = ["generate", str(folder / "jax"), "--prompt", "w1"]
  other = {"image": "video", "video": "image"}[kind]
  for extra, message in (
    (["--aspect", "pad"], "takes no 'aspect'"),
    ([f"--{other}", str(folder / "file")], f"reads no '{other}'"),
  ):
    assert main.main([*ask, *extra]) == 1
    assert message in capsys.readouterr().err
  if not hasattr(process, "qformer_tokenizer"):
    return
  shutil.copytree(folder / "jax", tmp_path / "jax")
  shutil.rmtree(tmp_path / "jax" / "qformer_tokenizer")
  with pytest.raises(ValueError, match="reads the prompt, but there is no"):
    config_of(tmp_path / "jax")


def test_the_files_of_lavis_are_not_whole(tmp_path):
  config = dict(family="instructblip", model=dict(lm=None), hugging_face={})
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match="no language model"):
    config_of(tmp_path)
