"""DisCRn files as documents."""

import json

import pytest

from mmjax.data import build
from mmjax.data.discrn import FILES, Discrn, reworded
from mmjax.data.document import BadSample
from mmjax.evaluation.chat_tasks import CHAT_TASKS


def row(k, **changes):
  return {
    "sample_ids": [f"a{k}", f"b{k}"],
    "captions": ["A dog barks.", "A car."],
    "properties": [["loud"], ["fast"]],
    "question": "Which entity is an animal?",
    "label": k % 2,
    "captions_pred_audio": ["a dog", "a motor"],
    "captions_pred_video": ["a pet", "a road"],
    **changes,
  }


def source(folder, *rows, kinds=("audio", "video"), **options):
  path = folder / "discrn.json"
  path.write_text(json.dumps(list(rows)))
  for kind in kinds:
    (folder / kind).mkdir(exist_ok=True)
    for k in range(len(rows)):
      for letter in "ab":
        file = FILES[kind].format(sample_id=f"{letter}{k}")
        (folder / kind / file).touch()
  folders = {kind: str(folder / kind) for kind in kinds}
  return dict(annotations=str(path), folders=folders, **options)


def test_documents(tmp_path):
  given = source(tmp_path, *(row(k) for k in range(4)))
  found = build.documents({"name": "discrn", **given})
  assert len(found) == 4
  seen = set()
  for k in range(4):
    document = found[k]
    first, second = document.media
    assert [first.name, second.name] == [
      f"{letter}{k}{'.wav' if media.kind == 'audio' else '.mp4'}"
      for letter, media in zip("ab", document.media)
    ]
    assert first.payload.path == str(tmp_path / first.kind / first.name)
    question, answer = document.segments[2:]
    assert question.text == "which of the two options is an animal?"
    assert answer.target and answer.text == ("first", "second")[k % 2]
    metadata = document.metadata
    assert metadata["kinds"] == [first.kind, second.kind]
    assert metadata["instruction"] == "a short description"
    seen.add((first.kind, metadata["label"]))
  # Neither the kind nor the place tells the label.
  assert len(seen) == 4


def test_how_it_is_asked(tmp_path):
  document = Discrn(**source(tmp_path, row(0)))[0]
  query = CHAT_TASKS["discrn"].query(document)
  *media, text = query.segments
  assert [m.kind for m in media] == ["audio", "video"]
  assert text.text == (
    "question: which of the two options is an animal? name the first or the "
    "second of the two. answer:"
  )


def test_captions_in_place_of_media(tmp_path):
  given = source(tmp_path, row(0), row(1), row(2), by_caption=True)
  found = Discrn(**given)
  assert not found[0].media
  asked = "which of the two options is an animal?"
  assert found[0].query().text == f"audio: a dog video: a road {asked}"
  assert found[2].query().text == f"video: a pet audio: a motor {asked}"


def test_names_of_files(tmp_path):
  clip = row(0, start_seconds=[3, 40], sample_ids=["x", 7])
  files = {"audio": "{sample_id}_{start_seconds}.flac"}
  found = Discrn(**source(tmp_path, clip, files=files))
  with pytest.raises(BadSample, match="row 0: there is no .*x_3.flac.*`files`"):
    found[0]
  for file in ("audio/x_3.flac", "video/7.mp4"):
    (tmp_path / file).touch()
  assert [media.name for media in found[0].media] == ["x_3.flac", "7.mp4"]


@pytest.mark.parametrize(
  ("question", "expected"),
  [
    ("Which entity is alive?", "which of the two options is alive?"),
    ("Which object would float?", "which of the two options would float?"),
    ("which of the two is a dog?", "which of the two options is a dog?"),
    ("Which of these two objects is it?", "which of the two options is it?"),
    ("In rain, which one is wet?", "In rain, which of the two options is wet?"),
    ("Who is it?", "which of the two options: Who is it?"),
    ("which audio is louder", "which of the two options is louder?"),
    (
      "Which option's Image?",
      "which of the two options: Which option's object?",
    ),
    ("Which one's wet?", "which of the two options: Which one's wet?"),
    (
      "Which of the two things' colours are bright?",
      "which of the two options: Which of the two things' colours are bright?",
    ),
  ],
)
def test_questions_speak_of_options(question, expected):
  assert reworded(question) == expected


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"label": 2}, "label is 2"),
    ({"label": True}, "'label' is 'True'"),
    ({"label": None}, "'label' is 'None'"),
    ({"label": "1"}, "label is '1'"),
    ({"sample_ids": ["a"]}, "sample_ids is"),
    ({"sample_ids": ["a", ["b"]]}, "sample_ids is"),
    ({"sample_ids": "ab"}, "'sample_ids' is 'ab'"),
    ({"sample_ids": ["a", ""]}, "sample_ids is"),
    ({"question": None}, "'question' is 'None'"),
    ({"question": " "}, "question is empty"),
    ({"captions": [1, 2]}, "'captions' is"),
    ({"captions_pred_audio": ["", "a"]}, "captions_pred_audio is"),
    ({"captions_pred_audio": None}, "'captions_pred_audio' is"),
    ({"start_seconds": [1]}, "start_seconds is"),
    ({"start_seconds": None}, "'start_seconds' is 'None'"),
  ],
)
def test_bad_rows_are_refused(tmp_path, changes, message):
  rows = row(0), row(1, **changes)
  with pytest.raises(ValueError, match=rf"discrn\.json, row 1: {message}"):
    Discrn(**source(tmp_path, *rows, by_caption=True))


def test_a_row_that_is_no_object_is_refused(tmp_path):
  with pytest.raises(ValueError, match="row 1: 'label' is 'None' in 7"):
    Discrn(**source(tmp_path, row(0), 7))


def test_bad_files_and_folders_are_refused(tmp_path):
  given = source(tmp_path, row(0))
  for changes, message in (
    ({"folders": {"audio": str(tmp_path)}}, "expected two"),
    ({"folders": {"audio": "nowhere", "video": "x"}}, "no folder of media"),
    ({"folders": {"sound": "x", "video": "x"}}, "Unknown kind of medium"),
    ({"files": {"audio": "{name}.wav"}}, "cannot be filled"),
    ({"files": {"vidoe": "{sample_id}"}}, "in files.*Did you mean 'video'"),
    ({"annotations": str(tmp_path / "none.json")}, "Cannot read"),
  ):
    with pytest.raises(ValueError, match=message):
      Discrn(**given | changes)
  with pytest.raises(ValueError, match="has no rows"):
    Discrn(**source(tmp_path))
  with pytest.raises(ValueError, match="captions_pred_video is"):
    bare = row(0, captions_pred_video=["one"])
    Discrn(**source(tmp_path, bare, by_caption=True))
  (tmp_path / "discrn.json").write_bytes(b'[{"\xff": 1}]')
  with pytest.raises(ValueError, match="Cannot read"):
    Discrn(**given)


def test_captions_of_points_have_their_official_name(tmp_path):
  kinds = ("image", "points")
  captions = {f"captions_pred_{k}": [f"a {k}", k] for k in ("image", "pc")}
  made = source(tmp_path, row(0, **captions), kinds=kinds, by_caption=True)
  (question,) = (s.text for s in Discrn(**made)[0].segments if not s.target)
  assert question.startswith("image: a image 3d: pc which of")


def test_a_name_that_leads_out_is_refused(tmp_path):
  away = row(0, sample_ids=["../../etc/passwd", "b"])
  with pytest.raises(BadSample, match="below"):
    Discrn(**source(tmp_path, away))[0]
