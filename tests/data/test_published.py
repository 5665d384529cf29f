"""Published sets: small files of the official form, and damaged ones."""

import json

import pytest

from mmjax.data.annotations import load
from mmjax.data.build import documents
from mmjax.data.document import BadSample, Text
from mmjax.data.instructions import Instructed, plain_caption
from mmjax.data.layouts import LAYOUTS
from mmjax.data.published import Published
from tests.data.mutations import spoiled

CAPTIONS = ",".join(f"caption_{i}" for i in range(1, 6))
# Content, kinds, and of the first sample: files, question, answers.
FILES = {
  "blip": (
    [{"image": "coco/a.jpg", "caption": "A cat.", "url": "x"}],
    *(["image"], ["coco/a.jpg"], "", ["A cat."]),
  ),
  "vg_captions": (
    [{"id": 1, "regions": [{"image_id": 1, "phrase": "a red kite", "x": 1}]}],
    *(["image"], ["1.jpg"], "", ["a red kite"]),
  ),
  "aokvqa": (
    [
      {
        "image_id": 299207,
        "question": "What is it?",
        "choices": ["a", "b"],
        "correct_choice_idx": 0,
        "direct_answers": ["ski", "ski", "snow"],
      }
    ],
    *(["image"], ["000000299207.jpg"], "What is it?"),
    ["ski", "ski", "snow"],
  ),
  "ocr_vqa": (
    {
      "0761183272": {
        "questions": ["Who wrote it?", "Is it a comic?"],
        "answers": ["A. Smith", "No"],
        "split": 1,
      }
    },
    *(["image"], ["0761183272.jpg"], "Who wrote it?", ["A. Smith"]),
  ),
  "vg_qa": (
    [{"id": 1, "qas": [{"image_id": 1, "question": "Who?", "answer": "Me."}]}],
    *(["image"], ["1.jpg"], "Who?", ["Me."]),
  ),
  "snli_ve": (
    [
      {"Flickr30K_ID": "47", "gold_label": label, "sentence2": "A man sits."}
      for label in ("neutral", "entailment")
    ],
    *(["image"], ["47.jpg"], "A man sits.", ["neutral"]),
  ),
  "audiocaps": (
    "audiocap_id,youtube_id,start_time,caption\n1,-0x_A,30,A dog barks\n",
    *(["audio", "video"], ["-0x_A_30.flac", "-0x_A_30.mp4"]),
    *("", ["A dog barks"]),
  ),
  "wavcaps": (
    {
      "num_captions_per_audio": 1,
      "data": [{"id": "Yb0", "caption": "Rain falls.", "duration": 10.0}],
    },
    *(["audio"], ["Yb0.flac"], "", ["Rain falls."]),
  ),
  "clotho": (
    f'file_name,{CAPTIONS}\n"a, b.wav",one,two,three,"four, and",five\n',
    *(["audio"], ["a, b.wav"], ""),
    ["one", "two", "three", "four, and", "five"],
  ),
  "audioset": (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=2, num_segs=2\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
    '--PJ, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n',
    *(["audio"], ["--PJ_30.000.wav"], "", ["Speech", "Gush"]),
  ),
  "audiocaps_qa": (
    "youtube_id,start_time,question,answer,caption\nab,30,Who?,dog,A dog\n",
    *(["audio"], ["ab_30.flac"], "Who?", ["dog"]),
  ),
  "clotho_aqa": (
    "file_name,QuestionText,answer,confidence\n"
    + "".join(f"a.wav,Is it wet?,{a},yes\n" for a in ("yes", "yes", "no")),
    *(["audio"], ["a.wav"], "Is it wet?", ["yes", "yes", "no"]),
  ),
  "music_avqa": (
    [
      {
        "video_id": "00002695",
        "question_id": 1,
        "type": '["Audio", "Comparative"]',
        "question_content": "Is the <Object> louder than the <Object>?",
        "templ_values": '["flute", "drum"]',
        "anser": "yes",
      }
    ],
    *(["audio", "video"], ["00002695.flac", "00002695.mp4"]),
    *("Is the flute louder than the drum?", ["yes"]),
  ),
  "esc50": (
    "filename,fold,target,category,esc10,src_file,take\n"
    "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
    "5-1-A-20.wav,5,20,crying_baby,False,1,A\n",
    *(["audio"], ["1-100032-A-0.wav"], "", ["dog"]),
  ),
  "cap3d": (
    'ab12,"a chair, of wood"\ncd34,a lamp\n',
    *(["points", "image"], ["ab12.ply", "ab12.jpeg"], "", ["a chair, of wood"]),
  ),
  "cap3d_qa": (
    "sample_id,question,answer,caption\nab,What?,lid,x\n",
    *(["points"], ["ab/ab_8192.npz"], "What?", ["lid"]),
  ),
  "modelnet40": (
    "night_stand_0201\nchair_0001\n",
    *(["points"], ["night_stand/night_stand_0201.txt"], "", ["night stand"]),
  ),
  "webvid": (
    "videoid,contentUrl,duration,page_dir,name\n"
    "21,https://x/21.mp4,PT00H00M11S,000001_000050,Waves at sea\n",
    *(["video"], ["000001_000050/21.mp4"], "", ["Waves at sea"]),
  ),
  "msrvtt": (
    {
      "videos": [{"video_id": "video0", "split": "train"}],
      "sentences": [
        {"video_id": "video0", "sen_id": i, "caption": f"a car {i}"}
        for i in range(2)
      ],
    },
    *(["video"], ["video0.mp4"], "", ["a car 0"]),
  ),
  "vatex": (
    [{"videoID": "P_1_11", "enCap": ["A man.", "He runs."], "chCap": ["x"]}],
    *(["video"], ["P_1_11.mp4"], "", ["A man.", "He runs."]),
  ),
  "msvd": (
    "# comment\n\nmv89_33_46 a bird sings\n",
    *(["video"], ["mv89_33_46.avi"], "", ["a bird sings"]),
  ),
  "msrvtt_qa": (
    [{"answer": "couch", "question": "what?", "video_id": 6513, "id": 1}],
    *(["video"], ["video6513.mp4"], "what?", ["couch"]),
  ),
  "msvd_qa": (
    [{"answer": "bird", "question": "what?", "video_id": 1, "id": 0}],
    *(["video"], ["vid1.avi"], "what?", ["bird"]),
  ),
}
LABELS = "index,mid,display_name\n0,/m/09x0r,Speech\n1,/t/dd00088,Gush\n"


