"""What X-InstructBLIP is asked, below $MMJAX_DATA, in the official files.

coco/dataset_coco.json  coco/{train,val}2014/*.jpg
flickr30k/dataset_flickr30k.json  flickr30k/flickr30k-images/*.jpg
nocaps/nocaps_val_4500_captions.json  nocaps/val/*.jpg
gqa/testdev_balanced_questions.json  gqa/images/*.jpg
okvqa/{OpenEnded_,}mscoco_val2014_{questions,annotations}.json
vizwiz/val.json  vizwiz/val/*.jpg
snli_ve/snli_ve_test.jsonl
audiocaps/test.csv  audiocaps_qa/val.csv  audiocaps/audio/*.flac
clotho_{v1,v2}/clotho_captions_evaluation.csv  clotho_{v1,v2}/evaluation/*.wav
clotho_aqa/clotho_aqa_test.csv  clotho_aqa/audio_files/*
esc50/meta/esc50.csv  esc50/audio/*.wav
msrvtt/train_val_videodatainfo.json  msrvtt/test_videodatainfo.json
msrvtt_qa/test_qa.json  msrvtt/videos/*.mp4
msvd/test.txt  msvd_qa/test_qa.json  msvd/videos/*.avi
vatex/vatex_validation_v1.0.json  vatex/{videos,audio}/*
modelnet40/modelnet40_test.txt  modelnet40/*/*.txt
cap3d/val.csv  cap3d/points/*.ply
cap3d_qa/CAP3DQA_final_val.csv  cap3d_qa/points/*/*_8192.npz
music_avqa/avqa-test.json  music_avqa/{videos,audio}/*
discrn/objaverse.json  discrn/images/*_2.jpeg  discrn/points/*/*_8192.npz
discrn/audiocaps.json  discrn/{videos/*_*.mp4,audio/*_*.flac}

Each is asked in LAVIS' words (DisCRn's request, which stands before the media,
in ours), questions in lower case and almost without punctuation, with a space
behind every medium, as there in evaluation alone; five beams, and what was said
already is 1.5 times less likely. Classes are ranked, and once more looked for
in what is written. Videos have five frames, with their sound two. Captions are
scored by CIDEr, BLEU and ROUGE-L; METEOR and SPICE need Java, and are left out.
"""

import dataclasses

from configs.flamingo.common import local
from configs.x_instructblip.common import published
from mmjax.text.prompts.cued import FORMATS

_QA = "Question: {question} Answer:"
FRAMES = 5
# As LAVIS calls the media of DisCRn; of renderings the third.
FILES = dict(
  image="{sample_id}_2.jpeg",
  points="{sample_id}/{sample_id}_8192.npz",
  video="{sample_id}_{start_seconds}.mp4",
  audio="{sample_id}_{start_seconds}.flac",
)
# Before the two media of DisCRn.
REQUEST = (
  "There are two inputs. Say which one of them answers the question best, by "
  "its place alone: first or second, left or right. "
)


def _captions(source, **more):
  decoding = dict(min_new_tokens=10, length_penalty=1.0)
  own = dict(max_new_tokens=80, model=decoding)
  return dict(task="captions", source=source, **own, **more)


def _asked(ask, source, task="short_answers", **more):
  return dict(task=task, ask=ask, source=source, max_new_tokens=10, **more)


def _described(ask, source, length_penalty):
  """A class that is looked for in a text."""
  return dict(
    task="mentions",
    ask=ask,
    source=source,
    max_new_tokens=80,
    model=dict(length_penalty=length_penalty),
  )


def _ranked(ask, source, candidate="{answer}"):
  return dict(task="classes", ask=ask, source=source, candidate=candidate)


def _karpathy(folder, images):
  return dict(
    name="karpathy",
    annotations=local(f"{folder}/dataset_{folder}.json"),
    images=local(images),
    split="test",
  )


def _nocaps(**more):
  return dict(
    name="coco_captions",
    annotations=local("nocaps/nocaps_val_4500_captions.json"),
    images=local("nocaps/val"),
    **more,
  )


def _image():
  gqa = dict(
    name="gqa",
    questions=local("gqa/testdev_balanced_questions.json"),
    images=local("gqa/images"),
  )
  okvqa = dict(
    name="vqa",
    questions=local("okvqa/OpenEnded_mscoco_val2014_questions.json"),
    annotations=local("okvqa/mscoco_val2014_annotations.json"),
    images=local("coco/val2014"),
  )
  vizwiz = dict(
    name="vizwiz",
    annotations=local("vizwiz/val.json"),
    images=local("vizwiz/val"),
  )
  pictures = "flickr30k/flickr30k-images"
  snli_ve = published("snli_ve", "snli_ve/snli_ve_test.jsonl", image=pictures)
  ask = "based on the given image respond to {question}"
  return dict(
    coco=_captions(_karpathy("coco", "coco")),
    flickr30k=_captions(_karpathy("flickr30k", pictures)),
    nocaps=_captions(_nocaps()),
    nocaps_out_domain=_captions(_nocaps(domain="out-domain")),
    gqa=_asked(ask, gqa),
    # A slip of LAVIS' file, which the published figure has.
    okvqa=_asked(ask.replace("given", "given the"), okvqa, "vqav2"),
    vizwiz=_asked(ask, vizwiz, "vqav2", parse="or_unanswerable"),
    snli_ve=_ranked("{question}", snli_ve),
  )


