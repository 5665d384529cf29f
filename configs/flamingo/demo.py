"""A small Flamingo on drawn things, trained in minutes on a laptop's CPU.

Real parts: a frozen, pretrained EfficientNet-Lite0 sees the pictures (each is
encoded once, so training looks features up by key). The language model is
small and trained from scratch, so it is not frozen here; smollm2.py is the
recipe with a pretrained one.
"""

from configs.common import config as make
from configs.common import mesh

GRID = 3  # Pictures at 96 pixels give 3 x 3 features,
WIDTH = 192  # of which so many principal components are kept.
VOCAB = 1866  # Words of the drawn set, and <EOC> and <image>.


def dataset(tasks, *, batch, length, media, **more):
  return dict(
    source=dict(name="drawn", tasks=tasks),
    prompt=dict(
      name="flamingo",
      length=length,
      media=media,
      image_as_text=False,
      overflow="error",
    ),
    keys=True,
    values=False,
    batch=batch,
    **more,
  )


def _model():
  return dict(
    encoder=dict(name="features", size=5557, tokens=GRID**2, width=WIDTH),
    resampler=dict(
      name="perceiver",
      width=WIDTH,
      depth=2,
      num_heads=4,
      head_dim=32,
      num_latents=4,
      hidden=384,
      activation="gelu",
    ),
    lm=dict(
      name="llama",
      vocab_size=VOCAB,
      width=128,
      num_layers=4,
      num_heads=4,
      hidden=256,
      tie_embeddings=True,
      embed_std=0.25,
    ),
    xattn=dict(
      every=1,
      first=0,
      hidden=256,
      norm_media=False,
      activation="gelu",
      # Nothing pretrained is there to protect, and with closed gates only
      # the last blocks open: names can then be learned, binding hardly.
      gate_init=0.3,
    ),
    dtype="float32",
  )


def _data():
  return dict(
    seed=0,
    threads=1,
    datasets=dict(
      episodes=dataset(
        # Half of them ask for the same picture, the easier question.
        dict(bind=dict(shots=[1], same_style=0.5)),
        batch=48,
        length=24,
        media=3,
      ),
      questions=dataset(
        dict(
          category=dict(shots=[0, 1, 2, 4], learn_support=True),
          subcategory=dict(shots=[0, 1, 2, 4], learn_support=True),
          caption=dict(shots=[3], learn_support=True),
        ),
        length=48,
        media=5,
        # Two documents a row; 3 % of them find no room and are dropped.
        batch=8,
        pack=2,
        pack_length=72,
        pack_media=9,
        pack_overflow="drop",
      ),
    ),
  )


def _train():
  return dict(
    trainable=[("encoder/.*", False), (".*", True)],
    frozen_dtype="float16",
    optimizer=dict(
      name="adamw",
      b2=0.98,
      clip_norm=1.0,
      weight_decay=[(r"resampler/.*", 0.0), (".*", 0.05)],
      schedule=dict(name="warmup_cosine", peak=1e-3, warmup=100, final=0.05),
    ),
    plan=dict(steps=700, log_every=25, checkpoint_every=350),
  )


def _generate():
  """Pictures that are in no table are seen by the encoder itself."""
  return dict(
    model=dict(
      encoder=dict(
        name="reduced",
        encoder=dict(name="efficientnet_lite"),
        width=WIDTH,
      )
    ),
    init=dict(encoder=dict(name="reduced_efficientnet_lite0", size=32 * GRID)),
    data=dict(
      keys=False,
      values=True,
      transforms=[dict(name="square", size=32 * GRID)],
      prompt=dict(length=96, media=9),
    ),
  )


def get_config():
  return make(
    system="flamingo",
    seed=0,
    model=_model(),
    init=dict(encoder=dict(name="drawn_features", size=32 * GRID)),
    tokenizer=dict(name="drawn"),
    data=_data(),
    train=_train(),
    evaluate=dict(
      name="drawn",
      shots=[0, 2, 4, 8],
      count=256,
      controls=["none", "no_query", "wrong_query", "blank_support"],
      model=dict(batch_size=64, max_new_tokens=6),
      prompt=dict(length=96, media=9),
    ),
    generate=_generate(),
    # The language model alone, on the text of the same documents.
    text_only=dict(
      steps=300, trainable=[(".*", True)], weight_decay=[(".*", 0.05)]
    ),
    mesh=mesh(data=-1),
  )
