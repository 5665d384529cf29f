"""Conversations over a state that goes on, against all of it read anew."""

import pytest

from tests.generation import talking

QUESTIONS = [
  talking.ask("w1 w2", 0),
  talking.ask("w3"),
  talking.ask("w4 w5 w6", 1),
]


@pytest.fixture(scope="module")
def model():
  return talking.model()


@pytest.mark.parametrize(
  "fields", [dict(), dict(temperature=1.0, top_p=0.9, seed=3)]
)
def test_turns_are_those_of_the_whole_read_anew(model, fields):
  for s in range(30):
    model = talking.model(seed=s)
    chat = model.conversation()
    before = []
    out = []
    for question in QUESTIONS:
      said = "".join(chat.say(question))
      whole = talking.joined([*before, question])
      exp = model.generate([whole])[0]
      out.append((said == exp, len(said.split())))
      before.append(question.answered(said))
    print(s, out)
