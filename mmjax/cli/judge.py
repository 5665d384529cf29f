"""The language model that judges, where the environment names one."""

import os
from collections.abc import Callable

from mmjax.endpoint import from_environment
from mmjax.evaluation.judge import Ask, Judging, ask_endpoint


def make_judge() -> Callable[[Judging], Ask] | None:
  """Behind OPENAI_BASE_URL or with OPENAI_API_KEY; None without both.

  Answers are then written and kept, and judged by a later start.
  """
  if not {"OPENAI_API_KEY", "OPENAI_BASE_URL"} & os.environ.keys():
    return None
  return lambda judging: ask_endpoint(from_environment(), judging)
