"""What the commands take that let a language model write data."""

import argparse
from pathlib import Path

_WHO = (
  "OPENAI_BASE_URL and OPENAI_API_KEY name the endpoint; or --local names a "
  "model of this machine. Start it again to go on: nothing that was answered "
  "is asked twice."
)
INSTRUCT = (
  "generate",
  "Let a language model write LLaVA's instruction data from captions and "
  f"boxes. {_WHO}",
)
QA = (
  "qa",
  "Let a language model write questions and answers from captions of any kind "
  "of medium, answer them again, and keep those on which it agrees with "
  f"itself. {_WHO}",
)
DISCRN = (
  "discrn",
  "Make questions about which of two things it is, from captions of things "
  "that two kinds of media show; written and checked by a language model, or "
  f"from an --attribute without one. {_WHO}",
)
# For --help, which has no time to import the table.
KINDS = ("conversation", "detail", "reasoning")


def add_instruct(verb: argparse.ArgumentParser) -> None:
  # `mmjax generate` has that name.
  verb.set_defaults(command="instruct")
  _add_target(verb)
  verb.add_argument(
    "--captions",
    required=True,
    metavar="FILE",
    help="COCO's captions_*.json; or a .jsonl of id, image, captions and boxes",
  )
  verb.add_argument(
    "--instances", metavar="FILE", help="COCO's instances_*.json, for boxes"
  )
  verb.add_argument(
    "--types",
    nargs="+",
    choices=KINDS,
    default=KINDS,
    metavar="TYPE",
    help=f"of {', '.join(KINDS)}; default all",
  )
  _add_asking(verb, "instruct", "pictures", temperature=1.0, max_tokens=1024)


def add_qa(verb: argparse.ArgumentParser) -> None:
  _add_target(verb)
  verb.add_argument(
    "--captions",
    required=True,
    metavar="FILE",
    help=".jsonl of id and caption; what else a row has (image, audio, ...) is "
    "carried on",
  )
  verb.add_argument(
    "--drop-colours",
    action="store_true",
    help="lets the model take the words for colours out of captions first, as "
    "for 3D models that are shown without",
  )
  for option, default, text in (
    ("--caption-words", 1, "words of a caption at least, colours gone"),
    ("--answer-words", 5, "of an answer at most"),
    ("--question-words", 30, "of a question at most"),
    ("--same", 90.0, "percent of two texts that agree, more than that"),
  ):
    _add(verb, option, type(default), default, text)
  _add_asking(verb, "qa", "captions", temperature=0.0, max_tokens=128)


def add_discrn(verb: argparse.ArgumentParser) -> None:
  _add_target(verb)
  verb.add_argument(
    "--captions",
    required=True,
    metavar="FILE",
    help=".jsonl of id and caption, of which an id names a file in the folders "
    "of both media; start_seconds and captions_pred_* are carried on. Or the "
    "items.jsonl of mmjax data fetch, with --kinds",
  )
  verb.add_argument(
    "--kinds",
    nargs=2,
    metavar="KIND",
    help="image, video, audio or points: the two that a thing of an "
    "items.jsonl has to have; captions are those of the first",
  )
  verb.add_argument(
    "--attribute",
    metavar="NAME",
    help="field of the .jsonl, or of its attributes, that questions are made "
    "of, such as category; no model is asked, and --prompts is a file of "
    "questions",
  )
  verb.add_argument(
    "--encoder",
    type=Path,
    metavar="DIR",
    help="all-MiniLM-L6-v2 of Hugging Face, for the similarity of captions; "
    "default: by the words they share (TF-IDF)",
  )
  for option, default, text in (
    ("--others", 100, "others that are drawn for each; 500 for sounds"),
    ("--among", 10, "the most alike of them, of which one is taken"),
  ):
    _add(verb, option, int, default, text)
  _add_asking(verb, "discrn", "things", temperature=0.0, max_tokens=256)


def _add_target(verb: argparse.ArgumentParser) -> None:
  verb.add_argument(
    "target", metavar="DST", type=Path, help="folder of the data set"
  )


def _add_asking(
  verb: argparse.ArgumentParser,
  prompts: str,
  things: str,
  *,
  temperature: float,
  max_tokens: int,
) -> None:
  """Who is asked, and how.

  Args:
    verb: gets the options.
    prompts: folder of mmjax/data/assets.
    things: that --limit counts.
    temperature, max_tokens: by default.
  """
  for option, kind, text in (
    ("--model", str, "as the endpoint calls it"),
    (
      "--local",
      Path,
      "folder of a run, or of a language model or LLaVA that `mmjax convert "
      "SRC DIR --to jax` wrote, in place of an endpoint",
    ),
    ("--template", str, "of the chats of a --local model: chatml, ..."),
    ("--prompts", Path, f"a changed copy of mmjax/data/assets/{prompts}"),
  ):
    name = "DIR" if kind is Path else "NAME"
    verb.add_argument(option, type=kind, metavar=name, help=text)
  verb.add_argument(
    "--dry-run",
    action="store_true",
    help="shows an estimate and a request; sends and writes nothing",
  )
  for option, kind, default, text in (
    ("--limit", int, None, f"{things}, drawn by the seed; default all"),
    ("--seed", int, 0, "of our own draws"),
    ("--temperature", float, temperature, "of sampling"),
    ("--max-tokens", int, max_tokens, "of an answer at most"),
    ("--tries", int, 3, "answers to a request, until it counts as failed"),
    ("--concurrency", int, 8, "requests at a time"),
    ("--rpm", float, None, "requests a minute at most"),
    ("--price-in", float, None, "of a million tokens that are read"),
    ("--price-out", float, None, "of a million that are written"),
    ("--max-cost", float, None, "stops before the whole folder costs more"),
  ):
    _add(verb, option, kind, default, text)


def _add(verb, option, kind, default, text) -> None:
  verb.add_argument(
    option,
    type=kind,
    default=default,
    metavar="N" if kind is int else "X",
    help=text if default is None else f"{text}; default {default:g}",
  )
