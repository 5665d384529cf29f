"""What LLaVA is asked, below $MMJAX_DATA, in the official files.

vqav2/v2_OpenEnded_mscoco_val2014_questions.json  coco/val2014/*.jpg
vqav2/v2_mscoco_val2014_annotations.json
gqa/testdev_balanced_questions.json  gqa/images/*.jpg
textvqa/TextVQA_0.5.1_val.json  textvqa/train_images/*.jpg
vizwiz/val.json  vizwiz/val/*.jpg
pope/coco_pope_{random,popular,adversarial}.json
mme/<category>/*.txt with the pictures beside them
scienceqa/{problems,pid_splits}.json  scienceqa/images/test/*/image.png
llava-bench-coco/qa90_questions.jsonl, caps_boxes_coco2014_val_80.jsonl and
  qa90_gpt4_answer.jsonl
llava-bench-in-the-wild/{questions,context,answers_gpt4}.jsonl and images/
"""

from configs.flamingo.common import local

POPE = ("random", "popular", "adversarial")


def _pairs(name, folder, annotations, images):
  return dict(
    source=dict(
      name=name,
      annotations=local(f"{folder}/{annotations}"),
      images=local(f"{folder}/{images}"),
    )
  )


def _vqav2():
  files = "mscoco_val2014"
  return dict(
    source=dict(
      name="vqa",
      questions=local(f"vqav2/v2_OpenEnded_{files}_questions.json"),
      annotations=local(f"vqav2/v2_{files}_annotations.json"),
      images=local("coco/val2014"),
    )
  )


def _bench(folder, questions, context, reference, images, file):
  return dict(
    source=dict(
      name="llava_bench",
      questions=local(f"{folder}/{questions}"),
      context=local(f"{folder}/{context}"),
      reference=local(f"{folder}/{reference}"),
      images=local(images),
      file=file,
    )
  )


def tasks():
  """All benchmarks that have a reader; `--tasks` chooses among them."""
  wild = "llava-bench-in-the-wild"
  return dict(
    vqav2=_vqav2(),
    gqa=dict(
      source=dict(
        name="gqa",
        questions=local("gqa/testdev_balanced_questions.json"),
        images=local("gqa/images"),
      )
    ),
    textvqa=_pairs(
      *("textvqa", "textvqa", "TextVQA_0.5.1_val.json", "train_images")
    ),
    vizwiz=_pairs("vizwiz", "vizwiz", "val.json", "val"),
    pope=dict(
      source=dict(
        name="pope",
        annotations={s: local(f"pope/coco_pope_{s}.json") for s in POPE},
        images=local("coco/val2014"),
      )
    ),
    mme=dict(source=dict(name="mme", folder=local("mme"))),
    scienceqa=dict(
      source=dict(
        name="scienceqa",
        problems=local("scienceqa/problems.json"),
        splits=local("scienceqa/pid_splits.json"),
        images=local("scienceqa/images"),
      )
    ),
    llava_bench_coco=_bench(
      *("llava-bench-coco", "qa90_questions.jsonl"),
      *("caps_boxes_coco2014_val_80.jsonl", "qa90_gpt4_answer.jsonl"),
      *("coco/val2014", "COCO_val2014_{image_id}"),
    ),
    llava_bench_wild=_bench(
      *(wild, "questions.jsonl", "context.jsonl", "answers_gpt4.jsonl"),
      *(f"{wild}/images", "{image_id}"),
    ),
  )


def evaluate(published):
  """`config.evaluate`: all of them, beside what a published model scores."""
  return dict(
    name="chat",
    published=published,
    tasks=tasks(),
    judge=dict(model="gpt-4-0314", temperature=0.2, repeats=1),
    model=dict(batch_size=16),
    prompt=dict(length=2048),
  )
