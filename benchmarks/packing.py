"""How full rows are, and how long an epoch takes to plan: LLaVA's instructions.

  python -m benchmarks.packing

The lengths are derived, not read, so that anyone can run this. A type of
LLaVA-Instruct has as many bytes a record as its file has by its number of
records (126 MB of 58K conversations, 20.5 MB of 23K details, 79.6 MB of 77K
reasonings). What JSON itself takes of them is counted on an empty record with
an indent of two, which the files are taken to have; the rest is text, 4.4 of
whose characters are a LLaMA token. A conversation is taken to have four
rounds, the others have one; a round costs ten more tokens ("USER:",
"ASSISTANT:", </s>), the system text 36. Lengths spread around their type's
mean as a lognormal, whose width is not known, so three are tried. An image
takes 576 places (CLIP at 336 pixels) or 256 (at 224).

Writes benchmarks/results/packing.md.
"""

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np

from mmjax.data.batching import Slots, occupancy
from mmjax.data.encoder import Encoder
from mmjax.data.filled import Fill, Filled, Measured
from mmjax.data.lengths import Lengths
from mmjax.data.readers import Pictures
from mmjax.data.stream import Stream

TARGET = Path("benchmarks/results/packing.md")
# Records, bytes of the file, and rounds, by type; 157,712 together.
TYPES = {
  "conversation": (57_669, 126e6, 4),
  "detail": (23_240, 20.5e6, 1),
  "reasoning": (76_803, 79.6e6, 1),
}
SYSTEM, ROUND, CHARACTERS = 36, 10, 4.4
SPREADS = (0.25, 0.35, 0.5)
# Length of a row, places of an image, documents of a row with `pack`.
ROWS = ((4096, 576, 4), (2048, 256, 3))
# A row that holds one document has to hold nearly any.
ALONE = 2048


def overhead(rounds: int) -> int:
  """Bytes of a record that are no text."""
  turns = [{"from": "human", "value": ""}, {"from": "gpt", "value": ""}]
  name = "000000033471"
  record = {"id": name, "image": f"{name}.jpg", "conversations": turns * rounds}
  return len(json.dumps([record], indent=2)) - len("[\n]")


def text_lengths(spread: float, rng: np.random.Generator) -> np.ndarray:
  """Tokens of all records but their images', in a random order."""
  found = []
  for count, size, rounds in TYPES.values():
    mean = (size / count - overhead(rounds)) / CHARACTERS
    drawn = rng.lognormal(np.log(mean) - spread**2 / 2, spread, count)
    found.append(drawn + SYSTEM + ROUND * rounds)
  return rng.permutation(np.concatenate(found).astype(np.int32))


class Records:
  """As many documents as there are lengths; none is ever read."""

  def __init__(self, count: int):
    self.count = count

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int):
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Prompt:
  """Stands for one that wrote the documents."""

  length: int
  media: int = 1


def measured(tokens: np.ndarray, length: int) -> Measured:
  """A stream of documents of these lengths, with a picture each."""
  media = np.ones_like(tokens)
  lengths = Lengths(tokens, media, np.zeros(len(tokens), bool))
  made = Encoder(Prompt(length), {"image": Pictures()})
  return Measured(Stream(Records(len(tokens)), made), lengths)


def share(used: np.ndarray, length: int) -> float:
  """Of the places that hold a token, by `batching.occupancy`."""
  parts = np.array_split(used, max(len(used) // 1024, 1))
  places = np.arange(length)
  shares = [occupancy({"segments": places < p[:, None]}) for p in parts]
  return float(np.average(shares, weights=[len(p) for p in parts]))


def packed(tokens: np.ndarray, count: int, length: int) -> tuple:
  """Places that are used of rows of `count` each, and documents dropped."""
  rows = tokens[: len(tokens) // count * count].reshape(-1, count)
  used, dropped = np.zeros(len(rows), int), 0
  for column in rows.T:
    fits = used + column <= length
    used, dropped = used + column * fits, dropped + int((~fits).sum())
  return used, dropped


def row_of(length: int, image: int, count: int, spread: float) -> str:
  """A line of the table."""
  text = text_lengths(spread, np.random.default_rng(0))
  tokens = np.minimum(text + image, ALONE)
  stream, media = measured(tokens, ALONE), length // image
  slots = {"image": Slots(media)}
  rows = Filled(stream, len(tokens), Fill(length, media), slots)
  began = time.perf_counter()
  plan = rows.epoch(0)
  seconds = time.perf_counter() - began
  sizes, _ = stream.sizes(0, len(tokens))
  filled = np.array([sizes[row].sum() for row in plan])
  some, dropped = packed(sizes, count, length)
  return (
    f"| {length} | {image} | {spread} | {tokens.mean():.0f} | {len(plan):,} "
    f"| **{share(filled, length):.1%}** | {share(some, length):.1%} (pack="
    f"{count}, {dropped / len(tokens):.1%} dropped) "
    f"| {share(sizes, ALONE):.1%} | {seconds:.1f} |"
  )


def main() -> None:
  lines = [
    "# Filling rows with LLaVA's instructions",
    "",
    "`python -m benchmarks.packing`: the share of places that hold a token, "
    f"for {sum(c for c, _, _ in TYPES.values()):,} samples of derived lengths "
    "(see the script), and the seconds that an epoch takes to plan on one "
    f"core of {os.cpu_count()}, its shuffled order included.",
    "",
    "| row | image | spread | mean length | rows | `fill` | `pack` "
    f"| one a row of {ALONE} | seconds |",
    "|" + "---|" * 9,
  ]
  for length, image, count in ROWS:
    for spread in SPREADS:
      lines.append(row_of(length, image, count, spread))
      print(lines[-1], flush=True)
  TARGET.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
  main()
