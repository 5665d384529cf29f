"""ViT: a transformer over the patches of an image.

Dosovitskiy et al. (arXiv 2010.11929), with the options that CLIP (arXiv
2103.00020), EVA (arXiv 2211.07636) and the towers built like them need; the
published ones are in `CLIP` and `EVA`.

  images [B 224 224 3] -> patches of 14 -> [B 1 + 256 E] with a class token
    -> pre-norm -> layers -> tokens [B 256 E]

Open code disagrees on two points, which are options: whether the last norm
is applied to the tokens (open_clip from 2.23 on; not OpenAI, Hugging Face or
OpenFlamingo), and which layer the tokens come from (LLaVA: the last but one).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.config import lookup
from mmjax.layers.conv import Conv, Images, flatten_grid, normalise
from mmjax.layers.linear import Dtype, dense
from mmjax.layers.norm import LayerNorm
from mmjax.layers.position import interpolate_grid
from mmjax.layers.pre_norm import PreNormLayer, relative_bias
from mmjax.layers.stack import scan_layers, stacked_init
from mmjax.typing import Array, Float

_SMALL = initializers.normal(0.02)
# Published towers; H/14 is LAION's, the others are OpenAI's.
CLIP = {
  "B/32": dict(width=768, num_layers=12, num_heads=12, patch=32),
  "B/16": dict(width=768, num_layers=12, num_heads=12, patch=16),
  "L/14": dict(width=1024, num_layers=24, num_heads=16, patch=14),
  "L/14-336": dict(
    width=1024, num_layers=24, num_heads=16, patch=14, image_size=336
  ),
  "H/14": dict(
    width=1280, num_layers=32, num_heads=16, patch=14, activation="gelu"
  ),
}
# EVA-CLIP's as LAVIS' eva_vit.py cuts it: without its last block and norm.
EVA = {
  "g/14": dict(width=1408, num_layers=39, num_heads=16, patch=14, hidden=6144),
}


class ViT(nn.Module):
  """Images to tokens, or to one vector.

  Attributes:
    width, num_layers, num_heads: E, depth and N.
    patch: side of a patch.
    image_size: side of the images that the position table is for; it is
      interpolated for others.
    hidden: width of the MLPs; None is 4 E.
    activation: of the MLPs.
    class_token: puts a learned token before the patches.
    keep_class_token: returns it with the tokens.
    patch_bias, qkv_bias: biases of the patch and attention projections.
    key_bias: False leaves the keys' bias out.
    absolute_positions: a table that is added to the patches.
    relative_positions: a table in every layer, of what each head adds to the
      scores for the distance of two tokens (BEiT, arXiv 2106.08254).
    shared_relative_positions: one such table for all layers.
    layer_scale: first value of a factor a channel for what the parts of a
      layer add (arXiv 2103.17239); 0 leaves the factors out.
    pre_norm: a norm before the first layer.
    post_norm: a norm after the last layer, for `pooled`.
    norm_tokens: the same norm for the tokens.
    output_layer: where the tokens come from; -1 is the last layer.
    projection: width of `pooled`; 0 leaves the matrix out.
    norm_eps: of all norms.
    remat: what a scan of layers keeps for the backward pass.
    attention: who computes it: `auto`, or a path of layers/dispatch.py.
    mean, std: of the training's pixels on 0..1.
    dtype: of the computation; None is float32.
  """

  width: int
  num_layers: int
  num_heads: int
  patch: int
  image_size: int = 224
  hidden: int | None = None
  activation: str = "quick_gelu"
  class_token: bool = True
  keep_class_token: bool = False
  patch_bias: bool = False
  qkv_bias: bool = True
  key_bias: bool = True
  absolute_positions: bool = True
  relative_positions: bool = False
  shared_relative_positions: bool = False
  layer_scale: float = 0.0
  pre_norm: bool = True
  post_norm: bool = True
  norm_tokens: bool = False
  output_layer: int = -1
  projection: int = 0
  norm_eps: float = 1e-5
  remat: str = "none"
  attention: str = "auto"
  mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
  std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
  dtype: Dtype | None = None

  def setup(self):
    if not -self.num_layers <= self.output_layer <= -1:
      raise ValueError(
        f"output_layer {self.output_layer} of {self.num_layers} layers: "
        f"expected -1 (the last) to {-self.num_layers}."
      )
    if self.norm_tokens and not self.post_norm:
      raise ValueError("norm_tokens needs the norm of post_norm=True.")
    if self._relative and not self.class_token:
      raise ValueError("Relative positions need class_token=True.")
    self.patches = Conv(
      self.width,
      self.patch,
      self.patch,
      padding="VALID",
      use_bias=self.patch_bias,
      name="patch",
    )
    if self.class_token:
      init = nn.with_logical_partitioning(_SMALL, ("embed",))
      self.first = self.param("class_token", init, (self.width,))
    side = self.image_size // self.patch
    rows = side**2 + self.class_token
    if self.absolute_positions:
      init = nn.with_logical_partitioning(_SMALL, (None, "embed"))
      self.positions = self.param("position_table", init, (rows, self.width))
    if self.shared_relative_positions:
      self.bias = relative_bias(self, (side, side), self.num_heads)
    if self.pre_norm:
      self.norm_before = LayerNorm(self.norm_eps, name="pre_norm")
    length = rows if self.relative_positions else 1
    example = jnp.zeros((1, length, self.width), self.dtype or jnp.float32)
    init = stacked_init(self._layer(), self.num_layers, example)
    self.weights = self.param("layers", init)
    if self.post_norm:
      self.norm_after = LayerNorm(self.norm_eps, name="post_norm")
    if self.projection:
      self.project = dense(
        self.width, self.projection, ("embed", None), name="projection"
      )

  @property
  def _relative(self) -> bool:
    return self.relative_positions or self.shared_relative_positions

  def _layer(self) -> PreNormLayer:
    side = self.image_size // self.patch
    return PreNormLayer(
      num_heads=self.num_heads,
      hidden=self.hidden or 4 * self.width,
      activation=self.activation,
      qkv_bias=self.qkv_bias,
      key_bias=self.key_bias,
      grid=(side, side) if self.relative_positions else None,
      layer_scale=self.layer_scale,
      norm_eps=self.norm_eps,
      path="plain" if self.is_initializing() else self.attention,
      dtype=self.dtype,
      parent=None,
    )

  def __call__(self, images: Images) -> Float[Array, "B P E"]:
    """Tokens, row by row; the class token first where it is kept."""
    depth = self.num_layers + 1 + self.output_layer
    x = self._run(self.embed(images), depth)
    if self.is_initializing():
      self._head(x[:, 0])
    if self.norm_tokens:
      x = self.norm_after(x)
    if self.class_token and not self.keep_class_token:
      x = x[:, 1:]
    return x

  def pooled(self, images: Images) -> Float[Array, "B E"]:
    """The class token of the last layer (or the mean), normed, projected."""
    x = self._run(self.embed(images), self.num_layers)
    return self._head(x[:, 0] if self.class_token else x.mean(axis=1))

  def _head(self, x):
    if self.post_norm:
      x = self.norm_after(x)
    return self.project(x) if self.projection else x

  def embed(self, images: Images) -> Float[Array, "B L E"]:
    """Patches with positions, as the first layer gets them."""
    height, width = images.shape[1:3]
    if height % self.patch or width % self.patch:
      raise ValueError(
        f"Images of {height} x {width} do not part into patches of "
        f"{self.patch}: resize or crop them."
      )
    if self._relative and (height, width) != (self.image_size,) * 2:
      raise ValueError(
        f"Images of {height} x {width}; relative positions are for "
        f"{self.image_size} x {self.image_size}: resize them."
      )
    x = self.patches(normalise(images, self.mean, self.std, self.dtype))
    grid, x = x.shape[1:3], flatten_grid(x)
    if self.class_token:
      first = jnp.broadcast_to(self.first, (x.shape[0], 1, self.width))
      x = jnp.concatenate([first.astype(x.dtype), x], axis=1)
    if self.absolute_positions:
      x += self._table(*grid).astype(x.dtype)
    return self.norm_before(x) if self.pre_norm else x

  def _table(self, height: int, width: int) -> Float[Array, "L E"]:
    """Positions for a grid of patches, interpolated if it is another one."""
    side = self.image_size // self.patch
    if (height, width) == (side, side):
      return self.positions
    first, grid = jnp.split(self.positions, [int(self.class_token)])
    grid = grid.reshape(side, side, self.width)
    grid = interpolate_grid(grid, height, width)
    return jnp.concatenate([first, grid.reshape(-1, self.width)])

  def _run(self, x, depth):
    layer = self._layer()
    bias = self.bias if self.shared_relative_positions else None

    def run(params, x):
      return layer.apply({"params": params}, x, bias), None

    weights = jax.tree.map(lambda w: w[:depth], self.weights)
    return scan_layers(run, weights, x, remat=self.remat)[0]


def clip_vit(
  variant: str = "L/14",
  image_size: int | None = None,
  keep_class_token: bool = False,
  norm_tokens: bool = False,
  output_layer: int = -1,
  projection: int = 0,
  remat: str = "none",
  attention: str = "auto",
  dtype: Dtype | None = None,
) -> ViT:
  """The vision tower of a published CLIP, a name of `CLIP`; see ViT."""
  sizes = dict(lookup(CLIP, variant, "CLIP"))
  if image_size is not None:
    sizes["image_size"] = image_size
  return ViT(
    **sizes,
    keep_class_token=keep_class_token,
    norm_tokens=norm_tokens,
    output_layer=output_layer,
    projection=projection,
    remat=remat,
    attention=attention,
    dtype=dtype,
  )


def eva_vit(
  variant: str = "g/14",
  image_size: int | None = None,
  output_layer: int = -1,
  remat: str = "none",
  attention: str = "auto",
  dtype: Dtype | None = None,
) -> ViT:
  """The vision tower of BLIP-2 and what is built on it, a name of `EVA`.

  Its tokens [B 1 + 256 1408] are the class token and the patches, without a
  norm: the trained one behind it (LAVIS' `ln_vision`) is not part of it.

  Args:
    variant: a name of EVA.
    image_size: side of the images that the position table is for.
    output_layer, remat, attention, dtype: see ViT.
  """
  sizes = dict(lookup(EVA, variant, "EVA"))
  if image_size is not None:
    sizes["image_size"] = image_size
  return ViT(
    **sizes,
    activation="gelu",
    keep_class_token=True,
    patch_bias=True,
    key_bias=False,
    pre_norm=False,
    post_norm=False,
    norm_eps=1e-6,
    output_layer=output_layer,
    remat=remat,
    attention=attention,
    dtype=dtype,
  )
