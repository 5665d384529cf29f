"""Attention by the Pallas kernel for TPUs that JAX brings (splash).

It keeps no table of scores, so that memory grows with the length and not with
its square, and skips blocks that a causal mask hides. The kernel sees one
device's part; here are the layout it wants and how the parts are cut.

"At an earlier position" is "earlier in the row" to the kernel. The two mean
the same where positions rise along every segment (`dot_product.rises`); where
they do not the result is NaN, never a wrong number.
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.layers.dot_product import Problem, Visibility
from mmjax.sharding import axes_of, parts_of
from mmjax.typing import Array, Float

# Lengths are cut into blocks of one of these; the smallest is the width of a
# TPU's vectors.
BLOCKS = (512, 256, 128)
# A length that has to grow more than this to be cut into blocks is left alone.
WASTE = 1.25


def refusal(problem: Problem) -> str | None:
  """Why the kernel does not take this; None when it does."""
  padded = _padded(problem.length, problem.length_parts)
  if not problem.placed:
    return "no mesh in scope (jax.set_mesh) says how arrays lie on the devices"
  if problem.biased:
    return "a bias is added to the scores (ALiBi, relative positions)"
  if problem.dropped:
    return "weights are left out by chance (dropout)"
  if not problem.own:
    return "the keys are not those of the queries' own tokens"
  if problem.dtype not in ("bfloat16", "float32"):
    return f"it computes in bfloat16 and float32, not {problem.dtype}"
  if problem.head_dim % 8 or problem.head_dim > 256:
    return f"heads of {problem.head_dim} are no multiple of 8 up to 256"
  if padded > WASTE * problem.length:
    return (
      f"a length of {problem.length} would be padded to {padded}, to be cut "
      f"into blocks of {BLOCKS[-1]} on each of {problem.length_parts} devices"
    )
  return None


def _padded(length: int, parts: int) -> int:
  unit = BLOCKS[-1] * parts
  return -(-length // unit) * unit


def attend(
  query: Float[Array, "B L N H"],
  key: Float[Array, "B L K H"],
  value: Float[Array, "B L K H"],
  visible: Visibility,
  *,
  scale: float | None = None,
  interpret: bool = False,
) -> Float[Array, "B L N H"]:
  """What `dot_product.attend` computes, for what `refusal` lets pass.

  Args:
    query, key, value: as there; batch and heads may lie over the mesh in
      scope. When the length does, every device gets all keys.
    visible: who sees whom.
    scale: of the scores; None is H^-1/2.
    interpret: runs the kernel's steps one by one, on any device.
  """
  length, heads, size = query.shape[1:]
  kv_heads = key.shape[2]
  pad = _padded(length, parts_of("length", length)) - length
  segments = visible.query_segments
  if pad and segments is None:
    segments = jnp.ones(query.shape[:2], jnp.int32)
  # The kernel does not scale.
  scaled = query * (size**-0.5 if scale is None else scale)
  grouped = scaled.astype(query.dtype).reshape(
    *query.shape[:2], kv_heads, heads // kv_heads, size
  )
  # Padding is a segment, 0, and sees itself: no row is without a key.
  out = _over_mesh(
    _behind(grouped.transpose(0, 2, 3, 1, 4), pad, -2),
    _behind(key.transpose(0, 2, 1, 3), pad, -2),
    _behind(value.transpose(0, 2, 1, 3), pad, -2),
    None if segments is None else _behind(segments, pad, -1),
    visible.causal,
    interpret,
  )
  out = out.transpose(0, 3, 1, 2, 4)[:, :length].reshape(query.shape)
  return visible.by_row(out)


def _behind(x: Array, pad: int, dim: int) -> Array:
  widths = [(0, 0)] * x.ndim
  widths[dim] = (0, pad)
  return jnp.pad(x, widths)


def _over_mesh(query, key, value, segments, causal, interpret):
  """The kernel on each device's rows, heads and queries.

  query [B K G L H], key and value [B K L H], segments [B L].
  """
  batch, kv_heads, group, length, _ = query.shape
  parts = parts_of("length", length)
  rows = axes_of("batch", batch) or None
  heads = axes_of("heads", kv_heads) or None
  places = axes_of("length", length) or None
  kernel = _kernel(group, length, parts, causal, interpret)

  def run(kernel, query, key, value, own, others):
    ids = None if own is None else _pallas().SegmentIds(own, others)
    by_head = jax.vmap(kernel, in_axes=(0, 0, 0, None))
    return jax.vmap(by_head)(query, key, value, ids)

  mesh = jax.sharding.get_abstract_mesh()
  if mesh.size <= 1:
    return run(kernel, query, key, value, segments, segments)
  cut = P(rows, heads, None, places, None)
  whole = P(rows, heads, None, None)
  own = None if segments is None else P(rows, places)
  others = None if segments is None else P(rows, None)
  by_place = NamedSharding(mesh, P(None, places))
  return jax.shard_map(
    run,
    in_specs=(kernel.manual_sharding_spec(by_place), cut, whole, whole, own)
    + (others,),
    out_specs=cut,
    check_vma=False,
  )(kernel, query, key, value, segments, segments)


def _kernel(group, length, parts, causal, interpret):
  """For the queries of one head of keys, cut over `parts` devices."""
  query = next(b for b in BLOCKS if length // parts % b == 0)
  keys = next(b for b in BLOCKS if length % b == 0)
  pallas = _pallas()
  mask = pallas.CausalMask if causal else pallas.FullMask
  return pallas.make_splash_mqa(
    pallas.MultiHeadMask([mask((length, length))] * group),
    block_sizes=pallas.BlockSizes(
      block_q=query,
      block_kv=keys,
      block_q_dkv=query,
      block_kv_dkv=keys,
      block_q_dq=query,
      block_kv_dq=keys,
    ),
    head_shards=1,
    q_seq_shards=parts,
    interpret=interpret,
  )


def _pallas():
  """The kernel's module, which takes longer to import than this package."""
  from jax.experimental.pallas.ops.tpu import splash_attention

  return splash_attention
