"""Feed-forward layers and their activations."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.config import lookup
from mmjax.layers.linear import Dtype, Lora, dense
from mmjax.sharding import constrain
from mmjax.typing import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
  "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
  "linear": lambda x: x,
  "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
  "relu": jax.nn.relu,
  "silu": jax.nn.silu,
  # So et al., Primer (arXiv 2109.08668); Flamingo's choice.
  "squared_relu": lambda x: jnp.square(jax.nn.relu(x)),
}


class MLP(nn.Module):
  """down(act(up(x))), or down(act(gate(x)) * up(x)) when gated.

  Attributes:
    hidden: width of the inner layer.
    activation: a name of ACTIVATIONS.
    gated: adds the third matrix of SwiGLU and its kin.
    use_bias: of all its matrices.
    std: of their first draw, see Linear.
    lora: of all its matrices.
    dtype: of the computation.
  """

  hidden: int
  activation: str = "gelu"
  gated: bool = False
  use_bias: bool = False
  std: float | None = None
  lora: Lora | None = None
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    act = lookup(ACTIVATIONS, self.activation, "activation")
    common = dict(
      use_bias=self.use_bias, std=self.std, lora=self.lora, dtype=self.dtype
    )
    into = ("embed", "mlp")
    width = x.shape[-1]
    h = dense(width, self.hidden, into, name="up", **common)(x)
    if self.gated:
      gate = dense(width, self.hidden, into, name="gate", **common)(x)
      h = act(gate) * h
    else:
      h = act(h)
    if h.ndim == 3:
      h = constrain(h, "batch", "length", "mlp")
    return dense(self.hidden, width, ("mlp", "embed"), name="down", **common)(h)
