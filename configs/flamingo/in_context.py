"""The papers' tasks below $MMJAX_DATA, in their official files.

coco/dataset_coco.json  coco/{train,val}2014/*.jpg
flickr30k/dataset_flickr30k.json  flickr30k/flickr30k-images/*.jpg
vqav2/v2_OpenEnded_mscoco_{train,val}2014_questions.json
vqav2/v2_mscoco_{train,val}2014_annotations.json
okvqa/OpenEnded_mscoco_{train,val}2014_questions.json
okvqa/mscoco_{train,val}2014_annotations.json
textvqa/TextVQA_0.5.1_{train,val}.json  textvqa/train_images/*.jpg
vizwiz/{train,val}.json  vizwiz/{train,val}/*.jpg
hateful_memes/{train,dev_seen}.jsonl  hateful_memes/img/*.png
"""

from configs.flamingo.common import local


def _captions(folder, images):
  def split(name):
    return dict(
      name="karpathy",
      annotations=local(f"{folder}/dataset_{folder}.json"),
      images=local(images),
      split=name,
    )

  return dict(queries=split("test"), support=split("train"))


def _vqa(folder, prefix):
  def split(name):
    questions = f"OpenEnded_mscoco_{name}2014_questions.json"
    return dict(
      name="vqa",
      questions=local(f"{folder}/{prefix}{questions}"),
      annotations=local(f"{folder}/{prefix}mscoco_{name}2014_annotations.json"),
      images=local(f"coco/{name}2014"),
      file=f"COCO_{name}2014_{{image_id:012d}}.jpg",
    )

  return dict(queries=split("val"), support=split("train"))


def _files(name, annotations, images, splits=("val", "train")):
  parts = [
    dict(
      name=name,
      annotations=local(f"{name}/{annotations.format(split)}"),
      images=local(f"{name}/{images.format(split)}"),
    )
    for split in splits
  ]
  return dict(zip(("queries", "support"), parts))


def tasks():
  """Seven of the papers' tasks, whose files all have a reader."""
  return dict(
    coco=_captions("coco", "coco"),
    flickr30k=_captions("flickr30k", "flickr30k/flickr30k-images"),
    vqav2=_vqa("vqav2", "v2_"),
    okvqa=_vqa("okvqa", ""),
    textvqa=_files("textvqa", "TextVQA_0.5.1_{}.json", "train_images"),
    vizwiz=_files("vizwiz", "{}.json", "{}"),
    hateful_memes=_files(
      "hateful_memes", "{}.jsonl", "", ("dev_seen", "train")
    ),
  )