def write_rows(path, name, content):
  if LAYOUTS[name].reader == "jsonl":
    content = "\n".join(map(json.dumps, content))
  path.write_text(content if isinstance(content, str) else json.dumps(content))


def written(folder, name, content):
  path = folder / f"rows.{LAYOUTS[name].reader}"
  write_rows(path, name, content)
  return str(path)


def opened(folder, name, content, kinds, **fields):
  if name == "audioset":
    (folder / "labels.csv").write_text(LABELS)
    fields["labels"] = str(folder / "labels.csv")
  media = {kind: str(folder) for kind in kinds}
  return Published(name, written(folder, name, content), media, **fields)


def test_each_set_is_tried():
  assert FILES.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_of_the_official_form(tmp_path, name):
  content, kinds, files, question, answers = FILES[name]
  for file in files:
    (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / file).write_bytes(b"media")
  source = opened(tmp_path, name, content, kinds)
  document = source[0]
  assert [m.kind for m in document.media] == kinds
  assert [m.name for m in document.media] == files
  assert all(m.load() == b"media" for m in document.media)
  texts = [s for s in document.segments if isinstance(s, Text)]
  assert "".join(t.text for t in texts if not t.target) == question
  assert [t.text for t in texts if t.target] == answers[:1]
  assert document.metadata["answers"] == answers
  assert ("choices" in document.metadata) == LAYOUTS[name].classes
  with pytest.raises(IndexError):
    source[len(source)]


def test_counts_and_choices(tmp_path):
  sizes = {"ocr_vqa": 2, "msrvtt": 2, "esc50": 2, "clotho_aqa": 1, "cap3d": 2}
  for name, size in sizes.items():
    content, kinds, *_ = FILES[name]
    assert len(opened(tmp_path, name, content, kinds)) == size, name
  source = opened(tmp_path, "esc50", FILES["esc50"][0], ["audio"])
  assert source[1].metadata["choices"] == ["crying baby", "dog"]


def test_rows_of_a_split_and_of_one_medium(tmp_path):
  content, kinds, *_ = FILES["esc50"]
  fold = opened(tmp_path, "esc50", content, kinds, where={"fold": 5})
  assert len(fold) == 1 and fold[0].metadata["answer"] == "crying baby"
  with pytest.raises(ValueError, match="no rows where {'fold': 9}"):
    opened(tmp_path, "esc50", content, kinds, where={"fold": 9})
  with pytest.raises(ValueError, match="no row of .* Did you mean 'fold'"):
    opened(tmp_path, "esc50", content, kinds, where={"flod": 5})
  content, kinds, *_ = FILES["msrvtt"]
  source = opened(tmp_path, "msrvtt", content, kinds, merged=True)
  assert len(source) == 1
  assert source[0].metadata["answers"] == ["a car 0", "a car 1"]


def test_a_row_without_the_field_is_not_of_the_split(tmp_path):
  """What cannot be read is taken, so that it is counted."""
  row = FILES["msvd_qa"][0][0]
  rows = [row, {**row, "split": "train"}, {**row, "split": "test"}, 7]
  given = dict(where={"split": "train"})
  source = opened(tmp_path, "msvd_qa", rows, ["video"], **given)
  assert len(source) == 2 and source[0].media
  with pytest.raises(BadSample, match="row 3 is 7"):
    source[1]
  found = opened(tmp_path, "msvd_qa", [7], ["video"], **given)
  assert len(found) == 1


