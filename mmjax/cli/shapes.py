"""Shapes of a module's parameters by path, and sizes that tensors tell."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mmjax import tree


def like(
  shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> jax.ShapeDtypeStruct:
  """An input that takes no memory, however large it says it is."""
  return jax.ShapeDtypeStruct(tuple(shape), dtype)


# What a language model is called with: tokens, positions, segments.
TOKENS = (like((1, 1), jnp.int32),) * 3


def shapes_of(
  module: nn.Module, *inputs: jax.ShapeDtypeStruct, method: str | None = None
) -> dict[str, tuple[int, ...]]:
  """Of every parameter that a call with these inputs makes."""

  def init(key, *inputs):
    return module.init(key, *inputs, method=method)

  made = jax.eval_shape(init, jax.random.key(0), *inputs)
  flat = tree.flatten(nn.unbox(made)["params"])
  return {path: tuple(x.shape) for path, x in flat.items()}


def heads(
  config: Mapping[str, Any], width: int, size: int | None, asked: str
) -> int:
  """How many heads a model has, which none of its tensors tells.

  Args:
    config: its `num_attention_heads`, where it has it.
    width: of the model.
    size: of the heads of the published models; None where they differ.
    asked: settings that would tell.

  Raises:
    ValueError: when nothing tells, or the heads do not part the width.
  """
  found = config.get("num_attention_heads")
  if found is None and (size is None or width % size):
    raise ValueError(
      f"A model of width {width}: its tensors do not tell how many heads it "
      f"has. Give {asked} as --settings FILE."
    )
  if found is None:
    return width // size
  if type(found) is not int or found < 1 or width % found:
    raise ValueError(
      f"num_attention_heads is {found!r}, which does not part a width of "
      f"{width}."
    )
  return found


def depth(weights: Mapping[str, Any], layers: str) -> int:
  """Of a stack: how many numbers follow `layers` in the tensors' names."""
  found = re.compile(re.escape(layers) + r"(\d+)\.")
  return len({m[1] for key in weights if (m := found.match(key))})


def require(weights: Mapping[str, Any], dims: Mapping[str, int]) -> list:
  """Shapes of the tensors that settings are read off.

  Args:
    weights: tensors by name.
    dims: how many dims each is to have.

  Raises:
    ValueError: for what is missing, or has other dims.
  """
  if missing := [name for name in dims if name not in weights]:
    raise ValueError(
      f"There is no {', no '.join(missing)}; there are such as "
      f"{list(weights)[:3]}."
    )
  shapes = {name: weights.shape(name) for name in dims}
  if wrong := {k: v for k, v in shapes.items() if len(v) != dims[k]}:
    wanted = ", ".join(str(dims[name]) for name in wrong)
    raise ValueError(f"Shapes are {wrong}; expected {wanted} dims.")
  return list(shapes.values())
