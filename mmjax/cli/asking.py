"""What `mmjax generate` and `mmjax chat` take on their command line."""

import argparse
from pathlib import Path
from typing import Any

# Tokens of an answer at most.
GENERATED, SAID = 32, 512

# For --help, which has no time to import the tables.
TEMPLATES = (
  "chatml, chatml_direct, llama_2, llava_llama_2, llava_v0, llava_v1, "
  "mistral_instruct, mpt, plain (v0_plain), v0_mmtag, v1_mmtag, "
  "vicuna_v0 (default, v0) or vicuna_v1 (v1)"
)
FORMATS = (
  "instructblip, x_instructblip, x_instructblip_7b, x_instructblip_7b_asked, "
  "x_instructblip_asked or x_instructblip_no_cue"
)


class _Part(argparse.Action):
  """Collects parts of a prompt in the order of the command line."""

  def __call__(self, parser, namespace, value, option=None):
    kind = "text" if option == "--prompt" else option.removeprefix("--")
    parts = [*(getattr(namespace, self.dest) or ()), (kind, value)]
    setattr(namespace, self.dest, parts)


def add_generate(verb: argparse.ArgumentParser) -> None:
  _add_model(verb)
  for option, kind, text in (
    ("--image", "FILE", "a JPEG, PNG, WebP or GIF; may come again"),
    ("--video", "FILE", "an MP4, MOV, MKV, WebM or AVI; may come again"),
    ("--audio", "FILE", "a WAV, FLAC, OGG or MP3; may come again"),
    (
      "--points",
      "FILE",
      "a 3D shape: .npy, .npz, .ply, .glb, .obj or lines of numbers; may "
      "come again",
    ),
    (
      "--prompt",
      "TEXT",
      "text before, between or after them; likewise. BLIP-2, InstructBLIP and "
      "X-InstructBLIP read all text behind all media",
    ),
  ):
    verb.add_argument(
      option, action=_Part, dest="parts", metavar=kind, help=text
    )
  verb.add_argument(
    "--choices",
    metavar="A,B",
    help="ranks these answers by their log-likelihoods; none is written",
  )
  _add_sampling(verb, GENERATED)
  for option, default, text in (
    ("--num-beams", 1, "of a beam search; 1 is none"),
    (
      "--length-penalty",
      0.0,
      "of a beam search: the exponent of the length that divides a score",
    ),
    (
      "--repetition-penalty",
      1.0,
      "on what the answer has already; 1 is none, LAVIS takes 1.5",
    ),
    ("--min-new-tokens", 0, "the answer's length at least"),
  ):
    _add_number(verb, option, default, text)


def add_chat(verb: argparse.ArgumentParser) -> None:
  _add_model(verb)
  verb.add_argument(
    "--image",
    action="append",
    default=[],
    dest="images",
    metavar="FILE",
    help="a picture that the first question is about; may come again",
  )
  _add_sampling(verb, SAID)


def _add_model(verb: argparse.ArgumentParser) -> None:
  """Which model is asked, and how it is spoken to."""
  verb.add_argument(
    "folder",
    nargs="?",
    type=Path,
    metavar="FOLDER",
    help="of a LLaVA, BLIP-2 or InstructBLIP, that `mmjax convert SRC FOLDER "
    "--to jax` wrote; only the first chats",
  )
  verb.add_argument("--workdir", type=Path, help="of a run")
  verb.add_argument(
    "--system",
    metavar="TEXT",
    help='in place of the template\'s, before a conversation; "" for none, '
    "as Hugging Face asks LLaVA",
  )
  verb.add_argument(
    "--length",
    type=int,
    metavar="N",
    help="tokens of a prompt at most; default 2048 for a LLaVA, 512 for "
    "others, or the run's",
  )
  of_folder = verb.add_argument_group("of a FOLDER")
  of_folder.add_argument(
    "--template",
    metavar="NAME",
    help=f"of a LLaVA: {TEMPLATES}; default vicuna_v1. Of the others: "
    f"{FORMATS}; default instructblip",
  )
  of_folder.add_argument(
    "--aspect",
    choices=("pad", "square"),
    help="a LLaVA's pictures are padded to a square, or cropped; default: as "
    "trained",
  )
  of_folder.add_argument(
    "--dtype",
    choices=("bfloat16", "float32"),
    help="of weights and computation; default float32 on a CPU, else bfloat16",
  )


def _add_sampling(verb: argparse.ArgumentParser, length: int) -> None:
  for option, default, text in (
    ("--max-new-tokens", length, "the answer's length at most"),
    ("--temperature", 0.0, "of sampling; 0 takes the best token"),
    ("--top-k", 0, "samples among the k best tokens; 0 among all"),
    ("--top-p", 1.0, "samples among the best that are so probable together"),
    ("--seed", 0, "of sampling"),
  ):
    _add_number(verb, option, default, text)


def _add_number(verb, option, default, text) -> None:
  """A number, which is None where the command line does not give it."""
  verb.add_argument(
    option,
    type=type(default),
    metavar="N" if isinstance(default, int) else "X",
    help=f"{text}; default {default:g}",
  )


# What says how an answer is written.
_SAMPLING = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
_SEARCH = (
  "num_beams",
  "length_penalty",
  "repetition_penalty",
  "min_new_tokens",
)


def writing(args: argparse.Namespace) -> dict[str, Any]:
  """Those fields of evaluation.model.Model that a command line gives."""
  given = {name: getattr(args, name, None) for name in (*_SAMPLING, *_SEARCH)}
  return {name: value for name, value in given.items() if value is not None}
