"""An endpoint of the tests that answers requests made of steps."""

import collections
import json

from mmjax.data.instruct import steps
from mmjax.data.instruct.journal import Journal
from mmjax.data.instruct.work import Run, Sampling
from mmjax.endpoint import Endpoint
from tests.data.instructing import KEY, brief_sleep
from tests.stand_in import StandIn, chat

SAMPLING = Sampling("m", temperature=0.0, max_tokens=64)


def save(path, rows):
  path.write_text("\n".join(map(json.dumps, rows)) + "\n")
  return str(path)


class Server(StandIn):
  """Replies by the step and the last message, and how often that came."""

  def __init__(self, told: steps.Steps, says, bad=lambda step, text, n: None):
    self.asked = collections.Counter()
    of = {step.prompt.system: name for name, step in told.steps.items()}

    def reply(request, _):
      first, *_, last = request["messages"]
      key = of[first["content"]], last["content"]
      with self._lock:
        self.asked[key] += 1
        number = self.asked[key]
      return bad(*key, number) or chat(says(*key))

    super().__init__(reply)


def run(folder, server, recipe, jobs, **options):
  endpoint = Endpoint(
    server.url, KEY, concurrency=4, timeout=0.5, tries=3, sleep=brief_sleep
  )
  with Journal(folder, {"recipe": "test"}) as opened:
    return Run(recipe, SAMPLING, **options)(jobs, endpoint, opened)


def made(folder, recipe):
  return json.loads((folder / recipe.output).read_text())
