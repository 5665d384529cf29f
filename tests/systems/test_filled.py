"""Rows that several documents share have the loss of the documents alone."""

import jax
import numpy as np
import pytest

from mmjax.data import build
from mmjax.data.batching import occupancy
from mmjax.systems import llava, text
from mmjax.text.tokenizer import drawn

COUNT = 30
LM = dict(
  name="llama", vocab_size=1866, width=16, num_layers=2, num_heads=2, hidden=24
)
TASKS = dict(caption=dict(shots=[0, 1, 2]), bind=dict(shots=[1]))
QUESTIONS = dict(category=2.0, style=1.0, name=1.0, same_style=1.0)
CASES = {
  "text": (
    text,
    dict(lm=LM),
    dict(name="drawn", tasks=TASKS, size=COUNT),
    dict(name="flamingo", length=64, media=6, image_as_text=False),
    dict(length=128, media=24),
  ),
  "llava": (
    llava,
    dict(
      encoder=dict(name="features", size=5557, tokens=4, width=8),
      connector=dict(name="projection", width=16, depth=2),
      lm=LM,
    ),
    dict(name="drawn_chat", questions=QUESTIONS, size=COUNT),
    dict(
      name="chat",
      template="vicuna_v1",
      system="",
      length=96,
      media=2,
      media_tokens=4,
      position="random",
      overflow="error",
    ),
    dict(length=192, media=8),
  ),
}


def epoch(source, prompt, cache, rows, fill=None):
  """All batches of COUNT documents, of which each is read once."""
  dataset = dict(
    source=source,
    prompt=prompt,
    keys=True,
    values=False,
    repeat=False,
    batch=rows,
  )
  if fill is not None:
    dataset["fill"] = dict(cache=str(cache), **fill)
  with build.batches(dict(datasets=dict(d=dataset)), drawn()) as batches:
    found = [batch["d"] for batch in batches]
    assert batches.seen == {"d": COUNT} and batches.bad == {"d": 0}
  return found


@pytest.mark.parametrize("name", CASES)
def test_filled_rows_have_the_loss_of_single_documents(name, tmp_path):
  system, model, source, prompt, fill = CASES[name]
  plain = epoch(source, prompt, tmp_path, 6)
  filled = epoch(source, prompt, tmp_path, 2, fill)
  assert np.mean([*map(occupancy, filled)]) > 0.65
  assert max(int(batch["segments"].max()) for batch in filled) > 2
  module = system.build(model)
  params = jax.jit(module.init)(jax.random.key(0), plain[0])["params"]
  loss = jax.jit(lambda batch: system.loss(module, params, batch))

  def total(batches):
    sums = [loss(batch) for batch in batches]
    return jax.tree.map(lambda *parts: float(sum(parts)), *sums)

  expected, found = total(plain), total(filled)
  for key, (value, count) in expected.items():
    assert found[key][1] == count > 0
    np.testing.assert_allclose(found[key][0], value, rtol=1e-5, err_msg=key)
