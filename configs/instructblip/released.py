"""A BLIP-2 or InstructBLIP of Hugging Face, trained on with your own questions.

  mmjax convert instructblip-vicuna-7b data/instructblip --to jax
  mmjax train --config configs/instructblip/released.py:data/instructblip \
    --workdir runs/mine
  mmjax generate --workdir runs/mine --image kite.png --prompt "What is it?"
  mmjax convert runs/mine instructblip-mine --to hf --layout hf

Behind the colon stands the folder that `mmjax convert` wrote. data/mine/qa.json
has rows such as

  {"id": "1", "image": "a.png", "question": "What is it?", "answer": "a kite"}

("video" for InstructBlipVideo), with the files below data/mine. The connector
trains - Q-Former, its queries, norm and projection - as in InstructBLIP; tower
and language model stay as they are.
"""

from ml_collections import ConfigDict

from configs.common import config, mesh
from configs.x_instructblip.common import AROUND, BLOCK, CONNECTORS, DECAY
from mmjax.cli.released import config_of

FOLDER = "data/mine"
QUESTION, ANSWER = 128, 64


def get_config(folder):
  # Named, as to ask JAX for its devices here would be before it knows of the
  # other processes of a job.
  made = ConfigDict(config_of(folder, dtype="bfloat16")).to_dict()
  # What trains is not to lose the bits that the files have.
  del made["init"]["all"]["dtype"]
  questions = made["data"]["datasets"]["questions"]
  (reader,) = questions["media"].values()
  prompt = questions["prompt"]
  places = prompt["media_tokens"] * reader.get("frames", 1)
  length = places + QUESTION + ANSWER + AROUND
  prompt |= dict(
    length=-(-length // BLOCK) * BLOCK,
    question_length=QUESTION,
    answer_length=ANSWER,
  )
  questions |= dict(
    source=dict(name="json", paths=f"{FOLDER}/qa.json"),
    format=dict(name="qa", folder=FOLDER),
    batch=16,
  )
  return config(
    **{part: made[part] for part in ("system", "model", "tokenizer", "init")},
    seed=0,
    data=dict(seed=0, datasets=dict(questions=questions)),
    train=dict(
      trainable=[(CONNECTORS, True), (".*", False)],
      frozen_dtype="bfloat16",
      optimizer=dict(
        name="adamw",
        weight_decay=DECAY,
        clip_norm=1.0,
        schedule=dict(name="warmup_cosine", peak=1e-5, warmup=100),
      ),
      plan=dict(steps=2000, log_every=10, checkpoint_every=500),
    ),
    mesh=mesh(fsdp=-1),
  )
