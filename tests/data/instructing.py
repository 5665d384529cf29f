"""Runs of the instruction data against an endpoint of the tests."""

import collections
import dataclasses
import json
import re
import time

from mmjax.data.instruct import generate, journal, plan, prompts
from mmjax.data.instruct.answers import KINDS
from mmjax.data.instruct.journal import Journal
from mmjax.data.instruct.pictures import Box, Picture
from mmjax.data.instruct.work import Run, Sampling
from mmjax.endpoint import Endpoint
from tests.stand_in import StandIn, chat

KEY = "sk-very-secret-key-0123456789"
TOLD = prompts.load()
RECIPE = generate.Instruct(TOLD)
SAMPLING = Sampling("m", max_tokens=200)
SETTINGS = {**dataclasses.asdict(SAMPLING), "prompts": "p", "data": "data"}
GOOD = {
  "conversation": "Question:\nWhat?\n===\nAnswer:\nIt is {0}.\n===\n"
  "Question:\nWhere?\n===\nAnswer:\nHere.\n===",
  "detail": "This is number {0}.",
  "reasoning": "Question:\nWhy?\n===\nAnswer:\nFor {0}.\n===",
}
Address = collections.namedtuple("Address", "url")
_KIND = {prompt.system: kind for kind, prompt in TOLD.kinds.items()}


def wanted(count, kinds=tuple(KINDS)):
  box = (Box("dog", (0, 0, 1, 1)),)
  pictures = [
    Picture(f"p{i}", f"p{i}.jpg", (f"Picture p{i}.",), box)
    for i in range(count)
  ]
  return plan.jobs(pictures, kinds)


def key_of(request):
  """Which picture and kind of answer a request is about."""
  system, *_, last = request["messages"]
  name = re.match(r"Picture (\w+)\.", last["content"])[1]
  return name, _KIND[system["content"]]


def good(key):
  return chat(GOOD[key[1]].format(key[0]))


class Server(StandIn):
  """Replies by the picture, the kind, and how often they were asked about."""

  def __init__(self, bad=lambda key, number: None):
    self.asked = collections.Counter()

    def reply(request, _):
      key = key_of(request)
      with self._lock:
        self.asked[key] += 1
        number = self.asked[key]
      return bad(key, number) or good(key)

    super().__init__(reply)


def brief_sleep(seconds):
  time.sleep(min(seconds, 0.005))


def run(folder, server, jobs, *, concurrency=4, progress=None, **options):
  endpoint = Endpoint(
    server.url,
    KEY,
    concurrency=concurrency,
    timeout=0.5,
    tries=3,
    sleep=brief_sleep,
  )
  with Journal(folder, SETTINGS) as opened:
    return Run(RECIPE, SAMPLING, **options)(
      jobs, endpoint, opened, progress or (lambda done, total: None)
    )


def lines(folder):
  return [json.loads(x) for x in (folder / journal.NAME).open()]


def output(folder):
  return json.loads((folder / RECIPE.output).read_text())


def keys_of(jobs):
  return [job.key for job in jobs]


def check_output(folder, jobs):
  """Every job once, in its order, in LLaVA's form."""
  found = output(folder)
  assert [row["id"] for row in found] == [job.picture.id for job in jobs]
  for row, job in zip(found, jobs):
    assert list(row) == ["id", "image", "conversations"]
    assert row["image"] == job.picture.image
    said = [turn["from"] for turn in row["conversations"]]
    assert said == ["human", "gpt"] * (len(said) // 2)
    texts = [turn["value"] for turn in row["conversations"]]
    assert sum("<image>" in text for text in texts) == 1
    assert re.fullmatch(r"<image>\n[^\n]+|[^\n]+\n<image>", texts[0])
    assert job.picture.id in texts[1]
