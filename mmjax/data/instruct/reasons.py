"""Why an answer is no use, whatever it is for."""

from mmjax.endpoint import Completion

# Of the model's own words, or of what the endpoint says of them.
REASONS = {
  "truncated": "longer than max_tokens",
  "filtered": "held back by the endpoint",
  "refused": "a request that the endpoint did not accept",
  "empty": "without a word, or with an empty question or answer",
  "format": "not in the form that was asked for",
  "characters": "has half a character, which no file can hold",
  "turns": "questions and answers that do not pair up",
  "source": "speaks of captions, boxes or coordinates",
  "placeholder": "has <image> in it",
  "short": "a caption of too few words",
  "long": "more words than are wanted",
  "changed": "a caption with words that it did not have",
  "absent": "an answer that the caption does not have",
  "leak": "a question that gives its answer away",
  "medium": "a question that speaks of the medium",
  "place": "a question that names a place in the pair",
  "entity": "an answer that names neither or both of two",
  "unknown": "nothing is known of one of the two",
  "disagrees": "another answer when it was asked again",
}
# Another answer to the same request would be no better.
FINAL = frozenset({"refused", "short", "disagrees"})


class Rejected(ValueError):
  """An answer that is no use.

  Attributes:
    reason: of REASONS.
  """

  def __init__(self, reason: str):
    super().__init__(f"{reason}: {REASONS[reason]}")
    self.reason = reason


def check(said: Completion) -> None:
  """Whether an answer is one at all, and whole.

  Raises:
    Rejected: when it is not.
  """
  if said.finish_reason in ("length", "max_tokens"):
    raise Rejected("truncated")
  if said.finish_reason == "content_filter":
    raise Rejected("filtered")
  if not said.text.strip():
    raise Rejected("empty")
  try:
    said.text.encode()
  except UnicodeEncodeError:
    raise Rejected("characters") from None
