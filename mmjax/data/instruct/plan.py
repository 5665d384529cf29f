"""What will be asked, and what that may cost, before anything is sent."""

import dataclasses
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmjax.config import lookup
from mmjax.data.instruct.answers import KINDS
from mmjax.data.instruct.journal import Key
from mmjax.data.instruct.pictures import Picture
from mmjax.data.instruct.prompts import Messages, Prompts

# Of English text; other languages have fewer characters a token.
CHARACTERS_A_TOKEN = 4


@dataclasses.dataclass(frozen=True)
class Job:
  """One answer that is wanted: a kind of it, about a picture."""

  picture: Picture
  kind: str

  @property
  def key(self) -> Key:
    return self.picture.id, self.kind

  def messages(self, prompts: Prompts, note: str = "") -> Messages:
    context = self.picture.context(KINDS[self.kind].boxes)
    return prompts.kinds[self.kind].messages(context, note)

  def chance(self, seed: int) -> random.Random:
    """Draws that depend on the job and the seed alone."""
    return random.Random(f"{seed}/{self.kind}/{self.picture.id}")


@dataclasses.dataclass(frozen=True)
class Prices:
  """What a million tokens cost, read and written, in any currency."""

  prompt: float
  completion: float

  def __post_init__(self):
    if not all(0 <= x < math.inf for x in (self.prompt, self.completion)):
      raise ValueError(
        f"Prices are {self.prompt} and {self.completion} a million tokens; "
        "expected 0 or more."
      )

  def of(self, prompt_tokens: float, completion_tokens: float) -> float:
    return (
      self.prompt * prompt_tokens + self.completion * completion_tokens
    ) / 1e6


def jobs(
  pictures: Sequence[Picture],
  kinds: Iterable[str],
  *,
  seed: int = 0,
  limit: int | None = None,
) -> list[Job]:
  """All kinds of answers about pictures, kind by kind.

  Args:
    pictures: in any order.
    kinds: of KINDS.
    seed: draws the order; a larger limit has the pictures of a smaller one.
    limit: of the pictures; None for all.
  """
  for kind in (kinds := list(dict.fromkeys(kinds))):
    lookup(KINDS, kind, "kind of answer")
  order = drawn(pictures, seed, limit)
  return [Job(picture, kind) for kind in kinds for picture in order]


def drawn(items: Sequence[Any], seed: int, limit: int | None) -> list[Any]:
  """Items with an `id` in an order that a seed draws; None is no limit."""
  if limit is not None and limit < 1:
    raise ValueError(f"limit is {limit}, expected 1 or more.")
  order = sorted(items, key=lambda item: item.id)
  random.Random(seed).shuffle(order)
  return order[:limit]


def count(messages: Messages) -> int:
  """Tokens of a chat, by its characters."""
  return tokens(sum(len(message["content"]) for message in messages))


def tokens(characters: float) -> int:
  return -int(-characters // CHARACTERS_A_TOKEN)


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Of requests of one kind, or of all."""

  requests: int = 0
  prompt_tokens: int = 0
  completion_tokens: int = 0

  def __add__(self, other: "Estimate") -> "Estimate":
    pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other))
    return Estimate(*(a + b for a, b in pairs))


def estimate(wanted: Sequence[Job], prompts: Prompts) -> dict[str, Estimate]:
  """Tokens by kind: every answer as long as an example, none asked twice."""
  found: dict[str, Estimate] = {}
  for kind in dict.fromkeys(job.kind for job in wanted):
    lengths = [len(answer) for _, answer in prompts.kinds[kind].shots]
    length = sum(lengths) / len(lengths) if lengths else 1000
    of_kind = [job for job in wanted if job.kind == kind]
    read = sum(count(job.messages(prompts)) for job in of_kind)
    found[kind] = Estimate(len(of_kind), read, len(of_kind) * tokens(length))
  return found


def table(found: Mapping[str, Estimate], prices: Prices | None = None) -> str:
  """The estimate to look at, and what it rests on."""
  rows = {**found, "together": sum(found.values(), Estimate())}
  lines = [
    f"{'':12}  {'requests':>9}  {'tokens in':>13}  {'tokens out':>13}"
    + f"  {'cost':>10}" * bool(prices)
  ]
  for name, row in rows.items():
    sizes = row.prompt_tokens, row.completion_tokens
    line = f"{name:12}  {row.requests:9,}  {sizes[0]:13,}  {sizes[1]:13,}"
    lines.append(line + (f"  {prices.of(*sizes):10,.2f}" if prices else ""))
  lines.append(
    f"An estimate: {CHARACTERS_A_TOKEN} characters a token, answers as long as "
    "the examples, none asked for twice."
  )
  return "\n".join(lines)
