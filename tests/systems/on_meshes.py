"""The gradient of a system on meshes of eight devices, and on one."""

import jax
import numpy as np

from mmjax.sharding import make_mesh, put_batch, shardings
from mmjax.training.state import abstract_params

AXES = ("data", "fsdp", "sequence", "tensor")


def mesh_of(sizes):
  return make_mesh(dict(zip(AXES, sizes)), jax.devices()[: np.prod(sizes)])


def compiled(system, module, params, trains, sizes, batch):
  """The gradient's program on such a mesh, and its arguments.

  Args:
    system: with a `loss`.
    module: of it.
    params: of the module.
    trains: whether the parameters of a name, the first of their path, do.
    sizes: of AXES.
    batch: of it.
  """
  mesh = mesh_of(sizes)
  where = dict(shardings(abstract_params(module, batch), mesh))
  params = jax.device_put(dict(params), where)
  trainable = {name: params.pop(name) for name in [*params] if trains(name)}

  def objective(trainable, frozen, batch):
    total, count = system.loss(module, trainable | frozen, batch)["loss"]
    return total / count

  with jax.set_mesh(mesh):
    arguments = trainable, params, put_batch(batch, mesh)
    step = jax.jit(
      jax.value_and_grad(objective),
      out_shardings=(None, {name: where[name] for name in trainable}),
    )
    return step.lower(*arguments).compile(), arguments


def check_numbers(system, module, params, trains, meshes, batch):
  """Every mesh has the loss and the gradients of one device, which it returns.

  Args:
    system, module, params, trains, batch: see `compiled`.
    meshes: sizes of AXES.
  """
  given = system, module, params, trains
  step, arguments = compiled(*given, (1, 1, 1, 1), batch)
  value, gradients = step(*arguments)
  gradients = jax.tree.map(np.asarray, gradients)
  for sizes in meshes:
    step, arguments = compiled(*given, sizes, batch)
    found, own = step(*arguments)
    np.testing.assert_allclose(found, value, rtol=1e-5, err_msg=str(sizes))
    jax.tree.map(
      lambda a, b, sizes=sizes: np.testing.assert_allclose(
        a, b, atol=2e-5 * np.abs(b).max() + 1e-7, err_msg=str(sizes)
      ),
      *(own, gradients),
    )
  return gradients
