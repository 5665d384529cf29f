"""LLaVA on ScienceQA (arXiv 2304.08485, 4.2): reasons first, then the answer.

12 epochs over the 12,726 problems of the training split, from the projector of
the first stage in runs/pretrain_v1_13b. Evaluated as it was trained, and by the
subjects, media and grades of the paper's table.
"""

from configs.flamingo.common import local
from configs.llava import benchmarks, common, finetune

RECORDS, EPOCHS, BATCH = 12_726, 12, 128
FORMAT = "QCM-LEA"


def get_config(size="v1_13b"):
  config = finetune.get_config(size)
  chats = config.data.datasets.chats
  source = dict(
    name="scienceqa",
    problems=local("scienceqa/problems.json"),
    splits=local("scienceqa/pid_splits.json"),
    images=local("scienceqa/images"),
    split="train",
    format=FORMAT,
  )
  chats.source = source
  del chats.format
  chats.batch = BATCH
  steps = EPOCHS * -(-RECORDS // BATCH)
  config.train.plan.steps = steps
  config.train.optimizer.schedule.warmup = round(common.WARMUP * steps)
  asked = benchmarks.tasks()["scienceqa"]
  asked["source"] |= dict(format=FORMAT)
  config.evaluate = dict(
    name="chat",
    published="LLaVA-13B",
    # Nothing asks for the letter alone: reasons come first.
    tasks=dict(scienceqa=asked | dict(ask="{question}")),
    model=dict(batch_size=16),
    prompt=dict(length=2048),
  )
  return config
