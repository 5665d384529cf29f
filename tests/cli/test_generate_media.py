"""A run that reads four kinds of media, asked about files of its user."""

import dataclasses
import json
from types import SimpleNamespace

import flax.linen as nn
import numpy as np
import pytest

from mmjax.checkpoints import Checkpoints, fingerprint
from mmjax.cli import generate, main
from mmjax.cli.evaluate import evaluate, load_model
from mmjax.cli.generate import for_generation
from mmjax.cli.local import load_local
from mmjax.data.batching import empty, stack
from mmjax.data.build import encoder
from mmjax.data.document import Document, File, Media, Text
from mmjax.systems import x_instructblip
from mmjax.text.tokenizer import drawn
from mmjax.training.state import TrainState, abstract_params
from mmjax.tree import flatten, unflatten
from tests.data import kinds
from tests.data.pictures import encode, photo
from tests.data.shapes import npy
from tests.data.test_audio import encode as wav
from tests.data.test_audio import tone
from tests.data.test_video import clip
from tests.systems.test_x_instructblip import MODEL

BEAMS = dict(num_beams=2, min_new_tokens=3, length_penalty=1.0)
WORDS = 1866  # Of the tokenizer of the drawn set.


def model():
  """The small model of all kinds, with that tokenizer's words."""
  words, media = dict(vocab_size=WORDS), {}
  for kind, own in MODEL["media"].items():
    connector = own["connector"]
    if "qformer" in connector:
      connector = connector | dict(qformer=connector["qformer"] | words)
    media[kind] = own | dict(connector=connector)
  return MODEL | dict(media=media, lm=MODEL["lm"] | words)


