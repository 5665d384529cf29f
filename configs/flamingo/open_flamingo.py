"""OpenFlamingo's models (arXiv 2308.01390, Table 1) and their recipe.

LAION-2B captions and MMC4, both as tars below $MMJAX_DATA, with 64 and 32
samples on each of 64 GPUs. Half of the documents with one image are left out;
the original draws them anew each time, here they are always the same. The 4B
models kept the rows of their two new tokens frozen and random. Vision weights
are CLIP ViT-L/14 of OpenAI, read without the last norm, as the released models
were trained.

All language models have the tokenizer of GPT-NeoX-20B, whose 50,277 tokens are
fewer than the rows of their published tables. As in the original the tables
lose the others, and new rows come behind: end of chunk, image and padding. The
original trains the first two; here that of padding, which is never read, is
trained as a wrong answer too.

What `mmjax convert --to jax` makes of the published weights is looked for in
$MMJAX_DATA/clip_vit_l14 and /mpt_1b, /mpt_1b_dolly, /incite_3b,
/incite_3b_instruct or /mpt_7b. A released OpenFlamingo is put on top, as in
open_flamingo_3b.py.
"""

from configs.flamingo import common, in_context
from mmjax.connectors import gated_attention, perceiver
from mmjax.lms import gpt_neox, mpt

MPT_1B = dict(name="mpt", **mpt.SIZES["1b"])
MPT_7B = dict(name="mpt", **mpt.SIZES["7b"])
INCITE = dict(name="gpt_neox", **gpt_neox.SIZES["incite_3b"])
# Language model, folder of its weights, layers a block, whether the new rows
# train.
SIZES = {
  "3B": (MPT_1B, "mpt_1b", 1, True),
  "3B-I": (MPT_1B, "mpt_1b_dolly", 1, True),
  "4B": (INCITE, "incite_3b", 2, False),
  "4B-I": (INCITE, "incite_3b_instruct", 2, False),
  "9B": (MPT_7B, "mpt_7b", 4, True),
}
VOCABULARY = 50_277
NEW_TOKENS = ("<|endofchunk|>", "<image>", "<PAD>")


def dataset(path, *, prompt, **fields):
  return dict(
    source=dict(name="tar", paths=[common.local(path)]),
    prompt=dict(name="open_flamingo", **prompt),
    transforms=[dict(name="flip"), dict(name="clip_val", size=224)],
    **fields,
  )


def _datasets():
  return dict(
    laion=dataset(
      "laion/*.tar",
      format=dict(name="pairs"),
      prompt=dict(length=32, media=1),
      batch=4096,
      weight=0.2,
    ),
    mmc4=dataset(
      "mmc4/*.tar",
      format=dict(
        name="mmc4", min_similarity=0.24, max_images=6, keep_single=0.5
      ),
      prompt=dict(length=256, media=6),
      batch=2048,
    ),
  )


def _evaluate():
  # The mean of three seeds, as in the paper.
  return dict(
    name="in_context",
    protocol=dict(
      style="open_flamingo",
      shots=[0, 4, 8, 16, 32],
      seeds=[0, 1, 2],
      selection="random",
    ),
    controls=["none"],
    tasks=in_context.tasks(),
    model=dict(num_beams=3, batch_size=8),
    prompt=dict(length=2000, media=33),
    # 9B is more than one chip of a v5e holds.
    mesh=dict(fsdp=-1),
  )


def get_config(size="3B"):
  lm, weights, every, train_rows = SIZES[size]
  lm = lm | dict(
    vocab_size=VOCABULARY, extra_tokens=len(NEW_TOKENS), remat="none"
  )
  config = common.paper(
    model=dict(
      encoder=dict(name="clip_vit", variant="L/14", remat="none"),
      resampler=dict(name="perceiver", width=1024, **perceiver.OPEN_FLAMINGO),
      lm=lm,
      xattn=dict(every=every, first=every - 1, **gated_attention.OPEN_FLAMINGO),
    ),
    topology="v5p:4x4x4",
    tokenizer=dict(
      name="file",
      path=common.local("tokenizer.json"),
      added=list(NEW_TOKENS),
      eos="<|endoftext|>",
      pad="<PAD>",
    ),
    init=dict(
      encoder=common.clip("clip_vit_l14"),
      lm=common.converted(weights, cut_vocabulary=True),
    ),
    datasets=_datasets(),
  )
  config.evaluate = _evaluate()
  if not train_rows:
    config.train.trainable = [
      ("(encoder|lm)/.*", False),
      (".*", True),
    ]
  config.train.optimizer.weight_decay = [("blocks/.*", 0.1), (".*", 0.0)]
  config.train.optimizer.schedule.warmup = 1875
  config.train.plan.steps = 29_300
  return config


def released(size, path):
  """A size with the weights of `mmjax convert CHECKPOINT path --to jax`."""
  config = get_config(size)
  config.init.all = dict(name="open_flamingo", path=path)
  return config
