"""A model's answers, kept as they come, so that nothing is asked twice.

  RUN/answers/pope-5a0c12e94f/about.json       which model, asked how
                              answers-0.jsonl  of process 0, a line an answer

A folder belongs to one model and one way to ask it: another checkpoint or
config has a folder of its own, and finds its answers again when it comes back.
Several processes answer every k-th open question each.
"""

import dataclasses
import hashlib
import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.document import Document, File, Media, Text
from mmjax.evaluation.answers import Generate, Tell
from mmjax.evaluation.model import Model
from mmjax.training.metrics import ends_a_line

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Share:
  """Which process of how many this is, and how it waits for the others."""

  index: int = 0
  count: int = 1
  wait: Callable[[], None] = lambda: None


class Lines:
  """JSON objects in a file, each on the disk's way when `add` returns.

  A line that a killed process left unfinished is told and left out.
  """

  def __init__(self, path: Path):
    self._path, self._file = path, None

  def __enter__(self) -> "Lines":
    return self

  def __exit__(self, *error) -> None:
    if self._file is not None:
      self._file.close()
      self._file = None

  def add(self, line: Mapping[str, Any]) -> None:
    if self._file is None:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._file = self._path.open("a", encoding="utf-8")
      if not ends_a_line(self._path):
        self._file.write("\n")
    # What is no character (half of one) is written as an escape.
    self._file.write(json.dumps(line) + "\n")
    self._file.flush()

  def read(self) -> Iterator[dict[str, Any]]:
    if not self._path.exists():
      return
    # A line ends at "\n" alone; answers may hold other ends of lines.
    for number, line in enumerate(self._path.read_bytes().split(b"\n"), 1):
      if not line.strip():
        continue
      try:
        found = json.loads(line)
        if not isinstance(found, dict):
          raise ValueError
      except (ValueError, RecursionError):
        log.warning("%s line %d is cut off: left out.", self._path, number)
        continue
      yield found


@dataclasses.dataclass(frozen=True)
class Memory:
  """All ledgers of a run.

  Attributes:
    root: their folder.
    about: what all answers depend on: parameters, tokenizer, prompt.
    share: of this process.
  """

  root: Path
  about: Mapping[str, Any]
  share: Share = dataclasses.field(default_factory=Share)

  def ledger(
    self, model: Model, name: str, asked: Mapping[str, Any] = {}
  ) -> "Ledger":
    """That of a task, and of a model as it writes that task's answers.

    Args:
      model: as it writes them.
      name: of the task.
      asked: what else the answers depend on.
    """
    fields = {key: getattr(model, key) for key in WRITES}
    about = {"answers": fields, **self.about, **asked}
    return Ledger(self.root, name, about, self.share)

  def generate(self, model: Model, name: str) -> Generate:
    """`model.generate`, which is asked only what it was not asked before."""
    ledger, write = self.ledger(model, name), writer(model)
    return lambda documents: ledger.ask(write, documents, model.rows)


# Fields of a model that answers depend on.
WRITES = (
  *("stop", "max_new_tokens", "temperature", "top_k", "top_p", "seed"),
  *("num_beams", "length_penalty", "overflow"),
  *("repetition_penalty", "min_new_tokens", "score_end"),
)


def writer(model: Model) -> Generate:
  """`model.generate`; where it samples, no two calls draw alike."""
  if not model.temperature:
    return model.generate

  def write(documents: Sequence[Document]) -> Sequence[str]:
    seed = zlib.crc32(f"{model.seed} {digest(documents[0])}".encode())
    return dataclasses.replace(model, seed=seed).generate(documents)

  return write


class Ledger:
  """The answers of one model to one task's questions."""

  def __init__(
    self,
    root: str | Path,
    name: str,
    about: Mapping[str, Any],
    share: Share | None = None,
  ):
    """Finds what was answered before.

    Args:
      root: folder of all ledgers of a run.
      name: of the task.
      about: all that an answer depends on besides the question.
      share: of this process.
    """
    text = json.dumps(about, default=list, sort_keys=True, indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    name = re.sub(r"[^\w-]", "_", name)
    self.folder = Path(root) / f"{name}-{digest}"
    self._share = share or Share()
    self._about = text
    self._answers = self._read()
    if self._answers:
      log.info("%s has %d answers.", self.folder, len(self._answers))

  def ask(
    self,
    generate: Generate,
    documents: Sequence[Document],
    size: int,
    tell: Tell = lambda done: None,
  ) -> list[str]:
    """The answers to all documents; those that are known are not asked for.

    Args:
      generate: the model.
      documents: the same in every process.
      size: documents that are asked together, and kept when they are answered.
      tell: of how many are done.
    """
    keys = [digest(document) for document in documents]
    # A question that is there twice is asked once.
    new = {k: d for k, d in zip(keys, documents) if k not in self._answers}
    # All have to know what is open before the first answer comes.
    self._share.wait()
    if new:
      self._keep_about()
    mine = self._own(new)
    done = len(keys) - len(new)
    tell(done)
    with Lines(self._path(self._share.index)) as lines:
      for start in range(0, len(mine), size):
        part = mine[start : start + size]
        for key, text in zip(part, self._asked(generate, part, new)):
          self._answers[key] = text
          lines.add({"key": key, "id": new[key].id, "text": text})
        # The others are as fast.
        ahead = (start + len(part)) * self._share.count
        tell(min(done + ahead, len(keys)))
    self._share.wait()
    if self._share.count > 1:
      self._answers = self._read()
    return [self._answers[key] for key in keys]

  def _asked(
    self, generate: Generate, keys: Sequence[str], new: Mapping[str, Document]
  ) -> Sequence[str]:
    texts = generate([new[key] for key in keys])
    if len(texts) != len(keys):
      raise ValueError(
        f"generate gave {len(texts)} answers for {len(keys)} documents."
      )
    return texts

  def _own(self, new: Mapping[str, Document]) -> list[str]:
    """This process' part; alike lengths together, they waste no padding."""
    order = sorted(new, key=lambda k: (len(new[k].text), len(new[k].media)))
    return order[self._share.index :: self._share.count]

  def _path(self, index: int) -> Path:
    return self.folder / f"answers-{index}.jsonl"

  def _keep_about(self) -> None:
    if self._share.index == 0:
      self.folder.mkdir(parents=True, exist_ok=True)
      part = self.folder / f"about.json.{os.getpid()}.part"
      part.write_text(self._about + "\n")
      part.replace(self.folder / "about.json")

  def _read(self) -> dict[str, str]:
    """Of all processes that there ever were; the first answer counts."""
    found: dict[str, str] = {}
    for path in sorted(self.folder.glob("answers-*.jsonl")):
      for line in Lines(path).read():
        key, text = line.get("key"), line.get("text")
        if isinstance(key, str) and isinstance(text, str):
          found.setdefault(key, text)
    return found


def digest(document: Document) -> str:
  """Of all that a model is shown, and of the name of the record."""
  parts: list[Any] = [document.id]
  for segment in document.segments:
    if isinstance(segment, Text):
      parts.append([segment.text, segment.target, segment.end])
    else:
      about = {k: str(v) for k, v in segment.metadata.items()}
      parts.append([segment.kind, _payload(segment), about])
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:24]


def _payload(media: Media) -> str:
  payload = media.payload
  if isinstance(payload, File):
    return payload.path
  if isinstance(payload, np.ndarray):
    own = np.ascontiguousarray(payload)
    head = f"{own.dtype}{own.shape}".encode()
    return hashlib.sha256(head + own.tobytes()).hexdigest()
  return hashlib.sha256(payload).hexdigest()
