import json

import pytest

from mmjax.data.conversations import Conversations, Messages
from mmjax.data.document import BadSample, Document, Filtered, Media, Text
from mmjax.data.formats import Documents
from mmjax.data.sources import Json, Jsonl, Parquet
from tests.data.mutations import spoiled
from tests.data.pictures import encode, photo

PNG = encode(photo())


def turns(*values, roles=("human", "gpt")):
  return [
    {"from": roles[i % 2], "value": value} for i, value in enumerate(values)
  ]


def record(*values, image="a.jpg", **more):
  found = {"__key__": "k", "id": "7", "conversations": turns(*values), **more}
  return found | ({"image": image} if image is not None else {})


def shape(document):
  return [
    s.name if isinstance(s, Media) else (s.text, s.target)
    for s in document.segments
  ]


def read(found, folder="/tmp", **options):
  return Conversations(folder, **options)(found)


# A sample of each official file, as it is written there.
OFFICIAL = {
  "llava_instruct_150k.json": {
    "id": "000000033471",
    "image": "000000033471.jpg",
    "conversations": turns(
      "<image>\nWhat are the colors of the bus in the image?",
      "The bus in the image is white and red.",
      "What feature can be seen on the back of the bus?",
      "The back of the bus features an advertisement.",
    ),
  },
  "detail_23k.json": {
    "id": "000000143920",
    "image": "000000143920.jpg",
    "conversations": turns(
      "Can you describe the main features of this image for me?\n<image>",
      "The image depicts a kitchen.",
    ),
  },
  "llava_v1_5_mix665k.json": {
    "id": "000000106633",
    "image": "coco/train2017/000000106633.jpg",
    "conversations": turns("<image>\nWhat is this photo about?", "A woman."),
  },
  "the same, OCR-VQA": {
    "id": "0590212331",
    "image": "ocr_vqa/images/0590212331.jpg",
    "conversations": turns(
      "<image>\nWho is the author?\nAnswer the question using a single word or "
      "phrase.",
      "Ann",
    ),
  },
  "the same, ShareGPT": {
    "id": "wNBG8Gp_0",
    "model": "",
    "conversations": turns("How can I add a line in java?", "Use `\\n`."),
  },
  "chat.json of CC3M-595K": {
    "id": "GCC_train_002582585",
    "image": "GCC_train_002582585.jpg",
    "conversations": turns(
      "Provide a brief description of the given image.\n<image>",
      "olive oil is a healthy ingredient used liberally .",
    ),
  },
  "blip_laion_cc_sbu_558k.json": {
    "id": "004539375",
    "image": "00453/004539375.jpg",
    "conversations": turns(
      "Render a clear and concise summary of the photo.\n<image>",
      "select luxury furniture 3 - inch gel memory foam mattress topper",
    ),
  },
  "ScienceQA in LLaVA's form": {
    "id": "2",
    "image": "2/image.png",
    "conversations": turns(
      "Context: Select the better answer.\n<image>\nWhich is it?",
      "Solution: ...\n###\nAnswer: A.",
    ),
  },
}


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_official_files(tmp_path, name):
  (tmp_path / "a.json").write_text(json.dumps([OFFICIAL[name]], indent=2))
  document = Documents(Json(str(tmp_path / "a.json")), Conversations("/tmp"))[0]
  sample = OFFICIAL[name]
  file = sample.get("image")
  assert [m.name for m in document.media] == ([file] if file else [])
  said = [turn["value"] for turn in sample["conversations"]]
  assert document.text == "".join(said).replace("<image>", "")
  targets = [t.text for t in document.segments if getattr(t, "target", False)]
  assert targets == said[1::2]
  assert document.metadata == {"id": sample["id"]}
  assert document.id.endswith("a.json@1")


def test_text_and_images_stay_where_they_are():
  found = record("What is it?\n<image>", " A cat. ", "\nSure? ", "Yes.\n")
  assert shape(read(found)) == [
    ("What is it?\n", False),
    "a.jpg",
    (" A cat. ", True),
    ("\nSure? ", False),
    ("Yes.\n", True),
  ]


def test_several_images_in_several_turns():
  found = record(
    "<image>a<image>", "b", "<image>", "c", image=["1.png", "2.png", "3.png"]
  )
  assert shape(read(found)) == [
    *("1.png", ("a", False), "2.png", ("b", True), "3.png", ("c", True))
  ]


def test_a_first_turn_of_the_model_is_dropped():
  found = record(image=None)
  found["conversations"] = turns("Hi.", "a", "b", roles=("gpt", "human"))
  assert shape(read(found)) == [("a", False), ("b", True)]


def test_other_names_of_the_roles():
  found = record(image=None)
  found["conversations"] = turns("a", "b", roles=("user", "assistant"))
  assert shape(read(found)) == [("a", False), ("b", True)]


