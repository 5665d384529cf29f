"""Who imports whom, and what no file of mmjax may do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "mmjax").rglob("*.py"))

_BASE = {"typing", "config", "tree", "flops"}
_SHARED = _BASE | {"sharding", "losses", "text"}
_JOB = _BASE | {"barriers", "distributed", "rollcall", "preflight"}
_MODULES = _SHARED | {"layers"}
_PARTS = {"encoders", "connectors", "lms", "decoders"}
_MODELS = _MODULES | _PARTS | {"systems"}
_RUNS = _MODELS | _JOB | {"data", "convert", "checkpoints", "training"}
# A part of mmjax to the others that it may import; all may import themselves.
ALLOWED = {
  **dict.fromkeys(_BASE, _BASE),
  **dict.fromkeys(("sharding", "losses", "text"), _SHARED),
  **dict.fromkeys(_JOB - _BASE, _JOB),
  "layers": _MODULES,
  **dict.fromkeys(_PARTS, _MODULES),
  "systems": _MODELS,
  "endpoint": {"config"},
  "data": _BASE | {"text", "endpoint"},
  "convert": _BASE,
  "checkpoints": _RUNS - {"systems"},
  "training": _RUNS - {"systems"},
  "generation": _MODELS,
  "plan": _RUNS | {"generation"},
  # The report reads a run's metrics.
  "evaluation": _SHARED | {"data", "generation", "training", "endpoint"},
  "cli": _RUNS | {"generation", "evaluation", "plan", "endpoint"},
}
# Top-level packages that no file imports: they run what they read, reach the
# network, or are only for tests.
FORBIDDEN = {
  "pickle": "unpickling runs code",
  "cPickle": "unpickling runs code",
  "dill": "unpickling runs code",
  "cloudpickle": "unpickling runs code",
  "shelve": "unpickles",
  "marshal": "crashes on hostile bytes",
  "torch": "is for tests",
  "tensorflow": "is not needed",
  "transformers": "has no Flax models",
  "requests": "reaches the network",
  "urllib": "reaches the network",
  "http": "reaches the network",
  "socket": "reaches the network",
  "subprocess": "runs programs",
}
# Its tokenizers: of files that the tokenizers package does not read.
EXCEPT = {
  ("text/folders.py", "transformers"),
  # The processes of a job meet.
  ("rollcall.py", "socket"),
  ("preflight.py", "socket"),
  # Sends what it is given to the address in the user's environment, only when
  # the user asks for data or a judgement from there.
  ("endpoint.py", "http"),
  # The compiler, in a process that is ended before it makes machine code.
  ("plan/compiling.py", "subprocess"),
  # The clients of package registries, only when the user asks for a set.
  ("cli/fetch.py", "subprocess"),
}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"system", "popen", "extractall", "extract"}
KEYWORDS = {"shell", "allow_pickle", "trust_remote_code"}


def part_of(path: Path) -> str:
  return path.relative_to(ROOT / "mmjax").with_suffix("").parts[0]


def imports(tree: ast.AST, here: Path = ROOT / "mmjax" / "x.py"):
  """(line, dotted module) of every import, at any depth of a file."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        package = here.relative_to(ROOT).parts[: -node.level]
        base = ".".join([*package, *([base] if base else [])])
      yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def wrong_imports(
  tree: ast.AST, part: str, here: Path = ROOT / "mmjax" / "x.py"
):
  """Imports of what `part` may not see."""
  file = here.relative_to(ROOT / "mmjax").as_posix()
  for line, name in imports(tree, here):
    first, *rest = name.split(".")
    if first in FORBIDDEN and (file, first) not in EXCEPT:
      yield f"{line}: {first} {FORBIDDEN[first]}"
    if first in ("tests", "configs"):
      yield f"{line}: {name} is above mmjax"
    if first == "mmjax" and rest:
      other = rest[0]
      if other != part and other not in ALLOWED.get(part, ()):
        yield f"{line}: {part} may not import {other}"


def dangers(tree: ast.AST):
  """Calls that run what they are given, or write where a file says."""
  for node in ast.walk(tree):
    if not isinstance(node, ast.Call):
      continue
    function = node.func
    if isinstance(function, ast.Name) and function.id in CALLS:
      yield f"{node.lineno}: {function.id}()"
    if isinstance(function, ast.Attribute) and function.attr in METHODS:
      yield f"{node.lineno}: .{function.attr}()"
    for keyword in node.keywords:
      value = keyword.value
      off = isinstance(value, ast.Constant) and value.value is False
      if keyword.arg in KEYWORDS and not off:
        yield f"{node.lineno}: {keyword.arg}="
    if isinstance(function, ast.Attribute) and function.attr == "load":
      owner = function.value
      named = {keyword.arg for keyword in node.keywords}
      numpy = isinstance(owner, ast.Name) and owner.id in ("np", "numpy")
      if numpy and "allow_pickle" not in named:
        yield f"{node.lineno}: np.load without allow_pickle=False"


def test_a_run_begins_without_what_only_some_need():
  """Every process of every start imports what `mmjax train` does."""
  code = "import sys, mmjax.cli.train; print(*sys.modules)"
  run = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  heavy = {"scipy.signal", "scipy.spatial", "scipy.optimize", "av"}
  heavy.add("jax.experimental.pallas.tpu")
  assert not heavy & set(run.stdout.split())


@pytest.mark.parametrize(
  "path", FILES, ids=lambda p: str(p.relative_to(ROOT / "mmjax"))
)
def test_a_file_keeps_the_rules(path):
  tree = ast.parse(path.read_text())
  part = part_of(path)
  assert part in ALLOWED or part == "__init__", f"{part} has no place yet"
  found = [*wrong_imports(tree, part, path), *dangers(tree)]
  assert not found, f"{path}: {found}"


@pytest.mark.parametrize(
  "part, line",
  [
    ("layers", "from mmjax.lms import LMS"),
    ("encoders", "import mmjax.connectors.perceiver"),
    ("encoders", "def f():\n  from mmjax import systems"),
    ("data", "from mmjax.layers.linear import Linear"),
    ("convert", "from mmjax.lms.llama import llama"),
    ("training", "from mmjax.systems import SYSTEMS"),
    ("tree", "from ..systems import x"),
    ("config", "import torch.nn as nn"),
    ("cli", "from urllib.request import urlopen"),
    ("cli", "import pickle"),
    ("cli", "from tests.golden import compare"),
  ],
)
def test_a_wrong_import_is_seen(part, line):
  here = ROOT / "mmjax" / part / "x.py"
  assert list(wrong_imports(ast.parse(line), part, here))


@pytest.mark.parametrize(
  "line",
  [
    "eval(x)",
    "exec(x)",
    "os.system(x)",
    "tar.extractall(path)",
    "run(x, shell=True)",
    "run(x, shell=flag)",
    "np.load(x)",
    "np.load(x, allow_pickle=True)",
    "AutoModel.from_pretrained(x, trust_remote_code=True)",
  ],
)
def test_a_dangerous_call_is_seen(line):
  assert list(dangers(ast.parse(line)))


def test_harmless_code_passes():
  code = "np.load(x, allow_pickle=False)\nrun(x, shell=False)\njson.load(f)"
  assert not list(dangers(ast.parse(code)))
  assert not list(wrong_imports(ast.parse("from mmjax import tree"), "data"))
