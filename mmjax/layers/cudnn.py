"""Attention by cuDNN's fused kernels, on NVIDIA GPUs.

cuDNN knows causal masks and lengths of rows, but no segments within a row;
they are added to the scores as a table, which all layers of a stack share. So
memory still grows with the square of the length, though by one table for each
row and not one for each of its heads. Before the change of jax#39512 the
backward pass makes a gradient of that table as well, which nobody reads.
"""

import jax
from jax.sharding import PartitionSpec as P

from mmjax.layers.dot_product import Problem, Visibility
from mmjax.sharding import axes_of
from mmjax.typing import Array, Float


def refusal(problem: Problem) -> str | None:
  """Why cuDNN does not take this; None when it does.

  Wider heads than 128 run on some GPUs only, which a program that is compiled
  elsewhere cannot ask.
  """
  if problem.biased:
    return "a bias would be rounded to the keys' dtype, and so would distances"
  if problem.dropped:
    return "weights are left out by chance (dropout)"
  if not problem.own:
    return "the keys are not those of the queries' own tokens"
  if problem.dtype not in ("bfloat16", "float16"):
    return f"it computes in bfloat16 and float16, not {problem.dtype}"
  if problem.head_dim % 8 or problem.head_dim > 128:
    return f"heads of {problem.head_dim} are no multiple of 8 up to 128"
  local = problem.length // problem.length_parts
  if problem.segmented and (local % 2 or problem.keys % 2):
    return f"with segments it takes even lengths, not {local}"
  return None


def attend(
  query: Float[Array, "B L N H"],
  key: Float[Array, "B L K H"],
  value: Float[Array, "B L K H"],
  visible: Visibility,
  *,
  scale: float | None = None,
) -> Float[Array, "B L N H"]:
  """What `dot_product.attend` computes, for what `refusal` lets pass."""
  rows = axes_of("batch", query.shape[0]) or None
  heads = axes_of("heads", key.shape[2]) or None
  places = axes_of("length", query.shape[1]) or None
  table = visible.dense()

  def run(query, key, value, table):
    # The table says what is hidden; blocks that a causal mask hides as well
    # are skipped. It would count rows from the first of this device.
    skip = visible.causal and places is None
    return jax.nn.dot_product_attention(
      query,
      key,
      value,
      mask=table,
      scale=scale,
      is_causal=skip,
      implementation="cudnn",
    )

  if jax.sharding.get_abstract_mesh().size > 1:
    cut, whole = P(rows, places, heads, None), P(rows, None, heads, None)
    seen = None if table is None else P(rows, None, places, None)
    run = jax.shard_map(
      run,
      in_specs=(cut, whole, whole, seen),
      out_specs=cut,
      check_vma=False,
    )
  return visible.by_row(run(query, key, value, table))
