"""`python -m launch local|slurm|gke|tpu_vm`: see launch/README.md."""

import argparse
import dataclasses
import re
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import gke, local, slurm, tpu_vm
from launch.job import Job
from mmjax.cli.arguments import take_changes
from mmjax.cli.configs import load
from mmjax.config import nearest

# Name, options, dry run, real run, and what help says of it.
TARGETS = {
  "local": (local.Local, local.render, local.run, "processes of this machine"),
  "slurm": (slurm.Slurm, slurm.render, slurm.submit, "sbatch and srun"),
  "gke": (gke.Gke, gke.render, gke.submit, "a JobSet on GKE, with Kueue"),
  "tpu_vm": (
    tpu_vm.TpuVm,
    tpu_vm.render,
    tpu_vm.run,
    "queued resources, all workers",
  ),
}


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs, submits or (--dry-run) prints a job; returns an exit code."""
  given = list(sys.argv[1:] if arguments is None else arguments)
  parser = make_parser()
  try:
    given, changes = take_changes(given)
    args, left = parser.parse_known_args(given)
    if left:
      raise _unknown(left[0], args.target)
    kind, render, run, _ = TARGETS[args.target]
    job, options = _make(Job, args, changes), _make(kind, args)
    # What does not load here would not load there, an hour later.
    load(job.config, job.changes)
    text = render(job, options) if args.dry_run else None
  except ValueError as error:
    print(f"launch: {error}", file=sys.stderr)
    return 2
  if args.dry_run:
    print(text, end="")
    return 0
  try:
    return run(job, options)
  except OSError as error:
    print(f"launch: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1
  except ValueError as error:
    print(f"launch: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    return 130


def make_parser() -> argparse.ArgumentParser:
  """All targets and their options."""
  parser = argparse.ArgumentParser(
    prog="python -m launch", description="Puts `mmjax train` on machines."
  )
  targets = parser.add_subparsers(
    dest="target", required=True, metavar="TARGET"
  )
  for name, (options, _, _, text) in TARGETS.items():
    target = targets.add_parser(name, help=text, allow_abbrev=False)
    for kind in (Job, options):
      for field in _fields(kind):
        _add(target, field, typing.get_type_hints(kind)[field.name])
    target.add_argument(
      "--dry-run", action="store_true", help="print what would be submitted"
    )
  return parser


def _add(
  parser: argparse.ArgumentParser, field: dataclasses.Field, kind: Any
) -> None:
  """A field of a dataclass as an option."""
  flag, text = _flag(field), field.metadata["help"]
  if kind is bool:
    parser.add_argument(flag, action="store_true", help=text)
    return
  given: dict[str, Any] = {"help": text, "metavar": "X"}
  if kind in (int, float):
    given |= {"type": kind, "metavar": "N"}
  elif kind is not str:  # Lists and NAME=VALUE.
    given |= {"action": "append"}
  if field.default is dataclasses.MISSING and kind is str:
    given["required"] = True
  parser.add_argument(flag, **given)


def _make(kind: type, args: argparse.Namespace, changes: Sequence[str] = ()):
  """A dataclass of the options that were given; others keep defaults."""
  fields = {
    f.name: getattr(args, f.name, None) for f in dataclasses.fields(kind)
  }
  fields = {k: v for k, v in fields.items() if v is not None}
  fields = {
    k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
  }
  if kind is Job:
    fields["changes"] = tuple(changes)
    fields["env"] = _variables(fields.get("env", ()))
    fields.setdefault("name", _name(args.config))
  return kind(**fields)


def _variables(given: Sequence[str]) -> dict[str, str]:
  for item in given:
    if "=" not in item:
      raise ValueError(f"--env {item} has no value: --env NAME=VALUE")
  return dict(item.split("=", 1) for item in given)


def _name(config: str) -> str:
  """A config's file name, as a name for the job."""
  name = re.sub(r"[^a-z0-9]+", "-", Path(config).stem.lower()).strip("-")
  return name[:40].rstrip("-") if name[:1].isalpha() else "mmjax"


def _unknown(given: str, target: str) -> ValueError:
  fields = [*_fields(Job), *_fields(TARGETS[target][0])]
  name = given.split("=", 1)[0]
  return ValueError(
    f"{target} has no option {name}. {nearest(name, map(_flag, fields))}"
  )


def _fields(kind: type) -> list[dataclasses.Field]:
  """Those that are options of the command line."""
  return [field for field in dataclasses.fields(kind) if field.metadata]


def _flag(field: dataclasses.Field) -> str:
  return f"--{field.name.replace('_', '-')}"


if __name__ == "__main__":
  sys.exit(main())