def config_of(read):
  """A config whose data are of the kinds `read`."""
  prompt = kinds.PROMPT | dict(media=dict.fromkeys(read, 1), length=24)
  prompt |= dict(format="instructblip", reader_length=6)
  media = {k: kinds.MEDIA[k] for k in read}
  return dict(
    system="x_instructblip",
    model=model(),
    tokenizer=dict(name="drawn", reader=dict(name="drawn")),
    data=dict(datasets=dict(questions=dict(prompt=prompt, media=media))),
    train=dict(trainable=[[".*", True]]),
  )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run whose checkpoint was drawn at random, and files of every kind."""
  folder = tmp_path_factory.mktemp("run")
  config = config_of(kinds.MEDIA)
  (entry,) = config["data"]["datasets"].values()
  tokenizer = drawn()
  tokenizer.reader = drawn()
  read = encoder(tokenizer, **entry)
  batch = stack([empty(24, read.slots)])
  shapes = abstract_params(x_instructblip.build(config["model"]), batch)
  random, params = np.random.default_rng(0), {}
  for path, x in flatten(nn.unbox(shapes)).items():
    around = path.endswith(("scale", "var"))
    params[path] = np.float32(around + 0.3 * random.uniform(-1, 1, x.shape))
  params = unflatten(params)
  zero = np.zeros((), np.int32)
  state = TrainState(zero, params, {}, (), zero, np.zeros((), np.float32))
  with Checkpoints(folder / "checkpoints") as made:
    made.save(state, {}, fingerprint({}))
  (folder / "config.json").write_text(json.dumps(config))
  write_files(folder)
  return folder


def write_files(folder):
  (folder / "image").write_bytes(encode(photo(20, 30)))
  (folder / "video").write_bytes(clip(seconds=2))
  (folder / "audio").write_bytes(wav(tone(seconds=0.2)))
  (folder / "points").write_bytes(
    npy(np.random.default_rng(0).standard_normal((20, 3)))
  )


def ask(folder, *arguments):
  """The command line, with the folder in place of FOLDER."""
  given = [a.replace("FOLDER", str(folder)) for a in arguments]
  return main.main(["generate", "--workdir", str(folder), *given])


def shown(folder, *names):
  """Arguments, and the document that they are."""
  arguments, segments = [], []
  for name in names:
    if name in kinds.MEDIA:
      path = str(folder / name)
      arguments += [f"--{name}", path]
      segments.append(Media(name, File(path), path))
    else:
      arguments += ["--prompt", name]
      segments.append(Text(name))
  return arguments, Document(tuple(segments), "prompt")


@pytest.mark.heavy
def test_any_media_in_any_order_and_number(run, capsys):
  names = ("audio", "a cat", "points", "image", "video", "image", "points")
  arguments, document = shown(run, *names)
  options = ["--max-new-tokens", "4", "--repetition-penalty", "1.5"]
  assert ask(run, *arguments, *options) == 0
  found = capsys.readouterr().out.splitlines()[-1]
  config = for_generation(json.loads((run / "config.json").read_text()))
  room = dict(media=dict(image=2, video=1, audio=1, points=2), length=64)
  fields = dict(max_new_tokens=4, repetition_penalty=1.5, batch_size=1)
  asked = load_model(config, run, fields, room)
  assert asked.generate([document]) == [found] and found


def test_choices_are_ranked_by_their_likelihood(run, capsys):
  arguments, document = shown(run, "points", "a")
  assert ask(run, *arguments, "--choices", "cat, red dog,dog") == 0
  lines = [x.split(maxsplit=1) for x in capsys.readouterr().out.splitlines()]
  config = for_generation(json.loads((run / "config.json").read_text()))
  answers = ["cat", "red dog", "dog"]
  scores = load_model(config, run).score([document], answers).total[0]
  best = np.argsort(-scores)
  assert [name for _, name in lines] == [answers[i] for i in best]
  found = [float(score) for score, _ in lines]
  np.testing.assert_allclose(found, scores[best], atol=1e-4)


def benchmarks_of(run, folder):
  """A class that is ranked, a caption, and one of two media."""
  rows = "filename,category\naudio,red_dog\naudio,cat\n"
  (folder / "rows.csv").write_text(rows)
  pair = dict(sample_ids=["a", "b"], captions=["a", "b"], label=1)
  rows = json.dumps([pair | dict(question="which is a dog?")])
  (folder / "rows.json").write_text(rows)
  esc50 = dict(
    name="published",
    data="esc50",
    annotations=str(folder / "rows.csv"),
    media=dict(audio=str(run)),
  )
  ranked = dict(source=esc50, ask="what", candidate=" a {answer}")
  written = dict(
    source=esc50 | dict(where=dict(category="cat")),
    max_new_tokens=4,
    model=BEAMS,
  )
  pairs = dict(
    name="discrn",
    annotations=str(folder / "rows.json"),
    folders=dict(image=str(run), points=str(run)),
    files=dict(image="image", points="points"),
  )
  room = dict(format=dict(prefix="a dog"), length=32)
  return dict(
    ranked=dict(task="classes", **ranked),
    written=dict(task="captions", **written),
    discrn=dict(source=pairs, ask="{question}", prompt=room, max_new_tokens=3),
  )


@pytest.mark.heavy
def test_benchmarks_are_asked_of_each_kind(run, tmp_path):
  config = json.loads((run / "config.json").read_text())
  tasks = benchmarks_of(run, tmp_path)
  found = evaluate(config | dict(evaluate=dict(name="chat", tasks=tasks)), run)
  assert [r.task for r in found] == [*tasks]
  assert all(np.isfinite([*r.scores.values()]).all() for r in found)
  own = load_model(for_generation(config), run)
  _, document = shown(run, "audio", "what")
  scores = own.score([document], ["  a cat", "  a red dog"]).total[0]
  best = ("cat", "red dog")[int(scores.argmax())]
  assert {r["prediction"] for r in found[0].records} == {best}
  assert found[0].scores == {"accuracy": 50}
  own = dataclasses.replace(own, **BEAMS, max_new_tokens=4)
  _, document = shown(run, "audio", "a short description")
  assert found[1].records[0]["raw"] == own.generate([document])[0]


def test_a_text_before_a_medium_is_read_behind_it(run, capsys, caplog):
  said = []
  for names in (("points", "a"), ("a", "points")):
    assert "stands before a medium" not in caplog.text
    arguments, _ = shown(run, *names)
    assert ask(run, *arguments, "--choices", "cat, red dog,dog") == 0
    said.append(capsys.readouterr().out.splitlines())
  assert said[0] == said[1]
  assert "stands before a medium" in caplog.text


def test_likelihoods_that_are_no_numbers_are_no_ranking(monkeypatch):
  class Lost:
    def score(self, documents, answers):
      return SimpleNamespace(total=np.array([[-1.0, np.nan]]))

  document = Document((Text("a"),), "prompt")
  monkeypatch.setattr(generate, "_asked", lambda *_: (Lost(), document))
  with pytest.raises(FloatingPointError, match=r"\[-1.0, nan\], expected"):
    generate.rank({}, "", (), ["cat", "dog"])


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--choices", "cat"], "two or more"),
    (["--choices", "cat,cat"], "all different"),
    (["--choices", "cat,,dog"], "none empty"),
    (["--choices", "a,b", "--top-k", "3"], "--top-k says how"),
    (["--length-penalty", "1"], "Raise num_beams"),
    (["--repetition-penalty", "0"], "repetition_penalty is 0.0"),
    (["--min-new-tokens", "33"], "max_new_tokens only 32"),
  ],
)
def test_options_that_do_not_fit_are_told(run, arguments, message, capsys):
  assert ask(run, "--prompt", "a", *arguments) == 1
  assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def hearing(tmp_path_factory):
  """A config of sounds and shapes; there is nothing to load."""
  folder = tmp_path_factory.mktemp("hearing")
  config = json.dumps(config_of(["points", "audio"]))
  (folder / "config.json").write_text(config)
  write_files(folder)
  (folder / "empty").write_bytes(b"")
  (folder / "cut").write_bytes((folder / "audio").read_bytes()[:30])
  return folder


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--image", "FOLDER/image"], "reads no 'image'"),
    (["--video", "FOLDER/video"], "it reads audio, points."),
    (["--audio", "FOLDER/none"], "There is no audio file"),
    (["--points", "FOLDER"], "There is no points file"),
    (["--audio", "FOLDER/empty"], "FOLDER/empty"),
    (["--points", "FOLDER/empty"], "FOLDER/empty"),
    (["--audio", "FOLDER/cut"], "FOLDER/cut"),
    (["--points", "FOLDER/image"], "FOLDER/image"),
    (["--audio", "FOLDER/points"], "FOLDER/points"),
  ],
)
def test_files_that_cannot_be_read_are_told(
  hearing, arguments, message, capsys
):
  """Before a model is loaded: here is none."""
  assert ask(hearing, *arguments, "--prompt", "a") == 1
  said = capsys.readouterr().err.splitlines()[-1]
  assert said.startswith("mmjax generate: ")
  assert message.replace("FOLDER", str(hearing)) in said


def test_a_prompt_without_turns_is_told_before_a_model_is_read(hearing, capsys):
  said = "its prompt is 'cued', which knows no turns"
  assert main.main(["chat", "--workdir", str(hearing)]) == 1
  assert said in capsys.readouterr().err
  with pytest.raises(ValueError, match=said):
    load_local(hearing)
  for option, value in (("--system", "You see."), ("--system", "")):
    assert ask(hearing, option, value, "--prompt", "a") == 1
    message = capsys.readouterr().err
    assert "'cued', which has no 'system': leave --system out." in message


def test_a_table_of_features_sees_no_files(hearing, tmp_path, capsys):
  config = config_of(["image"])
  (entry,) = config["data"]["datasets"].values()
  entry["media"]["image"] = dict(name="pictures", keys=True, values=False)
  (tmp_path / "config.json").write_text(json.dumps(config))
  assert ask(tmp_path, "--image", str(hearing / "image")) == 1
  assert "table of features" in capsys.readouterr().err
