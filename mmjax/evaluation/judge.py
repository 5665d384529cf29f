"""LLaVA-Bench: a language model compares each answer with a reference.

The judge reads what stands in for the picture, the question and both answers,
and writes two numbers in its first line, the reference's first. A model's
score is 100 · mean(its numbers) / mean(the reference's), for every category and
over all (arXiv 2304.08485, 5.1).

A first line that is no two numbers is counted and left out; the official
summary takes it for -1 and -1, which moves both means. The rule's text is our
own wording, so scores are compared with published ones under that reserve; a
config may name a file with another.
"""

import dataclasses
import hashlib
import json
import logging
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.evaluation.chat_metrics import Record, Scores
from mmjax.evaluation.ledger import Lines

log = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"
_NUMBER = r"(\d+(?:\.\d+)?)"
_PAIR = re.compile(rf"\s*{_NUMBER}(?:\s*,\s*|\s+){_NUMBER}\s*")
_MOST = 10.0

Messages = list[dict[str, str]]
# A language model: messages with `role` and `content` to what it says.
Ask = Callable[[Messages], str]
Pair = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Judging:
  """How answers are judged.

  Attributes:
    model: name of the judge; scores of different ones cannot be compared.
    temperature: of its sampling.
    max_tokens: of a judgement.
    repeats: how often each answer is judged; more than once shows how much a
      score varies.
    rule: a file in place of the task's rule.
    system: a file in place of the system line.
    role: how the two are called.
  """

  model: str = "gpt-4-0314"
  temperature: float = 0.2
  max_tokens: int = 1024
  repeats: int = 1
  rule: str | None = None
  system: str = str(ASSETS / "judge_system.txt")
  role: str = "Assistant"

  def __post_init__(self):
    if min(self.repeats, self.max_tokens) < 1:
      raise ValueError(
        f"repeats is {self.repeats}, max_tokens {self.max_tokens}; expected 1 "
        "or more."
      )


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What judges have said of all answers.

  Attributes:
    scores: relative scores in percent, mean over the repeats; "all" first.
    spread: standard deviation of each over the repeats; empty for one.
    failed: judgements that could not be read.
    pairs: of each record, its (reference, candidate) or None for each repeat.
  """

  scores: Scores
  spread: Scores
  failed: int
  pairs: list[list[Pair | None]]


def ask_endpoint(endpoint: Any, judging: Judging) -> Ask:
  """A judge behind an endpoint.

  Args:
    endpoint: has `complete(messages, *, model, temperature, max_tokens)`, which
      gives an object with `text`.
    judging: names the model and its sampling.
  """

  def ask(messages: Messages) -> str:
    return endpoint.complete(
      messages,
      model=judging.model,
      temperature=judging.temperature,
      max_tokens=judging.max_tokens,
    ).text

  return ask


def judge(
  records: Sequence[Record],
  ask: Ask,
  rule: str,
  judging: Judging,
  path: Path,
  tell: Callable[[int, int], None] = lambda done, total: None,
) -> Verdict:
  """Judges every answer, `judging.repeats` times.

  Args:
    records: with `context`, `question`, `reference`, `category` and the
      `prediction`.
    ask: the judge.
    rule: name of a file of ASSETS, where `judging` names no other.
    judging: how.
    path: JSON lines that judgements are added to as they come; those in it are
      not asked for again.
    tell: of how many of how many are done.
  """
  rule = _text(judging.rule or str(ASSETS / rule))
  system, total = _text(judging.system), len(records) * judging.repeats
  known = {line.get("key"): line.get("text") for line in Lines(path).read()}
  pairs: list[list[Pair | None]] = [[] for _ in records]
  with Lines(path) as lines:
    for done in range(total):
      repeat, number = divmod(done, len(records))
      record = records[number]
      said = messages(record, system, rule, judging.role)
      key = _key(record["id"], said, judging, repeat)
      if not isinstance(known.get(key), str):
        known[key] = ask(said)
        about = {"id": record["id"], "repeat": repeat, "model": judging.model}
        lines.add({"key": key} | about | {"text": known[key]})
      pairs[number].append(parse(known[key]))
      tell(done + 1, total)
  return _verdict([str(r["category"]) for r in records], pairs)


def messages(
  record: Mapping[str, Any], system: str, rule: str, role: str = "Assistant"
) -> Messages:
  """What a judge is told of one answer."""
  answers = (record["reference"], record["prediction"])
  parts = [
    f"[Context]\n{record['context']}",
    f"[Question]\n{record['question']}",
  ]
  for number, answer in enumerate(answers, 1):
    name = f"{role} {number}"
    parts += [f"[{name}]\n{answer}", f"[End of {name}]"]
  parts.append(f"[System]\n{rule}")
  content = "\n\n".join(parts) + "\n\n"
  return [
    {"role": "system", "content": system},
    {"role": "user", "content": content},
  ]


def parse(text: str) -> Pair | None:
  """The two numbers of the first line; None where it is anything else.

  "8 7\\nBoth are right." -> (8.0, 7.0)      "8/10 7/10" -> None
  """
  found = _PAIR.fullmatch(text.strip().partition("\n")[0])
  if found is None:
    return None
  pair = float(found[1]), float(found[2])
  return pair if max(pair) <= _MOST else None


def _key(name: str, said: Messages, judging: Judging, repeat: int) -> str:
  how = (judging.model, judging.temperature, judging.max_tokens)
  text = json.dumps([name, said, how, repeat])
  return hashlib.sha256(text.encode()).hexdigest()[:24]


def _text(path: str) -> str:
  try:
    return Path(path).read_text(encoding="utf-8").strip()
  except (OSError, ValueError) as error:
    raise ValueError(
      f"Cannot read what a judge is told, {path}: {error}"
    ) from None


def _verdict(
  categories: Sequence[str], pairs: list[list[Pair | None]]
) -> Verdict:
  names = ("all", *dict.fromkeys(categories))
  found: dict[str, list[float]] = {name: [] for name in names}
  for judged in zip(*pairs):
    for name in names:
      own = [
        pair
        for pair, category in zip(judged, categories)
        if pair is not None and name in ("all", category)
      ]
      if (reference := sum(pair[0] for pair in own)) > 0:
        found[name].append(100 * sum(pair[1] for pair in own) / reference)
  failed = sum(pair is None for each in pairs for pair in each)
  if failed:
    log.warning(
      "%d judgements begin with no two numbers up to %g and are left out.",
      *(failed, _MOST),
    )
  return Verdict(
    {name: statistics.fmean(each) for name, each in found.items() if each},
    {k: statistics.pstdev(each) for k, each in found.items() if len(each) > 1},
    failed,
    pairs,
  )
