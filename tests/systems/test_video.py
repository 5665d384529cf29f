"""Clips through a whole Flamingo: what is told apart is the order of frames.

A clip gets brighter or darker, second by second. Both kinds show the same
frames, so only the time embeddings know.
"""

import io

import jax
import numpy as np
import pytest

from mmjax.cli.evaluate import load_model
from mmjax.cli.train import train
from mmjax.data.build import documents, plain
from mmjax.tree import flatten
from tests.systems.documents import LM

av = pytest.importorskip("av")
SIDE, SLOTS, CLIPS = 16, 4, 24
ANSWERS = ("yes", "no")


def encode_clip(levels: np.ndarray) -> bytes:
  """A second of two frames for every level of grey."""
  data = io.BytesIO()
  with av.open(data, "w", format="mp4") as file:
    stream = file.add_stream("mpeg4", rate=2)
    stream.height = stream.width = 32
    stream.pix_fmt = "yuv420p"
    for level in np.repeat(levels, 2):
      pixels = np.full((32, 32, 3), level, np.uint8)
      frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
      file.mux(stream.encode(frame))
    file.mux(stream.encode())
  return data.getvalue()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """Of a small Flamingo; some clips have a frame less than there are slots."""
  folder, rows = tmp_path_factory.mktemp("clips"), ["file,caption"]
  random = np.random.RandomState(0)
  for i in range(CLIPS):
    count = SLOTS - i % 3 // 2
    levels = np.linspace(30, 200, count) + random.randint(0, 50)
    (folder / f"{i}.mp4").write_bytes(
      encode_clip(levels if i % 2 else levels[::-1])
    )
    rows.append(f"{i}.mp4,{ANSWERS[i % 2]}")
  table = folder / "table.csv"
  table.write_text("\n".join(rows))
  clips = dict(
    source=dict(name="folder", folder=str(folder), table=str(table)),
    format=dict(name="video_text"),
    prompt=dict(name="flamingo", length=6, media=1, image_as_text=False),
    transforms=[dict(name="square", size=SIDE)],
    frames=SLOTS,
    fps=1.0,
    batch=CLIPS,
  )
  resampler = dict(name="perceiver", width=16, depth=1, num_heads=2)
  resampler |= dict(head_dim=8, num_latents=2, max_frames=SLOTS)
  vit = dict(name="vit", width=16, num_layers=1, num_heads=2)
  return dict(
    system="flamingo",
    seed=0,
    model=dict(
      encoder=vit | dict(patch=8, image_size=SIDE),
      resampler=resampler,
      lm=LM | dict(num_layers=1),
      xattn=dict(every=1, hidden=16),
    ),
    tokenizer=dict(name="drawn"),
    data=dict(datasets=dict(clips=clips), max_bad_fraction=0.0),
    train=dict(
      trainable=[(".*", True)],
      optimizer=dict(
        name="adamw",
        clip_norm=1.0,
        schedule=dict(name="warmup_constant", peak=1e-2, warmup=5),
        lr_scale=[("resampler/frames", 10.0), (".*", 1.0)],
      ),
      plan=dict(steps=120, log_every=30),
    ),
    mesh=dict(data=1),
  )


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  train(config, folder)
  return folder


def answers(config, workdir, **fields):
  """Of the model after every clip, and its first batch of them."""
  clips = config["data"]["datasets"]["clips"] | fields
  changed = config | {"data": {"datasets": {"clips": clips}}}
  options = dict(max_new_tokens=1, batch_size=CLIPS)
  model = load_model(changed, workdir, options)
  named = plain({k: clips[k] for k in ("source", "format")})
  found = documents(**named)
  asked = [found[i].query() for i in range(len(found))]
  ((batch, _),) = model._batches(asked)
  return model, batch, model.generate(asked)


@pytest.mark.heavy
def test_the_order_of_frames_is_learned(config, workdir):
  model, batch, said = answers(config, workdir)
  expected = [ANSWERS[i % 2] for i in range(CLIPS)]
  assert said == expected
  image = batch["media"]["image"]
  frames = image["mask"].sum(axis=-1)[:, 0]
  assert sorted(set(frames)) == [SLOTS - 1, SLOTS]

  run = jax.jit(
    lambda batch: model.module.apply({"params": model.params}, batch).logits
  )
  before = run(batch)
  values = np.where(image["mask"][..., None, None, None], image["values"], 99)
  other = batch | {"media": {"image": image | {"values": values}}}
  assert (values != image["values"]).any()
  np.testing.assert_array_equal(run(other), before)
  values = image["values"][:, :, ::-1]
  shown = image | {"values": values, "mask": image["mask"][:, :, ::-1]}
  turned = run(batch | {"media": {"image": shown}})
  assert np.abs(turned - before).max() > 1.0


@pytest.mark.heavy
def test_more_frames_than_in_training_are_interpolated(config, workdir):
  model, batch, said = answers(config, workdir, frames=2 * SLOTS, fps=2.0)
  assert flatten(model.params)["resampler/frames"].shape[0] == SLOTS
  assert batch["media"]["image"]["mask"].sum(axis=-1).max() == 2 * SLOTS
  right = np.mean([a == ANSWERS[i % 2] for i, a in enumerate(said)])
  assert right >= 0.9
