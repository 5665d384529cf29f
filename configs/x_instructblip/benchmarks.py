"""What X-InstructBLIP is asked, below $MMJAX_DATA, in the official files.

gqa/testdev_balanced_questions.json  gqa/images/*.jpg
vizwiz/val.json  vizwiz/val/*.jpg
clotho_aqa/clotho_aqa_test.csv  clotho_aqa/audio_files/*
msrvtt_qa/test_qa.json  msrvtt/videos/*.mp4
msvd_qa/test_qa.json  msvd/videos/*.avi
music_avqa/avqa-test.json  music_avqa/{videos,audio}/*
discrn/objaverse.json  discrn/{images,points}/*
discrn/audiocaps.json  discrn/{videos,audio}/*

Each is asked in LAVIS' words, with a space behind every medium, as there in
evaluation alone; five beams, and what was said already is 1.5 times less
likely. Captions, and classes that are ranked, are not among them.
"""

from configs.flamingo.common import local
from configs.x_instructblip.common import published

_QA = "Question: {question} Answer:"


def _asked(task, ask, source):
  return dict(task=task, ask=ask, source=source, max_new_tokens=10)


def _image():
  gqa = dict(
    name="gqa",
    questions=local("gqa/testdev_balanced_questions.json"),
    images=local("gqa/images"),
  )
  vizwiz = dict(
    name="vizwiz",
    annotations=local("vizwiz/val.json"),
    images=local("vizwiz/val"),
  )
  ask = "based on the given image respond to {question}"
  return dict(gqa=_asked("gqa", ask, gqa), vizwiz=_asked("vizwiz", ask, vizwiz))


def _audio():
  source = published(
    "clotho_aqa",
    "clotho_aqa/clotho_aqa_test.csv",
    audio="clotho_aqa/audio_files",
  )
  return dict(clotho_aqa=_asked("vqav2", _QA, source))


def _video():
  msrvtt = published(
    "msrvtt_qa", "msrvtt_qa/test_qa.json", video="msrvtt/videos"
  )
  msvd = published("msvd_qa", "msvd_qa/test_qa.json", video="msvd/videos")
  ask = "based on the given video respond to {question}"
  return dict(
    msrvtt_qa=_asked("gqa", ask, msrvtt), msvd_qa=_asked("gqa", _QA, msvd)
  )


def discrn(file, **folders):
  """One of DisCRn's two files and the media of both kinds."""
  return dict(
    task="discrn",
    source=dict(
      name="discrn",
      annotations=local(f"discrn/{file}.json"),
      folders={kind: local(f"discrn/{name}") for kind, name in folders.items()},
    ),
  )


def _several():
  music = published(
    "music_avqa",
    "music_avqa/avqa-test.json",
    video="music_avqa/videos",
    audio="music_avqa/audio",
  )
  return dict(
    music_avqa=_asked("gqa", _QA, music),
    discrn_objaverse=discrn("objaverse", image="images", points="points"),
    discrn_audiocaps=discrn("audiocaps", video="videos", audio="audio"),
  )


def evaluate(*kinds, format="x_instructblip_asked"):
  """`config.evaluate` of all that is asked about these kinds of media.

  Args:
    *kinds: of media.
    format: of prompts, of text/prompts/cued.py.
  """
  by_kind = dict(image=_image, audio=_audio, video=_video)
  tasks = {}
  for kind in kinds:
    tasks |= by_kind[kind]() if kind in by_kind else {}
  if len(kinds) > 1:
    tasks |= _several()
  model = dict(
    batch_size=8,
    num_beams=5,
    length_penalty=-1.0,
    repetition_penalty=1.5,
    min_new_tokens=1,
  )
  prompt = dict(format=format)
  return dict(name="chat", tasks=tasks, model=model, prompt=prompt)
