"""A LLaVA that `mmjax convert SRC DST --to jax` wrote, as the config of a run.

  config = config_of("llava-1.5")           # Asked as it was trained,
  config = config_of("llava-1.5", system="")  # or as Hugging Face asks it.
  model = load_model(config, "llava-1.5", dict(max_new_tokens=64))

Nothing was trained here: all parameters are the folder's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmjax.cli.llava_layouts import IMAGE
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


def config_of(
  folder: str | Path,
  *,
  template: str = "vicuna_v1",
  system: str | None = None,
  aspect: str | None = None,
  dtype: str | None = None,
  length: int = LENGTH,
) -> dict[str, Any]:
  """The config of a run, for `load_model` and all that takes one.

  Args:
    folder: with a config.json, weights and a tokenizer.
    template: of text.prompts.chat_templates, that the model was trained with.
    system: text in place of the template's; "" leaves it out.
    aspect: of ASPECTS; None is what the folder says.
    dtype: of weights and computation; None is float32 on a CPU, else bfloat16.
    length: tokens of a conversation at most.

  Raises:
    ValueError: for a folder of anything else, or one that lacks a part.
  """
  folder = Path(folder)
  config, fields = _fields(folder)
  tokenizer, chat = _tokenizer(folder, fields["image_token"])
  if config.get("hugging_face", {}).get("mm_use_im_start_end"):
    chat["around"] = _AROUND
  chat |= dict(template=template, system=system)
  dtype = dtype or _dtype()
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
  template: str = "vicuna_v0",
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
  dtype = dtype or _dtype()
  prompt = dict(name="chat", template=template, length=length, **chat)
  return dict(
    system="text",
    model=dict(lm=dict(name=config["family"], **config["model"]), dtype=dtype),
    tokenizer=tokenizer,
    data=dict(datasets=dict(chat=dict(prompt=prompt))),
    init=dict(lm=dict(name="converted", path=str(folder), dtype=dtype)),
    train=dict(trainable=[(".*", True)]),
  )


def _dtype() -> str:
  return "float32" if jax.default_backend() == "cpu" else "bfloat16"


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


def _fields(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """A folder's config.json, and the model's settings in it."""
  path = folder / "config.json"
  config = read_json(path) if path.is_file() else {}
  if "family" not in config or "model" not in config:
    raise ValueError(
      f"{folder} is no folder that `mmjax convert` wrote. Make one of a LLaVA "
      f"first: mmjax convert {folder} NEW_FOLDER --to jax"
    )
  if config["family"] != "llava":
    raise ValueError(
      f"{folder} holds a model of the family {config['family']!r}; only a "
      "LLaVA can be asked without a run. Name it in config.init of one."
    )
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
  return config, fields


def _tokenizer(
  folder: Path, image: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The folder's tokenizer, and what a prompt has to know of it.

  Args:
    folder: with the files of one.
    image: id of an image's places, where the vocabulary has one.
  """
  settings, path = _tokenizer_settings(folder)
  vocabulary = folders.read(path).get_vocab(with_added_tokens=True)
  ends = {end: name for end, name in _ENDS.items() if name in vocabulary}
  for end in ("bos", "eos", "pad"):
    if name := _name(settings.get(f"{end}_token")):
      ends[end] = name
  known = image is not None and vocabulary.get(IMAGE) == image
  chat = dict(
    image=IMAGE if known else "", legacy=settings.get("legacy") is not False
  )
  return dict(name="file", path=str(path), **ends), chat


def _tokenizer_settings(folder: Path) -> tuple[dict[str, Any], Path]:
  """What the files beside a tokenizer say, and where to read it."""
  settings: dict[str, Any] = {}
  for name in ("special_tokens_map.json", "tokenizer_config.json"):
    if (folder / name).is_file():
      read = read_json(folder / name)
      settings |= {k: v for k, v in read.items() if v is not None}
  if (folder / "tokenizer_config.json").is_file():
    return settings, folder
  # The folder's config.json is ours, and does not say of which kind it is.
  path = folder / "tokenizer.json"
  if not path.is_file():
    raise ValueError(
      f"There is no tokenizer in {folder}. Copy tokenizer_config.json and "
      "tokenizer.json or tokenizer.model of the model there."
    )
  return settings, path


def _name(token: Any) -> str | None:
  """A special token's name, as it is or among its other settings."""
  return token.get("content") if isinstance(token, Mapping) else token