def test_other_names_of_files(tmp_path):
  content, *_ = FILES["msvd_qa"]
  source = opened(
    *(tmp_path, "msvd_qa", content, ["video"]),
    files={"video": "clips/{video_id:04d}.mp4"},
  )
  assert source[0].media[0].name == "clips/0001.mp4"


@pytest.mark.parametrize("name", LAYOUTS)
def test_damaged_rows_are_bad_samples_with_their_names(tmp_path, name):
  content, kinds, *_ = FILES[name]
  if isinstance(content, str):
    damages = ((None, content[:at]) for at in range(len(content)))
  else:
    damages = spoiled(content)
  bad = refused = 0
  for _, changed in damages:
    try:
      if LAYOUTS[name].reader == "jsonl" and not isinstance(changed, list):
        continue
      source = opened(tmp_path, name, changed, kinds)
    except ValueError as error:
      refused += 1
      assert "rows." in str(error)
      continue
    for i in range(len(source)):
      try:
        assert source[i].media
      except BadSample as error:
        bad += 1
        said = str(error)
        assert "row" in said or "does not stay below" in said or "file" in said
  assert bad + refused > 3


def test_a_bad_row_leaves_the_others(tmp_path):
  rows = [*FILES["msvd_qa"][0], 7, {"video_id": 3}, {"video_id": [1]}]
  rows.append({**rows[0], "video_id": "../../etc/x"})
  source = opened(tmp_path, "msvd_qa", rows, ["video"])
  assert source[0].media and len(source) == 5
  for i, said in ((1, "row 1 is 7"), (2, "row 2 has no 'answer'")):
    with pytest.raises(BadSample, match=said):
      source[i]
  with pytest.raises(BadSample, match="row 3"):
    source[3]
  with pytest.raises(BadSample, match="below"):
    source[4]


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    (dict(data="cloth"), "Did you mean 'clotho'"),
    (dict(media={"image": "/"}), "Did you mean|Known: audio"),
    (dict(media={"audio": "/nowhere"}), "no folder /nowhere"),
    (dict(media={}), "media is empty; clotho has audio"),
    (dict(annotations="/nowhere.csv"), "no file /nowhere.csv"),
  ],
)
def test_wrong_settings_are_refused(tmp_path, fields, said):
  path = written(tmp_path, "clotho", FILES["clotho"][0])
  given = dict(data="clotho", annotations=path, media={"audio": str(tmp_path)})
  with pytest.raises(ValueError, match=said):
    Published(**(given | fields))


def test_the_wrong_file_is_told(tmp_path):
  path = written(tmp_path, "msrvtt", [])
  with pytest.raises(ValueError, match="not laid out as published"):
    Published("msrvtt", path, {"video": str(tmp_path)})
  path = written(tmp_path, "audiocaps", "a,b\n1,2\n")
  with pytest.raises(ValueError, match="no column 'caption'"):
    Published("audiocaps", path, {"audio": str(tmp_path)})
  assert load(written(tmp_path, "msrvtt", [])).content == []


def test_a_config_asks_in_many_wordings(tmp_path):
  rows = [{**FILES["msvd_qa"][0][0], "video_id": i} for i in range(40)]
  source = dict(
    name="published",
    data="msvd_qa",
    annotations=written(tmp_path, "msvd_qa", rows),
    media={"video": str(tmp_path)},
  )
  wordings = dict(name="instructed", task="question")
  found = documents(source, filter=wordings)
  asked = [found[i].segments[1].text for i in range(40)]
  assert len(set(asked)) > 8 and all("what?" in text for text in asked)
  assert asked == [found[i].segments[1].text for i in range(40)]
  other = documents(source, filter=wordings | dict(seed=1))
  assert asked != [other[i].segments[1].text for i in range(40)]
  one = dict(
    wordings, wording="Based on the given {medium} respond to {question}"
  )
  text = documents(source, filter=one)[0].segments[1].text
  assert text == "based on the given video respond to what?"


def test_one_of_several_captions_is_drawn(tmp_path):
  content, kinds, *_ = FILES["clotho"]
  source = opened(tmp_path, "clotho", content, kinds)
  said = {
    Instructed("caption", seed=seed)(source[0]).segments[-1].text
    for seed in range(40)
  }
  assert said == {"one", "two", "three", "four, and", "five"}


def test_captions_lose_their_marks():
  assert plain_caption('"A dog (barks)! #1;"') == "a dog barks 1"
  assert len(plain_caption("a " * 80).split()) == 50


def test_what_cannot_be_asked(tmp_path):
  document = opened(tmp_path, "clotho", *FILES["clotho"][:2])[0]
  with pytest.raises(BadSample, match="no answer, or no media"):
    Instructed("caption")(document.__class__((Text("a"),), "x"))
  with pytest.raises(ValueError, match="Unknown task 'captions'"):
    Instructed("captions")
