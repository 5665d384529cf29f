"""LLaVA's connector: every feature becomes a token of the language model.

One linear layer in LLaVA (arXiv 2304.08485), Linear, GELU, Linear in LLaVA-1.5
(arXiv 2310.03744), whose code calls it `mlp2x_gelu`; in general `depth` linear
layers with an activation between them, and none is the identity.

  features [B M T P E] -> tokens [B M T*P D], frame after frame
"""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.config import lookup
from mmjax.layers.linear import Dtype, dense
from mmjax.layers.mlp import ACTIVATIONS
from mmjax.typing import Array, Bool, Float

# Variance of torch.nn.Linear's first draw, over 1 / fan-in.
TORCH_VARIANCE = 1 / 3
# Of LLaVA-1.5 by its language model's width: 4096 (7B), 5120 (13B).
LINEAR, MLP2X = dict(depth=1), dict(depth=2)


class Projection(nn.Module):
  """Features to tokens, one by one.

  Attributes:
    width: of the language model (D).
    depth: linear layers; 0 leaves features as they are.
    activation: between them.
    use_bias: of all of them.
    dtype: of the computation.
  """

  width: int
  depth: int = 2
  activation: str = "gelu"
  use_bias: bool = True
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self,
    features: Float[Array, "B M T P E"],
    mask: Bool[Array, "B M T"] | None = None,
  ) -> Float[Array, "B M Q D"]:
    """Projects all features; tokens of padding (`mask` is False) are zeros."""
    act = lookup(ACTIVATIONS, self.activation, "activation")
    *media, frames, tokens, _ = features.shape
    x = features.reshape(*media, frames * tokens, -1)
    for i in range(self.depth):
      x = dense(
        x.shape[-1],
        self.width,
        (None if i == 0 else "mlp", "embed"),
        use_bias=self.use_bias,
        variance=TORCH_VARIANCE,
        dtype=self.dtype,
        name=f"linear_{i + 1}",
      )(x if i == 0 else act(x))
    if x.shape[-1] != self.width:
      raise ValueError(
        f"Features are {x.shape[-1]} wide, the language model {self.width}: "
        "without a linear layer (depth=0) they have to be alike."
      )
    if mask is None:
      return x
    return jnp.where(jnp.repeat(mask, tokens, axis=-1)[..., None], x, 0)
