"""Where the parts of a sample are in the published files of data sets."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmjax.data.fields import text_of

Row = dict[str, Any]
# A row with its labels' names -> the row as it is read.
Change = Callable[[Row, Mapping[str, str]], Row]


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the parts of a sample are.

  Attributes:
    reader: "csv", "tsv", "json", "jsonl" or "lines"; see READERS.
    files: kind of medium to what its file is called, with fields in braces.
    answers: fields of the answers: texts, or lists of them.
    question: field of the question; "" is none.
    rows: the rows of a json's content.
    header: names of a table's columns where it has none itself.
    change: makes other fields of a row's.
    merged: rows of the same files and question are one sample.
    classes: answers are of few, which become the sample's choices.
  """

  reader: str
  files: Mapping[str, str]
  answers: Sequence[str]
  question: str = ""
  rows: Callable[[Any], list] = lambda content: content
  header: Sequence[str] = ()
  change: Change = lambda row, labels: row
  merged: bool = False
  classes: bool = False


def _under(key: str) -> Callable[[Any], list]:
  """The list that a file has under a key."""
  return lambda content: content[key]


def _inner(key: str) -> Callable[[Any], list]:
  """The lists under a key of every row, as Visual Genome has them."""
  return lambda content: [inner for row in content for inner in row[key]]


def _ocr_vqa(content: Mapping) -> list:
  """A book's lists of questions and of answers, each pair a row."""
  return [
    {**book, "id": key, "question": question, "answer": answer}
    for key, book in content.items()
    for question, answer in zip(book["questions"], book["answers"], strict=True)
  ]


def _msrvtt(content: Mapping) -> list:
  """Sentences, each with the split of its video."""
  splits = {video["video_id"]: video["split"] for video in content["videos"]}
  return [
    {**sentence, "split": splits[sentence["video_id"]]}
    for sentence in content["sentences"]
  ]


def _named_labels(row: Row, labels: Mapping[str, str]) -> Row:
  """AudioSet's codes as names."""
  codes = text_of(row["positive_labels"], "positive_labels").split(",")
  return row | {"labels": [labels[code] for code in codes]}


def _filled(row: Row, labels: Mapping[str, str]) -> Row:
  """MusicAVQA's question, whose gaps are filled by a list in a text.

  "Is the <Object> louder?", '["flute"]'  ->  "Is the flute louder?"
  """
  first, *rest = row["question_content"].split("<Object>")
  values = json.loads(row["templ_values"])
  parts = (f"{v}{text}" for v, text in zip(values, rest, strict=True))
  return row | {"question": first + "".join(parts)}


def _spaced(row: Row, labels: Mapping[str, str]) -> Row:
  """ESC-50's `crying_baby` -> `crying baby`."""
  return row | {"category": row["category"].replace("_", " ")}


def _modelnet(row: Row, labels: Mapping[str, str]) -> Row:
  """`night_stand_0201` -> `night_stand`, said as `night stand`."""
  folder, mark, _ = row["line"].rpartition("_")
  if not mark:
    raise ValueError("expected a class, '_' and a number")
  return row | {"folder": folder, "label": folder.replace("_", " ")}


def _msvd(row: Row, labels: Mapping[str, str]) -> Row:
  """A video's name, a space and a sentence."""
  video, mark, sentence = row["line"].partition(" ")
  if not mark:
    raise ValueError("expected a video, a space and a sentence")
  return {"video": video, "caption": sentence}


_CLIP = "{youtube_id}_{start_time}"
_COCO = "{image_id:012d}.jpg"
_MSVD = {"video": "{video}.avi"}
# ULIP's clouds.
_OBJAVERSE = {
  "points": "{sample_id}/{sample_id}_8192.npz",
  "image": "{sample_id}.jpeg",
}
LAYOUTS: Mapping[str, Layout] = {
  # Captions of pictures. BLIP's lists: CapFilt, VG, SBU, CC12M.
  "blip": Layout("json", {"image": "{image}"}, ["caption"]),
  "vg_captions": Layout(
    "json", {"image": "{image_id}.jpg"}, ["phrase"], rows=_inner("regions")
  ),
  # Questions about pictures.
  "aokvqa": Layout("json", {"image": _COCO}, ["direct_answers"], "question"),
  "ocr_vqa": Layout(
    *("json", {"image": "{id}.jpg"}, ["answer"], "question"), rows=_ocr_vqa
  ),
  "vg_qa": Layout(
    *("json", {"image": "{image_id}.jpg"}, ["answer"], "question"),
    rows=_inner("qas"),
  ),
  "snli_ve": Layout(
    *("jsonl", {"image": "{Flickr30K_ID}.jpg"}, ["gold_label"], "sentence2"),
    classes=True,
  ),
  # Sound.
  "audiocaps": Layout(
    "csv", {"audio": f"{_CLIP}.flac", "video": f"{_CLIP}.mp4"}, ["caption"]
  ),
  "wavcaps": Layout(
    "json", {"audio": "{id}.flac"}, ["caption"], rows=_under("data")
  ),
  "clotho": Layout(
    "csv", {"audio": "{file_name}"}, [f"caption_{i}" for i in range(1, 6)]
  ),
  "audioset": Layout(
    "csv",
    {"audio": "{YTID}_{start_seconds}.wav"},
    ["labels"],
    header=("YTID", "start_seconds", "end_seconds", "positive_labels"),
    change=_named_labels,
  ),
  "audiocaps_qa": Layout(
    "csv", {"audio": f"{_CLIP}.flac"}, ["answer"], "question"
  ),
  "clotho_aqa": Layout(
    "csv", {"audio": "{file_name}"}, ["answer"], "QuestionText", merged=True
  ),
  "music_avqa": Layout(
    "json",
    {"video": "{video_id}.mp4", "audio": "{video_id}.flac"},
    # So the files spell it.
    ["anser"],
    "question",
    change=_filled,
  ),
  "esc50": Layout(
    *("csv", {"audio": "{filename}"}, ["category"]),
    change=_spaced,
    classes=True,
  ),
  # 3D.
  "cap3d": Layout(
    *("csv", {"points": "{uid}.ply", "image": "{uid}.jpeg"}, ["caption"]),
    header=("uid", "caption"),
  ),
  "cap3d_qa": Layout("csv", _OBJAVERSE, ["answer"], "question"),
  "modelnet40": Layout(
    *("lines", {"points": "{folder}/{line}.txt"}, ["label"]),
    change=_modelnet,
    classes=True,
  ),
  # Video.
  "webvid": Layout("csv", {"video": "{page_dir}/{videoid}.mp4"}, ["name"]),
  "msrvtt": Layout(
    "json", {"video": "{video_id}.mp4"}, ["caption"], rows=_msrvtt
  ),
  "vatex": Layout(
    "json", {"video": "{videoID}.mp4", "audio": "{videoID}.flac"}, ["enCap"]
  ),
  "msvd": Layout("lines", _MSVD, ["caption"], change=_msvd),
  "msrvtt_qa": Layout(
    "json", {"video": "video{video_id}.mp4"}, ["answer"], "question"
  ),
  "msvd_qa": Layout(
    "json", {"video": "vid{video_id}.avi"}, ["answer"], "question"
  ),
}
