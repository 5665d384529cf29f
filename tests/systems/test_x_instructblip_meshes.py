"""Media of four kinds on meshes of eight devices: the numbers of one."""

import numpy as np
import pytest

from mmjax import tree
from mmjax.data.batching import stack
from mmjax.data.document import Media
from mmjax.systems import x_instructblip
from tests import eight_devices
from tests.data import kinds as k
from tests.data.test_audio import encode
from tests.systems import on_meshes
from tests.systems.test_x_instructblip import DOCUMENTS, make

# (data, fsdp, sequence, tensor)
MESHES = [(8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 1, 2), (1, 2, 2, 2)]


def check_numbers():
  """Of connectors of all kinds, with media of every kind in some rows."""
  encoder, module, params = make()
  # A tone has nothing at most pitches but rounding, whose logarithm is heard.
  hiss = np.random.default_rng(0).uniform(-0.5, 0.5, 3200)
  sound = Media("audio", encode(np.float32(hiss)), "hiss")
  first = k.document(sound, k.image(), question="a dog", answer="cat sits")
  documents = [first, *DOCUMENTS[1:]] * 2
  batch = stack([encoder(document) for document in documents])
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


@pytest.mark.heavy
def test_every_mesh_gives_the_numbers_of_one_device():
  eight_devices.run(
    "from tests.systems import test_x_instructblip_meshes as t\n"
    "t.check_numbers()"
  )
