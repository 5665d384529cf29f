"""Benchmarks asked as a chat, zero-shot, as a config names them.

  evaluate = dict(
    name="chat",
    published="LLaVA-1.5-7B",
    tasks=dict(
      gqa=dict(source=dict(name="gqa", questions=..., images=...)),
      mine=dict(task="vqav2", source=dict(name="vqa", ...), count=1000),
      kinds=dict(task="classes", source=dict(name="published", ...),
                 ask="what is heard?", candidate="a sound of {answer}"),
    ),
    judge=dict(model="gpt-4-0314", repeats=3),
    model=dict(batch_size=16), prompt=dict(length=1024),
  )

A task is called by its name in `chat_tasks.CHAT_TASKS`, or anything else with
`task`. It may change the model, the prompt and the readers of media for itself
(`benchmark`). Answers are kept as they come; see `ledger`.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.config import call, changed, lookup
from mmjax.data import build as data
from mmjax.data.document import Document
from mmjax.evaluation import chat_metrics, pictures
from mmjax.evaluation import judge as judges
from mmjax.evaluation.answers import Answerer, Generate
from mmjax.evaluation.chat_metrics import Record, Scores
from mmjax.evaluation.chat_tasks import CHAT_TASKS, PARSERS, ChatTask
from mmjax.evaluation.judge import Ask, Judging
from mmjax.evaluation.ledger import WRITES, Memory, Share, writer
from mmjax.evaluation.model import Model
from mmjax.evaluation.paper_tasks import drawn
from mmjax.evaluation.published import PUBLISHED, Value
from mmjax.evaluation.tasks import Style, Task
from mmjax.text.prompts.templates import Template

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """A task with its records.

  Attributes:
    kind: its name in CHAT_TASKS.
    task: how it is asked and scored.
    records: what is asked about.
    decoding: what changes of the model, of WRITES.
    prompt: what changes of its prompt.
    media: kind of medium to what changes of its reader.
  """

  kind: str
  task: ChatTask
  records: Sequence[Document]
  decoding: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  prompt: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  media: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for name in self.decoding:
      lookup(dict.fromkeys(WRITES), name, "setting of a task's model")

  @property
  def queries(self) -> list[Document]:
    return [self.task.query(record) for record in self.records]

  def fit(self, model: Model) -> Model:
    """The model as it answers this task."""
    fields = {"max_new_tokens": self.task.max_new_tokens, **self.decoding}
    if self.prompt or self.media:
      fields["encoder"] = model.encoder.changed(self.prompt, self.media)
    return changed(model, fields)

  @property
  def about(self) -> dict[str, Any]:
    """What answers depend on besides the model and the questions."""
    about: dict[str, Any] = {}
    if self.prompt or self.media:
      about["asked"] = dict(prompt=self.prompt, media=self.media)
    if self.task.candidate is not None:
      choices = {tuple(r.metadata.get("choices", ())) for r in self.records}
      about["candidate"] = self.task.candidate
      about["choices"] = sorted(choices)
    return about


@dataclasses.dataclass(frozen=True)
class ChatResult:
  """The scores of one task.

  Attributes:
    task, metric: what was measured.
    count: of questions.
    failed: answers, or judgements, that could not be read.
    scores: in percent by name, the most quoted first; none where no answer is
      public, or nothing has judged.
    spread: standard deviation over repeated judgements.
    published: the same of a published model.
    records: one for each question: raw answer, prediction, answers, score, ...
  """

  task: str
  metric: str
  count: int
  failed: int
  scores: Scores
  spread: Scores
  published: Mapping[str, Value]
  records: Sequence[Record] = dataclasses.field(repr=False)

  def summary(self) -> dict[str, Any]:
    """All but the records."""
    names = (f.name for f in dataclasses.fields(self))
    return {n: getattr(self, n) for n in names if n != "records"}


def evaluate_chat(
  model: Model,
  tasks: Mapping[str, Mapping[str, Any]],
  *,
  memory: Memory,
  judge: Mapping[str, Any] | None = None,
  published: str | None = None,
  ask: Callable[[Judging], Ask] | None = None,
  progress: Progress = lambda done, total: None,
) -> list[ChatResult]:
  """Results of all tasks.

  Args:
    model: answers.
    tasks: by name, see `benchmark`.
    memory: keeps the answers, and parts them between processes.
    judge: fields of `judge.Judging`.
    published: name of PUBLISHED, whose results stand beside these.
    ask: makes a judge; without it, judged tasks are only answered.
    progress: is told how many of how many questions are done.

  Raises:
    ValueError: for pictures that cannot be read, by task and file.
  """
  if not tasks:
    raise ValueError("config.evaluate names no tasks.")
  known = lookup(PUBLISHED, published, "published model") if published else {}
  judging = call(Judging, judge or {})
  found = {name: call(benchmark, t, name=name) for name, t in tasks.items()}
  # Before the first picture is read: a wrong setting ends it at once.
  models = {name: each.fit(model) for name, each in found.items()}
  part = (memory.share.index, memory.share.count)
  shown = {n: (models[n].encoder, each.records) for n, each in found.items()}
  pictures.check(shown, part)
  total, before = sum(len(each.records) for each in found.values()), 0
  results = []
  for name, each in found.items():
    records, folder = _answered(
      *(name, each, models[name], memory),
      lambda done, before=before: progress(before + done, total),
    )
    before += len(records)
    score = _score
    if each.task.judged:
      judged = ask(judging) if ask else None
      score = _judge(judging, judged, folder, memory.share)
    results.append(score(name, each, records, known.get(each.kind, {})))
  return results


def benchmark(
  source: Mapping[str, Any],
  name: str = "",
  task: str | None = None,
  count: int | None = None,
  ask: str | None = None,
  plain: bool | None = None,
  parse: str | None = None,
  max_new_tokens: int | None = None,
  candidate: str | None = None,
  model: Mapping[str, Any] | None = None,
  prompt: Mapping[str, Any] | None = None,
  media: Mapping[str, Mapping[str, Any]] | None = None,
) -> Benchmark:
  """A task and its records, as a config has them.

  Args:
    source: of `data.tasks.TASKS` or `data.chat_tasks.CHAT_TASKS`.
    name: under which the results stand.
    task: of CHAT_TASKS; `name` where it is left out.
    count: of the questions, drawn at random, always the same; None is all.
    ask: in place of the task's own way to ask.
    plain: whether the question is asked as LAVIS does; see ChatTask.
    parse: in place of the task's own way to read an answer, of PARSERS.
    max_new_tokens: of an answer; None is the task's own.
    candidate: in place of the task's own; see ChatTask.
    model: what this task changes of the model's decoding: `num_beams`, ...
    prompt: what it changes of the prompt.
    media: kind of medium to what it changes of its reader: `frames`, ...

  Raises:
    ValueError: for a picture whose name leads out of its folder, too.
  """
  kind = task or name
  own = lookup(CHAT_TASKS, kind, "task")
  changes = dict(
    ask=ask,
    plain=plain,
    parse=parse,
    max_new_tokens=max_new_tokens,
    candidate=candidate,
  )
  own = dataclasses.replace(
    own, **{k: v for k, v in changes.items() if v is not None}
  )
  with pictures.naming(name):
    records = drawn(data.documents(source), count, name)
    return Benchmark(
      *(kind, own, records, model or {}, prompt or {}, media or {})
    )


def _answered(
  name: str,
  each: Benchmark,
  model: Model,
  memory: Memory,
  tell: Callable[[int], None],
) -> tuple[list[Record], Path]:
  """A record for each question, and the folder of the answers."""
  candidate = each.task.candidate
  ledger = memory.ledger(model, name, each.about)
  write = writer(model) if candidate is None else chooser(model, candidate)
  with pictures.naming(name):
    texts = ledger.ask(write, each.queries, model.rows, tell)
  parse = PARSERS[each.task.parse]
  records = [
    dict(document.metadata)
    | {"task": name, "id": document.id}
    | {"raw": text, "prediction": parse(text)}
    for document, text in zip(each.records, texts)
  ]
  return records, ledger.folder


def chooser(model: Model, candidate: str) -> Generate:
  """What gives the likeliest of each document's `choices`.

  Likelihoods are sums over the tokens of a choice, as it is written by
  `candidate`, behind a space; whether its end counts is the prompt's to say.
  """
  style = Style(
    templates={"": Template("", f" {candidate}")},
    cleaning={},
    mean_per_token=False,
    score_end=False,
    text_only_closed=False,
    rices_text_only=False,
  )
  task = Task("", "exact", choices=())
  choose = Answerer(task, style, score=model.score, batch_size=model.rows)

  def answer(documents: Sequence[Document]) -> list[str]:
    found = choose([documents], lambda done: None)
    return [record["prediction"] for record in found]

  return answer


def _score(
  name: str,
  each: Benchmark,
  records: list[Record],
  published: Mapping[str, Value],
) -> ChatResult:
  """Scored by a metric.

  Raises:
    ValueError: when some records have answers and some have not.
  """
  failed = sum(record["prediction"] is None for record in records)
  lacking = [record["id"] for record in records if not record["answers"]]
  scores: Scores = {}
  if len(lacking) == len(records):
    log.warning("Task %r has no answers to score against.", name)
  elif lacking:
    raise ValueError(
      f"{len(lacking)} of {len(records)} records of task {name!r} have no "
      f"answers: {lacking[:3]}."
    )
  else:
    scores, worth = chat_metrics.METRICS[each.task.metric](records)
    records = [r | {"score": s} for r, s in zip(records, worth)]
  about = (name, each.task.metric, len(records), failed)
  return ChatResult(*about, scores, {}, published, records)


def _judge(
  judging: Judging, ask: Ask | None, folder: Path, share: Share
) -> Callable[..., ChatResult]:
  """Scored by a judge, where there is one; only the first process asks it."""

  def score(
    name: str,
    each: Benchmark,
    records: list[Record],
    published: Mapping[str, Value],
  ) -> ChatResult:
    about = (name, f"judge {judging.model}", len(records))
    if ask is None:
      log.warning("Task %r is answered, but nothing judges it.", name)
      return ChatResult(*about, 0, {}, {}, published, records)
    if share.index:
      # A wait for each, since one for all of them may take hours.
      for _ in range(len(records) * judging.repeats):
        share.wait()
      return ChatResult(*about, 0, {}, {}, published, records)
    log.info("%s judges the %d answers of %r.", judging.model, about[2], name)
    found = judges.judge(
      *(records, ask, each.task.rule, judging, folder / "judgings.jsonl"),
      tell=lambda done, total: share.wait(),
    )
    records = [r | {"judged": p} for r, p in zip(records, found.pairs)]
    return ChatResult(
      *about, found.failed, found.scores, found.spread, published, records
    )

  return score
