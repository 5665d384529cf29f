"""Meshes over one slice and several, and how arrays lie on them."""

import dataclasses
import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from mmjax import sharding
from mmjax.sharding import (
  axes_of,
  constrain,
  make_mesh,
  rows_over_all,
  shardings,
  spec_of,
)


@dataclasses.dataclass(frozen=True)
class Device:
  """What a mesh asks of one."""

  id: int
  slice_index: int
  platform: str = "gpu"
  device_kind: str = "stand-in"
  process_index: int = 0


def devices(slices, each, platform="gpu"):
  return [Device(i, i // each, platform) for i in range(slices * each)]


def test_data_goes_across_slices():
  # In an order that is not that of the slices.
  found = make_mesh({"data": -1, "fsdp": 2, "tensor": 2}, devices(2, 8)[::-1])
  assert dict(found.shape) == dict(data=4, fsdp=2, sequence=1, tensor=2)
  slices = [[d.slice_index for d in row.flat] for row in found.devices]
  assert [set(row) for row in slices] in (
    [{0}] * 2 + [{1}] * 2,
    [{1}] * 2 + [{0}] * 2,
  )
  assert len({d.id for d in found.devices.flat}) == 16


@pytest.mark.parametrize(
  "sizes, given, said",
  [
    (
      dict(fsdp=-1),
      devices(2, 4, "tpu"),
      "1 parts along `data`, which 2 slices",
    ),
    (dict(data=3, fsdp=4), devices(2, 6, "tpu"), "config.mesh.data to 2"),
    (dict(data=2, fsdp=3), devices(2, 4), "does not use 8 devices"),
    (
      dict(data=-1),
      devices(2, 4, "tpu")[:-1],
      "different numbers.*{0: 4, 1: 3}",
    ),
    (dict(data=-1, fsdp=-1), devices(1, 4), "Only one axis may be -1"),
    (dict(tensors=2), devices(1, 2), "no axis 'tensors'. Did you mean 'tens"),
  ],
)
def test_what_does_not_fit_slices(sizes, given, said):
  with pytest.raises(ValueError, match=said):
    make_mesh(sizes, given)


def test_nodes_of_gpus_are_joined_as_they_come():
  for given in (devices(2, 4), devices(2, 4)[:-2]):
    found = make_mesh({"fsdp": -1}, given)
    assert [d.id for d in found.devices.flat] == list(range(len(given)))


def test_a_torus_without_such_sides(monkeypatch):
  def refuse(*_, **__):
    raise NotImplementedError("no assignment for 5")

  monkeypatch.setattr(sharding.mesh_utils, "create_hybrid_device_mesh", refuse)
  with pytest.raises(
    ValueError, match="'fsdp': 4.*stand-in: no assignment for 5 Give"
  ):
    make_mesh(dict(data=2, fsdp=4), devices(2, 4))


def test_a_dim_that_stays_whole_is_named_once(caplog, monkeypatch):
  monkeypatch.setattr(sharding, "_said", set())
  mesh = make_mesh(dict(fsdp=2, tensor=4), devices(1, 8))

  def boxed(*names, shape):
    return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, "f4"), names)

  layer = {
    "query": boxed("embed", "heads", "head_dim", shape=(16, 8, 2)),
    "key": boxed("embed", "kv_heads", "head_dim", shape=(16, 2, 2)),
    "value": boxed("embed", "kv_heads", "head_dim", shape=(16, 2, 2)),
  }
  with caplog.at_level(logging.WARNING):
    found = shardings({"attention": layer}, mesh)["attention"]
  assert found["query"].spec == P("fsdp", "tensor", None)
  assert found["key"].spec == found["value"].spec == P("fsdp", None, None)
  assert len(caplog.messages) == 1
  assert caplog.messages[0].startswith(
    "attention/key: its 2 kv_heads are not cut, since tensor=4 of config.mesh"
  )


def test_how_activations_lie(caplog, monkeypatch):
  monkeypatch.setattr(sharding, "_said", set())
  mesh = make_mesh(dict(data=2, fsdp=3, sequence=2, tensor=4), devices(1, 48))
  names, shape = ("batch", "length", "heads", None), (12, 8, 4, 5)
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    expected = P(("data", "fsdp"), "sequence", "tensor", None)
    assert spec_of(names, shape) == expected
    # As many axes as divide, and none where none does.
    assert axes_of("batch", 4) == ("data",) and axes_of("heads", 6) == ()
    assert axes_of("embed", 12) == ()
    assert axes_of("length", 1) == () and not caplog.messages
    assert axes_of("length", 9) == axes_of("length", 9) == ()
    assert caplog.messages == [
      "the text: its 9 tokens are not cut, since sequence=2 of config.mesh "
      "does not divide them; each of those devices has all (said once for "
      "such a dim)"
    ]
    with rows_over_all():
      assert axes_of("batch", 96) == sharding.AXES
      assert axes_of("batch", 12) == ("data", "fsdp", "sequence")
      assert axes_of("length", 8) == ()
    assert sharding.parts_of("batch") == 6
    assert sharding.platform() == "gpu" and sharding.placed()


def test_without_a_mesh_nothing_is_done():
  x = jnp.ones((2, 3))
  assert constrain(x, "batch", "length") is x
  assert sharding.parts_of("batch") == 1
  assert sharding.platform() == jax.default_backend()