def _audio():
  clips = dict(audio="audiocaps/audio")
  clotho = {
    f"clotho_{version}": _captions(
      published(
        "clotho",
        f"clotho_{version}/clotho_captions_evaluation.csv",
        audio=f"clotho_{version}/evaluation",
      )
    )
    for version in ("v1", "v2")
  }
  clotho_aqa = published(
    "clotho_aqa",
    "clotho_aqa/clotho_aqa_test.csv",
    audio="clotho_aqa/audio_files",
  )
  audiocaps = published("audiocaps", "audiocaps/test.csv", **clips)
  questions = published("audiocaps_qa", "audiocaps_qa/val.csv", **clips)
  esc50 = published("esc50", "esc50/meta/esc50.csv", audio="esc50/audio")
  ask = "describe the audio"
  return dict(
    audiocaps=_captions(audiocaps | dict(merged=True)),
    **clotho,
    audiocaps_qa=_asked(_QA, questions),
    clotho_aqa=_asked(_QA, clotho_aqa, "vqav2"),
    esc50=_ranked(ask, esc50, "an audio of {answer}"),
    esc50_open=_described(ask, esc50, 1.0),
  )


def _vatex(**media):
  source = published("vatex", "vatex/vatex_validation_v1.0.json", **media)
  return source | dict(merged=True)


def _video():
  videos = dict(video="msrvtt/videos")
  msrvtt = published("msrvtt", "msrvtt/test_videodatainfo.json", **videos)
  msrvtt_qa = published("msrvtt_qa", "msrvtt_qa/test_qa.json", **videos)
  videos = dict(video="msvd/videos")
  msvd = published("msvd", "msvd/test.txt", **videos)
  msvd_qa = published("msvd_qa", "msvd_qa/test_qa.json", **videos)
  ask = "based on the given video respond to {question}"
  asked = dict(
    msrvtt=_captions(msrvtt | dict(merged=True, where=dict(split="test"))),
    msvd=_captions(msvd | dict(merged=True)),
    vatex=_captions(_vatex(video="vatex/videos")),
    msrvtt_qa=_asked(ask, msrvtt_qa),
    msvd_qa=_asked(_QA, msvd_qa),
  )
  media = dict(video=dict(frames=FRAMES))
  return {name: task | dict(media=media) for name, task in asked.items()}


def _points():
  modelnet = published(
    "modelnet40", "modelnet40/modelnet40_test.txt", points="modelnet40"
  )
  objaverse = published("cap3d", "cap3d/val.csv", points="cap3d/points")
  questions = published(
    "cap3d_qa", "cap3d_qa/CAP3DQA_final_val.csv", points="cap3d_qa/points"
  )
  ask = "describe the 3d model"
  return dict(
    modelnet40=_ranked(ask, modelnet, " a 3d model of a {answer}"),
    modelnet40_open=_described(ask, modelnet, 0.0),
    objaverse=_captions(objaverse | dict(merged=True)),
    objaverse_qa=_described(
      "based on the given input respond to {question}", questions, 0.0
    ),
  )


def discrn(file, format, length_penalty=-1.0, **folders):
  """One of DisCRn's two files and the media of both kinds.

  The connectors read "a short description", as the documents say.
  """
  form = dataclasses.replace(FORMATS[format], prefix=REQUEST)
  return dict(
    task="discrn",
    ask="question: {question} answer:",
    source=dict(
      name="discrn",
      annotations=local(f"discrn/{file}.json"),
      folders={kind: local(f"discrn/{name}") for kind, name in folders.items()},
      files={kind: FILES[kind] for kind in folders},
    ),
    model=dict(length_penalty=length_penalty),
    prompt=dict(format=dataclasses.asdict(form)),
  )


def _several(format):
  music = published(
    "music_avqa",
    "music_avqa/avqa-test.json",
    audio="music_avqa/audio",
    video="music_avqa/videos",
  )
  both = _vatex(audio="vatex/audio", video="vatex/videos")
  return dict(
    music_avqa=_asked(_QA, music),
    vatex_with_sound=_captions(both),
    discrn_objaverse=discrn(
      "objaverse", format, 1.0, image="images", points="points"
    ),
    discrn_audiocaps=discrn("audiocaps", format, video="videos", audio="audio"),
  )


def evaluate(*kinds, format="x_instructblip_asked"):
  """`config.evaluate` of all that is asked about these kinds of media.

  Args:
    *kinds: of media.
    format: of prompts, of text/prompts/cued.py.
  """
  by_kind = dict(image=_image, audio=_audio, video=_video, points=_points)
  tasks = {}
  for kind in kinds:
    tasks |= by_kind[kind]()
  if len(kinds) > 1:
    tasks |= _several(format)
  tasks = {name: task | dict(plain=True) for name, task in tasks.items()}
  model = dict(
    batch_size=8,
    num_beams=5,
    length_penalty=-1.0,
    repetition_penalty=1.5,
    min_new_tokens=1,
  )
  prompt = dict(format=format)
  # 7B with all four encoders is more than one chip of a v5e holds.
  mesh = dict(fsdp=-1)
  return dict(name="chat", tasks=tasks, model=model, prompt=prompt, mesh=mesh)
