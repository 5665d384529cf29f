"""What `mmjax convert SRC DST --to jax` wrote, as the config of a run.

  config = config_of("llava-1.5")           # Asked as it was trained,
  config = config_of("llava-1.5", system="")  # or as Hugging Face asks it.
  model = load_model(config, "llava-1.5", dict(max_new_tokens=64))

  config = config_of("instructblip")

Nothing was trained here: all parameters are the folder's.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmjax.cli import released_blip
from mmjax.cli.llava_layouts import IMAGE
from mmjax.cli.released_parts import default_dtype, name_of, tokenizer_files
from mmjax.config import lookup
from mmjax.convert.read import read_json
from mmjax.text import folders

# Pictures are padded to a square (LLaVA-1.5), or lose their sides.
ASPECTS = {"pad": ("expand", "clip_val"), "square": ("clip_val",)}
# Tokens of a conversation: LLaVA never saw more.
LENGTH = 2048
# As LLaMA has them.
_ENDS = {"bos": "<s>", "eos": "</s>"}
_AROUND = ("<im_start>", "<im_end>")


def config_of(folder: str | Path, **options: Any) -> dict[str, Any]:
  """The config of a run, for `load_model` and all that takes one.

  Args:
    folder: with a config.json, weights and a tokenizer.
    **options: of `llava`, or of `released_blip.blip`.

  Raises:
    ValueError: for a folder of anything else, one that lacks a part, and an
      option of the other family.
  """
  folder = Path(folder)
  config = _config(folder)
  make = FAMILIES[config["family"]]
  for name in options.keys() - inspect.signature(make).parameters.keys():
    raise ValueError(
      f"The model in {folder} is of the family {config['family']!r}, which "
      f"takes no {name!r}."
    )
  return make(folder, config, **options)


def llava(
  folder: Path,
  config: Mapping[str, Any],
  *,
  template: str = "vicuna_v1",
  system: str | None = None,
  aspect: str | None = None,
  dtype: str | None = None,
  length: int = LENGTH,
) -> dict[str, Any]:
  """The config of a LLaVA.

  Args:
    folder: see `config_of`.
    config: its config.json.
    template: of text.prompts.chat_templates, that the model was trained with.
    system: text in place of the template's; "" leaves it out.
    aspect: of ASPECTS; None is what the folder says.
    dtype: of weights and computation; None is float32 on a CPU, else bfloat16.
    length: tokens of a conversation at most.

  Raises:
    ValueError: for a folder that lacks a part.
  """
  fields = _fields(folder, config)
  tokenizer, chat = _tokenizer(folder, fields["image_token"])
  if config.get("hugging_face", {}).get("mm_use_im_start_end"):
    chat["around"] = _AROUND
  chat |= dict(template=template, system=system)
  dtype = dtype or default_dtype()
  return dict(
    system="llava",
    model=dict(
      encoder=dict(name="vit", **fields["encoder"]),
      connector=dict(name="projection", **fields["connector"]),
      lm=dict(fields["lm"]),
      dtype=dtype,
    ),
    tokenizer=tokenizer,
    data=dict(datasets=dict(chat=_reading(fields, chat, aspect, length))),
    init=dict(all=dict(name="converted", path=str(folder), dtype=dtype)),
    train=dict(trainable=[(".*", True)]),
  )


def language_model_of(
  folder: str | Path,
  *,
  template: str = "llava_v0",
  dtype: str | None = None,
  length: int = LENGTH,
) -> dict[str, Any]:
  """The same of a language model, which answers chats without pictures.

  Args:
    folder: that `mmjax convert` wrote, with a tokenizer.
    template: of text.prompts.chat_templates; the default is plain text, that
      any model can go on with.
    dtype: of weights and computation, as above.
    length: tokens of a chat at most.

  Raises:
    ValueError: for a folder that has no tokenizer.
  """
  folder = Path(folder)
  config = read_json(folder / "config.json")
  tokenizer, chat = _tokenizer(folder, None)
  dtype = dtype or default_dtype()
  prompt = dict(name="chat", template=template, length=length, **chat)
  return dict(
    system="text",
    model=dict(lm=dict(name=config["family"], **config["model"]), dtype=dtype),
    tokenizer=tokenizer,
    data=dict(datasets=dict(chat=dict(prompt=prompt))),
    init=dict(lm=dict(name="converted", path=str(folder), dtype=dtype)),
    train=dict(trainable=[(".*", True)]),
  )


def _reading(
  fields: Mapping[str, Any],
  chat: Mapping[str, Any],
  aspect: str | None,
  length: int,
) -> dict[str, Any]:
  """How conversations and pictures are brought in."""
  encoder = fields["encoder"]
  side = encoder["image_size"] // encoder["patch"]
  tokens = side**2 + encoder["keep_class_token"]
  room = dict(length=length, media=max(length // tokens, 1))
  steps = lookup(ASPECTS, aspect or fields["aspect"], "aspect of pictures")
  sizes = {"clip_val": dict(size=encoder["image_size"])}
  return dict(
    prompt=dict(name="chat", media_tokens=tokens, **room, **chat),
    transforms=[dict(name=step, **sizes.get(step, {})) for step in steps],
  )


def _config(folder: Path) -> dict[str, Any]:
  """A folder's config.json, of a family that can be asked."""
  path = folder / "config.json"
  if not folder.is_dir():
    raise ValueError(f"There is no folder {folder}.")
  config = read_json(path) if path.is_file() else {}
  if "system" in config:
    raise ValueError(f"{folder} is a run; ask it by --workdir {folder}")
  if "family" not in config or "model" not in config:
    raise ValueError(
      f"{folder} is no folder that `mmjax convert` wrote. Make one first: "
      f"mmjax convert {folder} NEW_FOLDER --to jax"
    )
  if config["family"] not in FAMILIES:
    raise ValueError(
      f"{folder} holds a model of the family {config['family']!r}; only those "
      f"of {' and '.join(FAMILIES)} can be asked without a run. Name it in "
      "config.init of one, as configs/x_instructblip/joint.py:7b_released does "
      "with connectors."
    )
  return config


def _fields(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
  """The settings of a LLaVA that is whole."""
  fields = config["model"]
  if not fields["lm"]:
    raise ValueError(
      f"{folder} holds a projector alone. Name it in config.init of a run, or "
      "convert the whole model."
    )
  if not fields["encoder"]:
    raise ValueError(
      f"{folder} has no vision tower: its LLaVA was saved without. Convert it "
      f"again with the CLIP that it saw with: mmjax convert SRC {folder} "
      "--to jax --tower DIR"
    )
  return fields


def _tokenizer(
  folder: Path, image: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The folder's tokenizer, and what a prompt has to know of it.

  Args:
    folder: with the files of one.
    image: id of an image's places, where the vocabulary has one.
  """
  settings, path = tokenizer_files(folder)
  vocabulary = folders.read(path).get_vocab(with_added_tokens=True)
  ends = {end: name for end, name in _ENDS.items() if name in vocabulary}
  for end in ("bos", "eos", "pad"):
    if name := name_of(settings.get(f"{end}_token")):
      ends[end] = name
  known = image is not None and vocabulary.get(IMAGE) == image
  chat = dict(
    image=IMAGE if known else "", legacy=settings.get("legacy") is not False
  )
  return dict(name="file", path=str(path), **ends), chat


# Family of a folder to (folder, its config.json, options) -> config.
FAMILIES: Mapping[str, Callable[..., dict[str, Any]]] = {
  "llava": llava,
  "instructblip": released_blip.blip,
}
