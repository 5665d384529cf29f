"""Golden component pointbert: groups of points, and ULIP-2's 3D encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.convert.families import pointbert as rules
from mmjax.convert.rules import load
from mmjax.encoders.pointbert import PointBERT, pool
from mmjax.layers.points import (
  farthest_points,
  group_points,
  nearest_points,
)
from tests.golden.file import Golden
from tests.golden.options import NEEDED, merged

# Constructor arguments of the originals, and their defaults.
GROUP = dict(num_group=NEEDED, group_size=NEEDED, points=None, batch=None)
POINT = dict(
  trans_dim=NEEDED,
  depth=NEEDED,
  drop_path_rate=0.0,
  cls_dim=None,
  num_heads=NEEDED,
  group_size=NEEDED,
  num_group=NEEDED,
  encoder_dims=NEEDED,
)


def grouped(golden: Golden):
  """`Group`, a call with sizes of its own after another."""
  for call, inputs in golden.inputs.items():
    c = golden.config["constructor"]
    c = merged(c[call] if call else c, GROUP)
    points = jnp.asarray(inputs["points"])
    start, count = inputs.get("start"), c["group_size"]
    found = group_points(points, c["num_group"], count, start)
    index, distance = nearest_points(points, found.centres, count)
    yield (
      call,
      {
        "centre_index": farthest_points(points, c["num_group"], start),
        "centres": found.centres,
        "neighbour_index": jnp.sort(index, axis=-1),
        "neighbour_distance": distance,
        "neighbourhood": found.offsets,
      },
    )


def build(golden: Golden) -> PointBERT:
  given = golden.config["constructor"]
  c = merged(given["point"], POINT)
  return PointBERT(
    width=c["trans_dim"],
    num_layers=c["depth"],
    num_heads=c["num_heads"],
    groups=c["num_group"],
    group_size=c["group_size"],
    group_width=c["encoder_dims"],
    projection=given["embed_dim"],
    normalise=False,
  )


def stages(module: PointBERT, points, start):
  """Every output that a file holds, under its name."""
  x, positions = module.embed(points, start)
  found = group_points(points, module.groups, module.group_size, start)
  outputs = {
    "group_tokens": module.point_net(found.offsets),
    "centre_positions": positions[:, 1:],
    "tokens_normed": module.tokens(points, start),
    "point_encoder": pool(module.tokens(points, start)),
    "pc_embed": module(points, start)[:, 0],
  }
  for i in range(module.num_layers):
    outputs[f"block_{i}"] = module.run(x, positions, i + 1)
  return outputs


def encoder(golden: Golden):
  """`PointTransformer` and the projection behind it."""
  module = build(golden)
  run = jax.jit(functools.partial(module.apply, method=stages))
  for call, inputs in golden.inputs.items():
    points = jnp.asarray(inputs["points"])
    like = jax.eval_shape(module.init, jax.random.key(0), points)
    params = load(
      golden.weights,
      rules.ulip2(),
      nn.unbox(like)["params"],
      ignore=rules.BUFFERS.fullmatch,
    )
    start = inputs.get("start", np.zeros(len(points), np.int32))
    yield call, run({"params": params}, points, start)


def check(golden: Golden):
  """Yields (call, {output name: array})."""
  if str(golden.config.get("function")).startswith("Group"):
    return grouped(golden)
  return encoder(golden)