@pytest.mark.parametrize(
  ("found", "message"),
  [
    (record("a", "b"), "0 times <image> and 1 images"),
    (record("<image><image>", "b"), "2 times <image> and 1 images"),
    (record("<image>", "b", image=["1", "2"]), "1 times <image> and 2 images"),
    (record("<image>", "b", image=None), "1 times <image> and 0 images"),
    (record("a", "<image>"), "turn 1, an answer, has an <image>"),
    (record("<image> ", " \n"), "turn 1, of the assistant, is empty"),
    (record("<image>a", "b", "", "c"), "turn 2, of the user, is empty"),
    (record("<image>a", "b", "c"), "the last turn has no answer"),
    (record("<image>a"), "the last turn has no answer"),
    (record(), "no turns"),
    (record("<image>a", "b", image="../x"), "does not stay below"),
    (record("<image>a", "b", image=""), "does not stay below"),
    (record("<image>a", "b", image=3), "an image is a int"),
    (record("<image>a", None), "is a NoneType, expected text"),
  ],
)
def test_mistakes_are_bad_samples(found, message):
  with pytest.raises(BadSample, match=message):
    read(found)


def test_turns_have_to_alternate_and_be_of_somebody():
  found = record(image=None)
  found["conversations"] = turns("a", "b", roles=("human", "human"))
  with pytest.raises(BadSample, match="k .id '7'.: turn 1 is of the user"):
    read(found)
  found["conversations"] = turns("a", "b", roles=("human", "bing"))
  with pytest.raises(BadSample, match="'from' 'bing', expected one of human"):
    read(found)


def test_system_turns_are_the_prompts():
  found = record(image=None)
  found["conversations"] = [
    {"from": "system", "value": "Be kind."},
    *turns("a", "b"),
  ]
  with pytest.raises(BadSample, match="system='drop'"):
    read(found)
  assert shape(read(found, system="drop")) == [("a", False), ("b", True)]


def test_missing_images_are_filtered_or_fail_when_they_are_read(tmp_path):
  found = record("<image>a", "b")
  with pytest.raises(Filtered, match=r"there is no .*a\.jpg"):
    read(found, str(tmp_path), missing="filter")
  with pytest.raises(BadSample, match=r"Cannot read .*a\.jpg"):
    read(found, str(tmp_path)).media[0].load()
  (tmp_path / "a.jpg").write_bytes(PNG)
  document = read(found, str(tmp_path), missing="filter")
  assert document.media[0].load() == PNG
  with pytest.raises(BadSample, match="Give the format the `folder`"):
    read(found, None)


def test_options():
  with pytest.raises(ValueError, match="'drop': 'error' or 'filter'"):
    Conversations(missing="drop")
  with pytest.raises(ValueError, match="'keep': 'error' or 'drop'"):
    Conversations(system="keep")
  with pytest.raises(ValueError, match="no folder of images .*nowhere"):
    Conversations("/nowhere")


def message(role, *content):
  return {"role": role, "content": list(content)}


IMAGE, ASKED = {"type": "image"}, {"type": "text", "text": "What is it?"}
MESSAGES = {
  "images": [PNG],
  "messages": [message("user", IMAGE, ASKED), message("assistant", ASKED)],
}


def test_messages_of_parts_and_of_texts():
  expected = ["", ("What is it?", False), ("What is it?", True)]
  assert shape(Messages()(MESSAGES)) == expected
  plain = [
    {"role": "user", "content": "<image>What is it?"},
    {"role": "assistant", "content": "What is it?"},
  ]
  found = {"images": [{"bytes": PNG, "path": None}], "messages": plain}
  assert shape(Messages()(found)) == expected
  with pytest.raises(BadSample, match="1 times <image> and 0 images"):
    Messages()({"messages": plain})


def test_messages_begin_with_the_user():
  greeting = message("assistant", ASKED)
  found = MESSAGES | {"messages": [greeting, *MESSAGES["messages"]]}
  with pytest.raises(BadSample, match="turn 0 is of the assistant"):
    Messages()(found)
  system = message("system", ASKED)
  found = MESSAGES | {"messages": [system, *MESSAGES["messages"]]}
  assert len(Messages(system="drop")(found).segments) == 3


def test_messages_with_parts_that_are_none():
  for part in ({"type": "video"}, "text", {"type": "text", "text": "<image>"}):
    found = {"messages": [message("user", part), message("assistant", ASKED)]}
    with pytest.raises(BadSample):
      Messages()(found)


def test_messages_from_parquet_and_conversations_from_jsonl(tmp_path):
  pyarrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  row = MESSAGES | {"images": [{"bytes": PNG, "path": "a.png"}]}
  path = str(tmp_path / "m.parquet")
  parquet.write_table(pyarrow.Table.from_pylist([row]), path)
  document = Documents(Parquet(path), Messages())[0]
  assert document.media[0].load() == PNG
  assert document.media[0].name == "a.png"
  lines = tmp_path / "a.jsonl"
  lines.write_text(json.dumps(OFFICIAL["the same, ShareGPT"]) + "\n")
  assert len(Documents(Jsonl(str(lines)), Conversations())[0].segments) == 2


@pytest.mark.parametrize(
  ("make", "found"),
  [
    (Conversations("/tmp"), record("<image>a", "b")),
    (Conversations("/tmp", "filter"), record("<image>a", "b", image=["a"])),
    (Messages("/tmp"), MESSAGES),
  ],
)
def test_any_value_of_a_wrong_kind_is_a_bad_sample_or_harmless(make, found):
  outcomes = set()
  for _, changed in spoiled(found):
    try:
      outcomes.add(type(make(changed)))
    except (BadSample, Filtered) as error:
      outcomes.add(type(error))
  assert BadSample in outcomes and outcomes & {Document, Filtered}


def test_texts_are_segments():
  assert read(record("a", "b", image=None)).segments == (
    Text("a"),
    Text("b", target=True),
  )
