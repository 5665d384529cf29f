"""Media of four kinds on meshes of eight devices: the numbers of one."""

import jax
import numpy as np
import pytest

from mmjax import tree
from mmjax.data.batching import stack
from mmjax.data.document import Media
from mmjax.evaluation.model import Model
from mmjax.sharding import shardings
from mmjax.systems import x_instructblip
from mmjax.training.state import abstract_params
from tests import eight_devices
from tests.data import kinds as k
from tests.data.test_audio import encode
from tests.systems import on_meshes
from tests.systems.test_x_instructblip import DOCUMENTS, make

# (data, fsdp, sequence, tensor)
MESHES = [(8, 1, 1, 1), (2, 2, 1, 2), (1, 2, 2, 2)]


def documents():
  """Media of every kind, in some of the rows."""
  # A tone has nothing at most pitches but rounding, whose logarithm is heard.
  hiss = np.random.default_rng(0).uniform(-0.5, 0.5, 3200)
  sound = Media("audio", encode(np.float32(hiss)), "hiss")
  first = k.document(sound, k.image(), question="a dog", answer="cat sits")
  return [first, *DOCUMENTS[1:]]


def check_numbers():
  """Of the gradients of connectors of all kinds."""
  encoder, module, params = make()
  batch = stack([encoder(document) for document in documents() * 2])
  gradients = on_meshes.check_numbers(
    *(x_instructblip, module, params),
    lambda name: name.startswith("connectors"),
    *(MESHES, batch),
  )
  reached = {
    path.split("/")[0]
    for path, g in tree.flatten(gradients).items()
    if np.abs(g).max() > 0
  }
  assert reached == {f"connectors_{kind}" for kind in module.kinds}


def check_answers():
  """Written and ranked, with parameters that are cut as published ones are."""
  encoder, module, params = make()
  asked = [document.query() for document in documents()]
  batch = stack([encoder.query(document) for document in asked])
  mesh = on_meshes.mesh_of((1, 8, 1, 1))
  cut = jax.device_put(params, shardings(abstract_params(module, batch), mesh))
  found = []
  for own, where in ((params, None), (cut, mesh)):
    model = Model(
      *(module, own, encoder, encoder.prompt.tokenizer),
      **dict(max_new_tokens=4, num_beams=2, batch_size=4, mesh=where),
    )
    total = model.score(asked, ["cat sits", "dog"]).total
    found.append((model.generate(asked), total))
  (alone, scores), (spread, others) = found
  assert alone == spread and len(set(alone)) > 1
  np.testing.assert_allclose(others, scores, rtol=1e-5)


@pytest.mark.heavy
def test_every_mesh_gives_the_numbers_of_one_device():
  eight_devices.run(
    "from tests.systems import test_x_instructblip_meshes as t\n"
    "t.check_numbers()"
  )


@pytest.mark.heavy
def test_answers_of_eight_devices_are_those_of_one():
  eight_devices.run(
    "from tests.systems import test_x_instructblip_meshes as t\n"
    "t.check_answers()"
  )
