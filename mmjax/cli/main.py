"""`mmjax`: the commands. Each imports what it needs when it runs.

Exit codes: 0 done; 1 could not be done, the last line says why (and where the
traceback is, when no message of ours explains it); 2 called with wrong
arguments; 75 told to stop, everything is saved, start it again to go on; 76
it hung, or another process of its job died: start all again, they go on from
the newest checkpoint; 130 interrupted.
"""

import argparse
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

DEMO = "configs/flamingo/demo.py"
_CHANGE = re.compile(r"--config\.([\w.]+)(?:=(.*))?", re.DOTALL)
# For --help, which has no time to import the tables.
_FAMILIES = (
  "clip, efficientnet_lite0, gpt_neox, llama, mpt, nfnet, open_flamingo or opt"
)
_FORMATS = "mmc4, obelics, pairs or video_text"
# Errors that a message explains; any other is a fault of ours.
_EXPLAINED = (ValueError, OSError, ImportError, FloatingPointError)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs one command and returns its exit code."""
  given = list(sys.argv[1:] if arguments is None else arguments)
  parser = make_parser()
  try:
    given, changes = take_changes(given)
  except ValueError as error:
    parser.error(str(error))
  args = parser.parse_args(given)
  if changes and "config" not in args:
    parser.error(f"{args.verb} takes no config, but --config.{changes[0]}")
  args.changes = changes
  _log(args.debug)
  try:
    return args.run(args) or 0
  except Exception as error:
    if args.debug:
      raise
    code, message = _verdict(error)
    print(f"mmjax {args.verb}: {message}", file=sys.stderr)
    _leave(code)
    return code
  except KeyboardInterrupt:
    print(f"mmjax {args.verb}: interrupted", file=sys.stderr)
    return 130


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
  _add_generate(verbs)
  _add_convert(verbs)
  _add_data(verbs)
  return parser


def _verb(verbs, name, run, text, config=None) -> argparse.ArgumentParser:
  """A verb; `config` adds --config and says where it comes from else."""
  verb = verbs.add_parser(name, help=text, description=text)
  verb.set_defaults(run=run)
  verb.add_argument(
    "--debug", action="store_true", help="show tracebacks and all messages"
  )
  if config:
    verb.add_argument(
      "--config",
      metavar="FILE",
      help=f".py or .json; {config}. Any key can be changed: "
      "--config.key.of.a.key=VALUE",
    )
  return verb


def _add_runs(verbs) -> None:
  train = _verb(
    verbs, "train", _train, "Train, or go on with a run.", "required"
  )
  train.add_argument(
    "--workdir", type=Path, help="of the run; default runs/<config's name>"
  )
  plan = _verb(
    verbs,
    "plan",
    _plan,
    "Compile a training step for a machine that need not be there: does it "
    "fit, how fast, for how long.",
    "required",
  )
  plan.add_argument(
    "--topology",
    metavar="NAME",
    help="default: what the config names as `topology`; v5e:16x16, 2*v5p:8x8x8 (two slices), h200:8, h200:4x8 (four nodes)",
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
    "--json", type=Path, metavar="FILE", help="writes all figures there"
  )
  evaluate = _verb(
    verbs,
    "evaluate",
    _evaluate,
    "Evaluate a run's newest checkpoint.",
    "default the run's own",
  )
  evaluate.add_argument("--workdir", type=Path, required=True, help="of a run")
  demo = _verb(
    verbs,
    "demo",
    _demo,
    "Train a small Flamingo, evaluate it, write a report.",
    f"default {DEMO}",
  )
  demo.add_argument(
    "--workdir",
    type=Path,
    default=Path("runs/demo"),
    help="of the run; default runs/demo",
  )


class _Part(argparse.Action):
  """Collects parts of a prompt in the order of the command line."""

  def __call__(self, parser, namespace, value, option=None):
    kind = "text" if option == "--prompt" else option.removeprefix("--")
    parts = [*(getattr(namespace, self.dest) or ()), (kind, value)]
    setattr(namespace, self.dest, parts)


def _add_generate(verbs) -> None:
  verb = _verb(
    verbs,
    "generate",
    _generate,
    "Ask a trained run. Parts of the prompt are read in their order; examples "
    "come before the question.",
    "default the run's own",
  )
  verb.add_argument("--workdir", type=Path, required=True, help="of a run")
  for option, kind, text in (
    ("--image", "FILE", "a JPEG, PNG, WebP or GIF; may come again"),
    ("--video", "FILE", "a video; may come again"),
    ("--prompt", "TEXT", "text before, between or after them; likewise"),
  ):
    verb.add_argument(
      option, action=_Part, dest="parts", metavar=kind, help=text
    )
  for option, default, text in (
    ("--max-new-tokens", 32, "the answer's length at most"),
    ("--num-beams", 1, "of a beam search; 1 is none"),
    ("--temperature", 0.0, "of sampling; 0 takes the best token"),
    ("--top-k", 0, "samples among the k best tokens; 0 among all"),
    ("--top-p", 1.0, "samples among the best that are so probable together"),
    ("--seed", 0, "of sampling"),
  ):
    verb.add_argument(
      option,
      type=type(default),
      default=default,
      metavar="N" if isinstance(default, int) else "X",
      help=f"{text}; default {default:g}",
    )


def _add_convert(verbs) -> None:
  verb = _verb(
    verbs, "convert", _convert, "Convert weights from and to PyTorch's names."
  )
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
    "--settings",
    metavar="FILE",
    type=Path,
    help="config.json of the model (of a whole OpenFlamingo's language model); "
    "default: the one beside SRC",
  )


def _add_data(verbs) -> None:
  data = verbs.add_parser("data", help="Look at data, and index it.")
  actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
  inspect = _verb(
    actions,
    "inspect",
    _inspect,
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
    _replay,
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
  index = _verb(actions, "index", _index, "Write the index of tar shards.")
  index.add_argument("paths", nargs="+", help="files or patterns")


def _train(args) -> None:
  if args.config is None:
    raise ValueError(f"Name a config: mmjax train --config {DEMO}")
  config = _load(args.config, args.changes)
  from mmjax.cli.train import train

  train(config, args.workdir or Path("runs") / Path(args.config).stem)


def _plan(args) -> int:
  if args.config is None:
    raise ValueError(
      f"Name a config: mmjax plan --config {DEMO} --topology v5e:2x2"
    )
  config = _load(args.config, args.changes)
  # Before jax starts: the machine that is planned for is not this one.
  os.environ["JAX_PLATFORMS"] = "cpu"
  from mmjax.cli.plan import plan

  found = plan(
    config,
    args.topology,
    tokens=args.tokens,
    target=args.json,
    searches=args.search,
    generates=args.generate,
  )
  return 0 if found.fits else 1


def _of_run(args):
  """The config of a run, its own unless another is named."""
  own = args.workdir / "config.json"
  if args.config is None and not own.is_file():
    raise ValueError(
      f"There is no run in {args.workdir}: it has no config.json. Train one: "
      f"mmjax train --config FILE --workdir {args.workdir}"
    )
  return _load(args.config or own, args.changes)


def _evaluate(args) -> None:
  config = _of_run(args)
  from mmjax.cli.evaluate import evaluate, show_progress
  from mmjax.evaluation.drawn import table

  print(table(evaluate(config, args.workdir, show_progress())))


def _demo(args) -> None:
  config = _load(args.config or DEMO, args.changes)
  from mmjax.cli.demo import demo

  demo(config, args.workdir)


def _generate(args) -> None:
  config = _of_run(args)
  from mmjax.cli.generate import generate

  names = ("max_new_tokens", "num_beams", "temperature", "top_k", "top_p")
  fields = {name: getattr(args, name) for name in (*names, "seed")}
  print(generate(config, args.workdir, args.parts or (), **fields))


def _convert(args) -> None:
  from mmjax.cli.convert import convert

  target = convert(
    args.source,
    args.target,
    to=args.to,
    family=args.family,
    part=args.part,
    settings=args.settings,
  )
  print(f"Wrote {target}")


def _inspect(args) -> int:
  if (args.path is None) == (args.config is None):
    raise ValueError("Name either a file or --config FILE to inspect.")
  target = args.path or _load(args.config, args.changes).data
  from mmjax.cli.data import inspect

  bad = inspect(target, args.format, args.count, args.start)
  return int(bad > 0)


def _replay(args) -> None:
  if args.workdir is None and args.config is None:
    raise ValueError("Name a run (--workdir) or --config FILE to replay.")
  config = _load(args.config, args.changes) if args.config else _of_run(args)
  from mmjax.cli.replay import replay

  replay(config, args.step, args.save)


def _index(args) -> None:
  from mmjax.cli.data import index

  index(args.paths)


def _load(path, changes):
  from mmjax.cli.configs import load

  return load(path, changes)


def _log(debug: bool) -> None:
  """Our messages; those of libraries from warnings on, or all for debug."""
  logging.basicConfig(
    level=logging.INFO if debug else logging.WARNING,
    format="%(name)s: %(message)s",
    stream=sys.stderr,
  )
  logging.getLogger("mmjax").setLevel(logging.DEBUG if debug else logging.INFO)


def _verdict(error: Exception) -> tuple[int, str]:
  """The exit code, and the last line."""
  if "jax" in sys.modules:
    from mmjax import distributed

    if distributed.is_lost(error):
      return 76, (
        "another process of the job died or hung up; start all of them again "
        f"({_message(error)})"
      )
  return 1, _message(error)


def _leave(code: int) -> None:
  if "jax" in sys.modules:
    from mmjax import distributed

    distributed.leave(code)


def _message(error: BaseException) -> str:
  if not isinstance(error, _EXPLAINED):
    return _unexplained(error)
  if isinstance(error, OSError) and error.filename and error.strerror:
    return f"{error.filename}: {error.strerror}"
  return str(error).strip() or type(error).__name__


def _unexplained(error: BaseException) -> str:
  """A fault of ours, or a value that nothing checks; its place is kept."""
  with tempfile.NamedTemporaryFile(
    "w", prefix="mmjax-", suffix=".txt", delete=False
  ) as file:
    traceback.print_exception(error, file=file)
  first = str(error).strip().partition("\n")[0]
  return (
    f"{type(error).__name__}: {first:.300} (unexpected; the traceback is in "
    f"{file.name}, and --debug shows it)"
  )


if __name__ == "__main__":
  sys.exit(main())
