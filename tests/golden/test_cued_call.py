"""Which ids a call of golden component xinstructblip writes, by its options."""

import numpy as np
import pytest

from tests.golden.cued_call import CALL, Case
from tests.golden.file import read
from tests.golden.options import merged
from tests.golden.test_golden import ARRAYS

START, SPACE = [2], [3]
PREFIX, POSTFIX, QUESTION = [13, 8], [35, 55, 29], [45, 12, 53]
ANSWER = [53, 12, 7, 47, 41, 52]
A, B = [9, 52], [60, 16]
FRAME = [-1] * 4
IMAGE, POINTS = [36, 12, *FRAME], [58, 32, 38, *FRAME]
VIDEO, AUDIO = [27, 23, *FRAME], [37, 19, *FRAME]
PAIR, JOINT = ["image", "pc"], ["audio", "video"]
NUMBERED = dict(enumerate_inputs=True, add_space=True, modalities=PAIR)


def case(mode, options) -> Case:
  golden = read(ARRAYS / "xinstructblip" / "glue_qformer.safetensors")
  call = dict(mode=mode, batch=1, questions=[1]) | options
  return Case(golden, "some", merged(call, CALL))


def layout(written):
  return np.where(written.index > 0, -1, written.tokens).tolist()


ASKED = [
  (
    NUMBERED,
    START + A + START + IMAGE + SPACE + B + START + POINTS + SPACE + START,
  ),
  (
    NUMBERED | dict(clean=True, remove_start=True),
    START + A + IMAGE + SPACE + B + POINTS + SPACE,
  ),
  (
    dict(modalities=PAIR, clean=True, remove_start=True),
    START + IMAGE + POINTS,
  ),
  (
    dict(modalities=JOINT, joint=True, remove_start=True, add_space=True),
    2 * (START + VIDEO + START + AUDIO) + START,
  ),
  (
    dict(modalities=JOINT, joint=True, enumerate_inputs=True, clean=True),
    START + A + VIDEO + AUDIO + B + VIDEO + AUDIO,
  ),
]


@pytest.mark.parametrize("options, expected", ASKED)
def test_what_is_asked(options, expected):
  asked = case("generate", options)
  written = asked.prompt.query(asked.document(1))
  assert layout(written) == expected + QUESTION


TRAINED = [
  (NUMBERED, START + IMAGE + START + POINTS + START),
  (
    NUMBERED | dict(clean=True, remove_start=True),
    START + IMAGE + START + POINTS,
  ),
  (
    dict(modalities=PAIR, remove_start=True),
    START + IMAGE + START + POINTS + START,
  ),
  (
    dict(modalities=JOINT, joint=True),
    START + AUDIO + FRAME + START + VIDEO + FRAME + START,
  ),
]


@pytest.mark.parametrize("options, expected", TRAINED)
def test_training_reads_fewer_options(options, expected):
  trained = case("train", options)
  written = trained.prompt.write(trained.document(1, 1))
  assert layout(written) == expected + QUESTION + ANSWER + START


def test_ranking_has_no_joint_media():
  options = dict(modalities=JOINT, joint=True, clean=True, add_space=True)
  ranked = case("rank", options | dict(prefix="USER:", postfix="ASSISTANT:"))
  written = ranked.prompt.query(ranked.document(1))
  media = AUDIO + FRAME + SPACE + VIDEO + FRAME + SPACE
  assert layout(written) == START + PREFIX + media + QUESTION + POSTFIX
