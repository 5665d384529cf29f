"""A small Flamingo on drawn things, trained in minutes on a laptop's CPU.

Real parts: a frozen, pretrained EfficientNet-Lite0 sees the pictures (each is
encoded once, so training looks features up by key). The language model is
small and trained from scratch, so it is not frozen here; smollm2.py is the
recipe with a pretrained one.
"""

from configs.common import config as make

GRID = 3  # Pictures at 96 pixels give 3 x 3 features.
VOCAB = 1863  # Words of the drawn set, and <EOC> and <image>.


def get_config():
  shots = [0, 1, 2, 4]
  return make(
    system="flamingo",
    seed=0,
    model=dict(
      encoder=dict(name="features", size=5557, tokens=GRID**2, width=1280),
      resampler=dict(
        name="perceiver",
        width=128,
        depth=2,
        num_heads=4,
        head_dim=32,
        num_latents=4,
        hidden=256,
        project_input=True,
      ),
      lm=dict(
        name="llama",
        vocab_size=VOCAB,
        width=128,
        num_layers=4,
        num_heads=4,
        hidden=256,
        tie_embeddings=True,
      ),
      xattn=dict(every=1, first=0, hidden=256),
      dtype="float32",
    ),
    init=dict(encoder=dict(name="drawn_features", size=32 * GRID)),
    tokenizer=dict(path="drawn"),
    data=dict(
      seed=0,
      threads=1,
      datasets=dict(
        drawn=dict(
          source=dict(
            name="drawn",
            tasks=dict(
              bind=dict(weight=2.0, shots=[1]),
              category=dict(weight=1.0, shots=shots, learn_support=True),
              subcategory=dict(weight=1.0, shots=shots, learn_support=True),
              caption=dict(weight=1.0, shots=[2], learn_support=True),
            ),
          ),
          prompt=dict(name="flamingo", length=64, media=5, image_as_text=False),
          keys=True,
          values=False,
          batch=64,
        ),
      ),
    ),
    train=dict(
      trainable=[("encoder/.*", False), (".*", True)],
      frozen_dtype="float16",
      optimizer=dict(
        name="adamw",
        b2=0.98,
        clip_norm=1.0,
        weight_decay=[(r"resampler/.*", 0.0), (".*", 0.05)],
        schedule=dict(name="warmup_cosine", peak=1e-3, warmup=100, final=0.05),
      ),
      plan=dict(steps=1500, log_every=25, checkpoint_every=500),
    ),
    mesh=dict(data=-1),
  )
