"""Flamingo-3B as the paper ablates it (arXiv 2204.14198 v2, Table 3).

Neither its data nor its frozen parts (a contrastive NFNet-F6, Chinchilla) were
released: give your own in $MMJAX_DATA, the parts as `mmjax convert --to jax`
writes them. M3W is read in the layout of OBELICS.

  m3w/*.parquet  align/*.tar  ltip/*.tar  vtp/*.tar  tokenizer.json
  encoder/*.safetensors  lm/*.safetensors

A part that `config.init` does not name is drawn at random; `del
config.init.lm` is how the paper's "random" rows differ from the others.

Blocks count 12 D^2 in the paper, so their keys and values come from D
channels; how 1536 wide latents become that is not said. Here one matrix does,
which all blocks share (`xattn.media_width`).

The paper trains pairs at 32 or 64 tokens and does not say which at which.
Changes of single rows are in ablations.py.
"""

from configs.flamingo import common
from mmjax.connectors.perceiver import FLAMINGO
from mmjax.lms.chinchilla import SIZES

SIZE = 320


def dataset(name, *, batch, weight, length, media=1, kind="pairs", **more):
  transforms = [dict(name="flip"), dict(name="pad_to_square", size=SIZE)]
  prompt = dict(
    name="flamingo", length=length, media=media, overflow="truncate"
  )
  files = "parquet" if kind == "obelics" else "tar"
  return dict(
    source=dict(name=files, paths=[common.local(f"{name}/*.{files}")]),
    format=dict(name=kind),
    prompt=prompt | more.pop("prompt", dict(p_space=0.5)),
    transforms=transforms,
    batch=batch,
    weight=weight,
    **more,
  )


def get_config():
  return common.paper(
    model=dict(
      encoder=dict(name="nfnet", variant="F6", remat="none"),
      resampler=dict(name="perceiver", **FLAMINGO),
      lm=dict(name="chinchilla", **SIZES["1.4b"], extra_tokens=1, remat="none"),
      xattn=dict(
        every=1,
        first=0,
        place="before",
        graft_layers=0,
        media_width=SIZES["1.4b"]["width"],
        hidden=None,
        gate="scalar",
        previous=False,
      ),
    ),
    init=dict(encoder=common.converted("encoder"), lm=common.converted("lm")),
    topology="v5p:4x4x4",
    tokenizer=dict(
      name="file", path=common.local("tokenizer.json"), added=["<EOC>"]
    ),
    datasets=dict(
      m3w=dataset(
        "m3w",
        batch=256,
        weight=1.0,
        length=256,
        media=5,
        kind="obelics",
        filter=dict(name="pictures"),
        prompt=dict(p_next=0.5, overflow="window"),
      ),
      align=dataset("align", batch=512, weight=0.2, length=32),
      ltip=dataset("ltip", batch=512, weight=0.2, length=64),
      vtp=dataset(
        "vtp",
        batch=64,
        weight=0.03,
        length=64,
        kind="video_text",
        frames=8,
      ),
    ),
  )
