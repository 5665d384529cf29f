"""Writes the tables in fixtures/ from the official programs.

  pip install pycocoevalcap==1.2 && pip download --no-deps \
      open-flamingo==2.0.1 salesforce-lavis==1.0.2    # and unzip the two
  python -m tests.evaluation.record vqa UNZIPPED_OPEN_FLAMINGO UNZIPPED_LAVIS
  python -m tests.evaluation.record ptb               # needs java

The two wheels pin old versions of everything, so they are no test dependency;
the one file each that holds the VQA evaluation needs nothing but Python.
"""

import contextlib
import importlib.util
import io
import json
import random
import sys
from pathlib import Path

from tests.evaluation import java_ptb

FIXTURES = Path(__file__).parent / "fixtures"
SEED = 0

_ANSWERS = """
yes|no|2|two|Two.|none|0|zero|ten|a dog|the dog|Dog|dogs|an apple|apple|dont|
don't|cant|can't|t-shirt|t shirt|tshirt|red, white|red and white|1,000|1000|
1,000 dogs, cats|3.5|3.5.|.5|5.|U.S.|u.s|us|it's|its|hes|he's|couldntve|
couldn'tve|couldnt've|somebody'd|somebodyd|yall|yall'd've|ow's'at|'ow's'at|
Id've|Im|I'm|Ive|lets|let's|shes|she's|whats that|what's that|a|the|an|A the|
blue/green|blue / green|blue green|(left)|[right]|"quoted"|'quoted'|what?|
yes!|yes !|50%|$5|5 dollars|#1|10:30|10 : 30|a:b|a;b|new\\nline|tab\\there|
  spaced   out  |under_score|a_b|plus+minus|a=b|x>y|x<y|@home|`tick`|
back\\\\slash|....|. . .|a.b.c|1.2.3|...5|hot dog|hotdog|Ünïcödé|no idea|
unanswerable|maam|oclock|5 oclock|one two three|none of them|thirty-one|
t-rex, raptor|-|--|,|?|!
"""


def vqa_table() -> list[dict]:
  """Predictions and ten annotations each, from a pool of awkward answers."""
  rng = random.Random(SEED)
  pool = [
    a.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\")
    for a in _ANSWERS.replace("\n", "").split("|")
  ]
  pool.append("." * 40 + "end")
  rows = []
  for prediction in pool + rng.choices(pool, k=200):
    near = [prediction, *rng.choices(pool, k=3)]
    answers = rng.choices(near, weights=(3, 1, 1, 1), k=10)
    if rng.random() < 0.15:
      answers = [rng.choice(near)] * 10
    rows.append({"prediction": prediction, "answers": answers})
  return rows


def official_vqa(path: Path, rows: list[dict]) -> list[float]:
  """Accuracy in percent, to ten digits, of the VQAEval class in a file."""
  spec = importlib.util.spec_from_file_location("official_vqa", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)

  class Table:
    def __init__(self, qa):
      self.qa = qa

    def getQuesIds(self):
      return list(self.qa)

  truth = {
    i: {
      "answers": [
        {"answer": a, "answer_id": j} for j, a in enumerate(row["answers"])
      ],
      "question_type": "any",
      "answer_type": "other",
    }
    for i, row in enumerate(rows)
  }
  given = {i: {"answer": row["prediction"]} for i, row in enumerate(rows)}
  with contextlib.redirect_stdout(io.StringIO()):
    evaluation = module.VQAEval(Table(truth), Table(given), n=10)
    evaluation.evaluate(list(truth))
  return [evaluation.evalQA[i] for i in range(len(rows))]


def record_vqa(open_flamingo: str, lavis: str) -> None:
  rows = vqa_table()
  sources = {
    "always": Path(open_flamingo) / "open_flamingo/eval/vqa_metric.py",
    "disagreement": Path(lavis) / "lavis/common/vqa_tools/vqa_eval.py",
  }
  for protocol, path in sources.items():
    for row, score in zip(rows, official_vqa(path, rows)):
      row[protocol] = score
  about = (
    "VQAEval of open-flamingo 2.0.1 (always) and salesforce-lavis 1.0.2 "
    "(disagreement), both the official VQA evaluation with the changes named "
    "in mmjax/evaluation/vqa.py. Percent. Made by tests/evaluation/record.py."
  )
  _write("vqa.json", {"about": about, "rows": rows})


_WORDS = """
a A the man woman dog's dogs' isn't can't they're it's I'm T-shirt two-story 2
black-and-white 10 3:30 1/2 1,000 3.5 4x4 U.S. Mr. St. a.m. No. etc. B AT&T
O'Reilly o'clock y'all 'n' '90s 80's 1960s stop STOP café piñata über w/ and/or
hello_world www.foo.com @user #tag $5 £10 50% #3 won't gonna cannot J.K. Ph.D.
Jan. Sat. Inc. 5'10 6" 12'' red/white blue,green one.Two left;right x:y R&B 747
C++ 1st 22nd 3rd-floor 10am 10:30pm 5ft -5 +2 :) :( <3 <b> </b> & * + = ~ / _ -
-- — … ... ! ?! ? . , ; : ' " `` “ ” ‘ ’ ( ) [ ] é 日本 😀 ™ ° ½ € don’t it’s
"""
_AFTER = (
  [""] * 24 + list(".,;:!?\"')]}") + ["...", "!!", '."', "'s", "’s", ".,"]
)
_BEFORE = [""] * 24 + list("\"'([{`#@$-*“‘.,") + ["...", "--", "``"]


def awkward_captions(count: int, seed: int) -> list[str]:
  """Random words with random punctuation around them; not selected."""
  rng = random.Random(seed)
  parts = (_BEFORE, _WORDS.split(), _AFTER)
  return [
    " ".join(
      "".join(rng.choice(part) for part in parts)
      for _ in range(rng.randint(1, 6))
    )
    for _ in range(count)
  ]


def record_ptb() -> None:
  lines = (FIXTURES / "captions.txt").read_text().splitlines()
  awkward = awkward_captions(1000, SEED)
  about = (
    "What PTBTokenizer of pycocoevalcap 1.2 (Stanford CoreNLP 3.4.1) makes of "
    "captions.txt, a line each, and of awkward_captions(1000, 0). Made by "
    "tests/evaluation/record.py."
  )
  table = {
    "captions": java_ptb.captions(lines),
    "awkward": java_ptb.captions(awkward),
  }
  _write("ptb.json", {"about": about, **table})


def _write(name: str, table: dict) -> None:
  text = json.dumps(table, indent=0, ensure_ascii=False)
  (FIXTURES / name).write_text(text + "\n")


if __name__ == "__main__":
  if sys.argv[1] == "vqa":
    record_vqa(*sys.argv[2:])
  else:
    record_ptb()
