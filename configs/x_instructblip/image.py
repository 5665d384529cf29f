"""X-InstructBLIP's images: `:7b`, `:13b`, `:7b_improved`, `:7b_projection`.

blip/*.json with the pictures of CC12M, CapFilt-14M, COCO, Visual Genome and SBU
vg/question_answers.json  vg/images/*.jpg  ocr_vqa/dataset.json
vqav2/*  okvqa/*  aokvqa/aokvqa_v1p0_train.json  coco/{train2014,train2017}
llava_instruct_150k.json

BLIP's lists name the pictures relative to the folders given here. Sizes are
those of LAVIS.
"""

from configs.flamingo.common import local
from configs.x_instructblip import benchmarks, common
from configs.x_instructblip.common import by_size, published
from mmjax.config import lookup

# Updates of 8 samples on each of 8 GPUs. The 13B model went on for 40,000 with
# a larger share of COCO, set by hand, and 4 samples a GPU.
STEPS = {
  "7b": 65_000,
  "7b_improved": 65_000,
  "13b": 750_000,
  "7b_projection": 65_000,
}
BATCH = 8 * 8


def captions(count, file, folder):
  return by_size(
    count, published("blip", f"blip/{file}.json", image=folder), "caption"
  )


def questions(count, folder, prefix=""):
  """VQAv2's and OK-VQA's, which are about COCO's pictures."""
  source = dict(
    name="vqa",
    questions=local(
      f"{folder}/{prefix}OpenEnded_mscoco_train2014_questions.json"
    ),
    annotations=local(f"{folder}/{prefix}mscoco_train2014_annotations.json"),
    images=local("coco/train2014"),
    file="COCO_train2014_{image_id:012d}.jpg",
  )
  return by_size(count, source, "question")


def asked(count, data, annotations, folder):
  return by_size(count, published(data, annotations, image=folder), "question")


def dialogue(count):
  """LLaVA's, up to one of the answers of each, which always is the same."""
  weight, _ = by_size(count, {}, "question")
  return weight, dict(
    source=dict(name="json", paths=[local("llava_instruct_150k.json")]),
    format=dict(name="conversations", folder=local("coco/train2017")),
    filter=dict(name="one_turn"),
  )


def mix():
  return common.mixture(
    cc12m=captions(6_029_862, "cc12m", "cc12m"),
    capfilt=captions(13_873_136, "ccs_synthetic_filtered_large", "capfilt"),
    coco=captions(566_747, "coco_karpathy_train", "coco"),
    vg=captions(821_774, "vg_caption", "vg"),
    sbu=captions(859_739, "sbu", "sbu"),
    vg_qa=asked(1_440_069, "vg_qa", "vg/question_answers.json", "vg/images"),
    vqav2=questions(658_104, "vqav2", "v2_"),
    ocr_vqa=asked(
      1_002_146, "ocr_vqa", "ocr_vqa/dataset.json", "ocr_vqa/images"
    ),
    okvqa=questions(9_009, "okvqa"),
    aokvqa=asked(
      17_056, "aokvqa", "aokvqa/aokvqa_v1p0_train.json", "coco/train2017"
    ),
    llava=dialogue(394_276),
  )


def get_config(variant="7b"):
  steps = lookup(STEPS, variant, "variant")
  init = {}
  if common.VARIANTS[variant].connector == "qformer":
    # All of BLIP-2's in 7B; the matrix to the language model is drawn.
    init = common.blip2("image", whole=variant != "13b")
  return common.run(
    variant,
    {"image": common.KINDS["image"]},
    mix=mix(),
    batch=BATCH,
    steps=steps,
    init=init,
    evaluate=benchmarks.evaluate(
      "image", format=common.VARIANTS[variant].asked
    ),
  )
