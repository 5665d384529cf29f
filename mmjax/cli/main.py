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
from collections.abc import Callable, Mapping, Sequence

from mmjax.cli import asking
from mmjax.cli.arguments import DEMO, make_parser, take_changes

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
    return VERBS[args.command](args) or 0
  except Exception as error:
    if args.debug:
      raise
    code, message = _verdict(error)
    print(f"mmjax {args.verb}: {message}", file=sys.stderr)
    _leave(code)
    return code
  except KeyboardInterrupt:
    print(f"mmjax {args.verb}: interrupted", file=sys.stderr)
    _leave(130)
    return 130


def _train(args) -> None:
  if args.config is None:
    raise ValueError(f"Name a config: mmjax train --config {DEMO}")
  config = _load(args.config, args.changes)
  from mmjax.cli.configs import workdir
  from mmjax.cli.train import train

  train(config, args.workdir or workdir(args.config))


def _plan(args) -> int:
  if args.config is None:
    raise ValueError(
      f"Name a config: mmjax plan --config {DEMO} --topology v5e:2x2"
    )
  # Before the config imports jax: this machine is not the one that is planned
  # for, and with a platform the plugin for GPUs looks for no driver.
  os.environ["JAX_PLATFORMS"] = "cpu"
  config = _load(args.config, args.changes)
  from mmjax.cli.plan import plan

  found = plan(
    config,
    args.topology,
    tokens=args.tokens,
    target=args.json,
    searches=args.search,
    generates=args.generate,
    finishes=args.machine_code,
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
  from mmjax import distributed
  from mmjax.cli.evaluate import evaluate, show
  from mmjax.cli.judge import make_judge
  from mmjax.cli.progress import show_progress

  tasks = None if args.tasks is None else re.split(r"\s*,\s*", args.tasks)
  results = evaluate(
    config,
    args.workdir,
    show_progress(),
    tasks=tasks,
    limit=args.limit,
    ask=make_judge(),
  )
  if distributed.is_first():
    print(show(results))


def _demo(args) -> None:
  config = _load(args.config or DEMO, args.changes)
  from mmjax.cli.demo import demo

  demo(config, args.workdir)


def _generate(args) -> None:
  given = asking.writing(args)
  if args.choices is not None and given:
    option = next(iter(given)).replace("_", "-")
    raise ValueError(
      f"--{option} says how an answer is written; --choices ranks answers that "
      "are given."
    )
  config, place, wording = _asked(args)
  from mmjax.cli.generate import generate, rank

  asked = (config, place, args.parts or ())
  if args.choices is None:
    fields = {"max_new_tokens": asking.GENERATED} | given
    print(generate(*asked, wording, **fields))
    return
  for choice, score in rank(*asked, args.choices.split(","), wording):
    print(f"{score:10.4f}  {choice}")


def _chat(args) -> None:
  config, place, wording = _asked(args)
  from mmjax.cli.chat import chat

  fields = {"max_new_tokens": asking.SAID} | asking.writing(args)
  chat(config, place, args.images, wording, **fields)


def _asked(args):
  """The model of a command line: its config, its folder, how it is spoken to.

  Raises:
    ValueError: unless it is one run or one folder, with options for that.
  """
  if (args.folder is None) == (args.workdir is None):
    raise ValueError(
      "Name either a run (--workdir DIR) or the FOLDER of a converted model."
    )
  names = ("system", "length")
  wording = {n: v for n in names if (v := getattr(args, n)) is not None}
  own = {n: getattr(args, n) for n in ("template", "aspect", "dtype")}
  own = {n: v for n, v in own.items() if v is not None}
  if args.folder is None:
    if own:
      raise ValueError(
        f"--{next(iter(own))} is for a FOLDER. A run has its own: change it "
        "with --config.key=VALUE."
      )
    return _of_run(args), args.workdir, wording
  if args.config or args.changes:
    raise ValueError("--config is for a run, and not for a FOLDER.")
  from mmjax.cli.released import config_of

  return config_of(args.folder, **own, **wording), args.folder, {}


def _convert(args) -> None:
  from mmjax.cli.convert import convert

  target = convert(
    args.source,
    args.target,
    to=args.to,
    family=args.family,
    part=args.part,
    settings=args.settings,
    tower=args.tower,
    layout=args.layout,
    adapter=args.adapter,
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


def _instruct(args) -> int:
  from mmjax.cli.answering import Asking
  from mmjax.cli.instruct import Wanted, generate

  wanted = Wanted(args.captions, args.instances, args.types, args.limit)
  return generate(args.target, wanted, Asking.of(args))


def _qa(args) -> int:
  from mmjax.cli.answering import Asking
  from mmjax.cli.qa import make_questions
  from mmjax.data.instruct.questions import Limits

  words = (3, max(args.question_words, 3))
  limits = Limits(args.caption_words, args.answer_words, words, args.same)
  return make_questions(
    args.target,
    args.captions,
    Asking.of(args),
    limits=limits,
    colourless=args.drop_colours,
    limit=args.limit,
  )


def _fetch(args) -> None:
  from mmjax.cli.fetch import fetch
  from mmjax.cli.progress import show_progress

  fetch(args.name, args.folder, show_progress())


def _discrn(args) -> int | None:
  from mmjax.cli.answering import Asking
  from mmjax.cli.discrn import by_attribute, make_comparisons
  from mmjax.data.instruct.pairs import Drawing

  drawing = Drawing(args.others, args.among, args.seed)
  options = {"limit": args.limit, "kinds": args.kinds}
  if args.encoder is not None:
    from mmjax.cli.sentences import Sentences

    options["encode"] = Sentences(args.encoder)
  if args.attribute is not None:
    given = (args.target, args.captions, args.attribute, drawing)
    return by_attribute(*given, templates=args.prompts, **options)
  if args.encoder is not None:
    options["encoder"] = str(args.encoder)
  given = (args.target, args.captions, Asking.of(args), drawing)
  return make_comparisons(*given, **options)


def _select(args) -> None:
  from mmjax.cli.progress import show_progress
  from mmjax.cli.select import select

  names = ("column", "phrases", "model", "least", "most", "seed")
  options = {name: getattr(args, name) for name in names}
  select(args.source, args.target, progress=show_progress(), **options)


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
  if not debug:  # Orbax shows a traceback of what we say in a line,
    for name in ("absl", "asyncio"):
      logging.getLogger(name).addFilter(_has_no_traceback)
    sys.unraisablehook = _show  # and TensorStore one of each late write.


def _has_no_traceback(record: logging.LogRecord) -> bool:
  return record.exc_info is None


def _show(problem) -> None:
  """An error that none could catch, but of writes after a save has failed.

  TensorStore tells a loop that is no more; what failed is said by the save.
  """
  if str(problem.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(problem)


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
  text = _text(error)
  # Configs leave the name in their paths while it stands for nothing.
  if "$MMJAX_DATA" in text:
    text += (
      " MMJAX_DATA is not set: export MMJAX_DATA=DIRECTORY, below which the "
      "published configs look for weights and data."
    )
  return text


def _text(error: BaseException) -> str:
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


VERBS: Mapping[str, Callable[[argparse.Namespace], int | None]] = {
  "train": _train,
  "plan": _plan,
  "evaluate": _evaluate,
  "demo": _demo,
  "generate": _generate,
  "chat": _chat,
  "convert": _convert,
  "inspect": _inspect,
  "replay": _replay,
  "index": _index,
  "instruct": _instruct,
  "qa": _qa,
  "discrn": _discrn,
  "select": _select,
  "fetch": _fetch,
}


if __name__ == "__main__":
  sys.exit(main())
