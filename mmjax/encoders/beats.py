"""BEATs: a transformer over patches of a sound's filter bank.

Chen et al., BEATs: Audio Pre-Training with Acoustic Tokenizers (arXiv
2212.09058); X-InstructBLIP's encoder of sound is the one of `BEATS`.

  waveform [B 82160] at 16 kHz -> filter bank [B 512 128], standardised
    -> patches of 16 x 16, time by time, 8 bands each [B 256 512]
    -> norm, projection, positions by convolution, norm [B 256 768]
    -> 12 layers with deep norm and gated relative positions -> [B 256 768]

The filter bank is made inside the call, so that the waveform is what travels
(layers/fbank.py); who has banks gives those. Left out: the heads of the
pretraining and of fine-tuned classifiers, dropout, dropping of layers. Weights
are first drawn without deep norm's smaller scale of some: published ones take
their place.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from mmjax.config import lookup
from mmjax.layers.attention import Context, SelfAttention
from mmjax.layers.conv import Conv, PositionConv, flatten_grid
from mmjax.layers.dot_product import Visibility
from mmjax.layers.fbank import check_waves, frames_of, log_mel
from mmjax.layers.linear import Dtype, dense
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.position import relative_buckets
from mmjax.layers.stack import scan_layers, stacked_init
from mmjax.typing import Array, Bool, Float, Int

BANDS = 128
# Of AudioSet's filter banks; the published code divides by twice the second.
MEAN, STD = 15.41663, 6.55582
# The published encoder: the third iteration on AudioSet, prolonged.
BEATS = {
  "iter3+": dict(width=768, num_layers=12, num_heads=12, hidden=3072),
}


class BEATs(nn.Module):
  """Sounds to tokens.

  Attributes:
    width, num_layers, num_heads: E, depth and N.
    hidden: width of the MLPs.
    patch: side of a patch, in frames and in bands.
    patch_width: of the patches before the projection; there is none where it
      is `width`.
    patch_bias: bias of the patches.
    conv_size, conv_groups: of the convolution that gives positions.
    num_buckets, max_distance: of the table of relative positions.
    gated: whether each query scales its relative positions.
    deep_norm: residuals are scaled by (2 depth)^1/4 (arXiv 2203.00555).
    activation: of the MLPs.
    remat: what a scan of layers keeps for the backward pass.
    dtype: of the computation; None is float32.
  """

  width: int
  num_layers: int
  num_heads: int
  hidden: int
  patch: int = 16
  patch_width: int = 512
  patch_bias: bool = False
  conv_size: int = 128
  conv_groups: int = 16
  num_buckets: int = 320
  max_distance: int = 800
  gated: bool = True
  deep_norm: bool = True
  activation: str = "gelu"
  remat: str = "none"
  dtype: Dtype | None = None

  def setup(self):
    if self.width % self.num_heads:
      raise ValueError(
        f"A width of {self.width} does not part into {self.num_heads} heads."
      )
    self.patches = Conv(
      self.patch_width,
      self.patch,
      self.patch,
      padding="VALID",
      use_bias=self.patch_bias,
      dtype=self.dtype,
      name="patch",
    )
    self.patch_norm = LayerNorm()
    if self.patch_width != self.width:
      self.project = dense(
        self.patch_width,
        self.width,
        (None, "embed"),
        use_bias=True,
        # As PyTorch draws it. From zero, silence would stay zero to the end,
        # and its gradient grow with every norm.
        bias_bound=self.patch_width**-0.5,
        name="projection",
      )
    self.positions = PositionConv(
      self.conv_size, self.conv_groups, name="position_conv"
    )
    self.norm = LayerNorm()
    init = nn.with_logical_partitioning(
      initializers.normal(0.02), (None, "heads")
    )
    shape = (self.num_buckets, self.num_heads)
    self.table = self.param("relative_bias", init, shape)
    example = jnp.zeros((1, 1, self.width), self.dtype or jnp.float32)
    bias = jnp.zeros((self.num_heads, 1, 1))
    init = stacked_init(
      self._layer(), self.num_layers, example, bias, Visibility()
    )
    self.weights = self.param("layers", init)

  def _layer(self) -> "Layer":
    return Layer(
      num_heads=self.num_heads,
      hidden=self.hidden,
      residual=(2 * self.num_layers) ** 0.25 if self.deep_norm else 1.0,
      gated=self.gated,
      activation=self.activation,
      dtype=self.dtype,
      parent=None,
    )

  def __call__(
    self,
    sound: Float[Array, "B samples"] | Float[Array, "B T bands"],
    lengths: Int[Array, "B"] | None = None,
    padding: Bool[Array, "B T"] | None = None,
  ) -> Float[Array, "B P E"]:
    """Tokens: all bands of the first 16 frames, then those of the next.

    Args:
      sound: waveforms at 16 kHz on -1..1, or their standardised filter banks.
      lengths: how many samples of each waveform are real; frames that reach
        beyond are zeros, which the layers see as they see others
        (X-InstructBLIP's way). None is all.
      padding: frames that no layer may see; None is none of them.

    Raises:
      ValueError: for arrays of another shape or kind.
    """
    bank = self.filter_bank(sound, lengths)
    x, hidden = self.embed(bank), None
    if padding is not None:
      if padding.shape != bank.shape[:2]:
        raise ValueError(
          f"padding of shape {padding.shape} for filter banks of "
          f"{bank.shape}: expected {bank.shape[:2]}, a value for each frame."
        )
      hidden = hidden_tokens(padding, x.shape[1])
    return self.run(self.place(x, hidden), hidden)[0]

  def filter_bank(
    self, sound: Array, lengths: Int[Array, "B"] | None = None
  ) -> Float[Array, "B T bands"]:
    """What the patches are cut of; see __call__."""
    if sound.ndim == 3:
      if lengths is not None:
        raise ValueError(
          "lengths are of waveforms [B samples]; set the frames of a filter "
          f"bank ({sound.shape}) to zero instead."
        )
      return sound
    check_waves(sound, lengths)
    bank = (log_mel(sound, BANDS) - MEAN) / (2 * STD)
    if lengths is None:
      return bank
    real = jnp.arange(bank.shape[1]) < frames_of(lengths)[:, None]
    return jnp.where(real[..., None], bank, 0)

  def embed(self, bank: Float[Array, "B T bands"]) -> Float[Array, "B P C"]:
    """Normed patches, before the projection; frames that fill none are cut."""
    frames, bands = bank.shape[1:]
    if (
      not jnp.issubdtype(bank.dtype, jnp.floating)
      or frames < self.patch
      or bands % self.patch
    ):
      raise ValueError(
        f"Filter banks of shape {bank.shape} and dtype {bank.dtype}: expected "
        f"floats, {self.patch} frames or more, and bands that part into "
        f"patches of {self.patch}."
      )
    dtype = self.dtype or jnp.float32
    x = self.patches(bank.astype(dtype)[..., None])
    return self.patch_norm(flatten_grid(x))

  def place(
    self, x: Float[Array, "B P C"], hidden: Bool[Array, "B P"] | None = None
  ) -> Float[Array, "B P E"]:
    """Patches with positions, as the first layer gets them."""
    if self.patch_width != self.width:
      x = self.project(x)
    if hidden is not None:
      x = jnp.where(hidden[..., None], 0, x)
    return self.norm(x + self.positions(x))

  def bias(self, length: int) -> Float[Array, "N P P"]:
    """Relative positions of so many tokens, [heads, queries, keys]."""
    distances = np.arange(1 - length, length)
    rows = self.table[
      relative_buckets(distances, self.num_buckets, self.max_distance)
    ]
    place = jnp.arange(length)
    return rows.T[:, place - place[:, None] + length - 1].astype(jnp.float32)

  def run(
    self,
    x: Float[Array, "B P E"],
    hidden: Bool[Array, "B P"] | None = None,
    keep: bool = False,
  ) -> tuple[Float[Array, "B P E"], Array | None]:
    """All layers, and what each of them gives where it is to be kept."""
    layer, bias = self._layer(), self.bias(x.shape[1])
    visible = Visibility()
    if hidden is not None:
      # Hidden tokens look as well: nobody reads what they find.
      visible = Visibility(jnp.ones(hidden.shape, jnp.int32), 1 - hidden)

    def run(params, x):
      x = layer.apply({"params": params}, x, bias, visible)
      return x, x if keep else None

    return scan_layers(run, self.weights, x, remat=self.remat)


def hidden_tokens(
  padding: Bool[Array, "B T"], tokens: int
) -> Bool[Array, "B P"]:
  """Which tokens are all padding, as the original counts.

  Frames are shared out in their order, as if tokens followed one another in
  time: of 16 frames and 8 bands of patches, each token has 2. Where padding
  starts within a patch, its upper bands are hidden and the lower are not.
  Frames that do not share out are left.

  Raises:
    ValueError: for more tokens than frames.
  """
  share = padding.shape[1] // tokens
  if not share:
    raise ValueError(
      f"padding of {padding.shape[1]} frames for {tokens} tokens: expected a "
      "frame or more a token; smaller patches cannot be hidden."
    )
  padding = padding[:, : share * tokens]
  return padding.reshape(padding.shape[0], tokens, share).all(axis=-1)


class Layer(nn.Module):
  """norm(a x + attention(x)), then norm(a x + mlp(x)).

  Attributes:
    num_heads: N.
    hidden: width of the MLP.
    residual: a.
    gated: whether each query scales its relative positions.
    activation: of the MLP.
    dtype: of the computation.
  """

  num_heads: int
  hidden: int
  residual: float
  gated: bool
  activation: str
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B P E"],
    bias: Float[Array, "N P P"],
    visible: Visibility,
  ) -> Float[Array, "B P E"]:
    gate = Gate(name="gate") if self.gated else lambda query: 1.0
    attention = SelfAttention(
      num_heads=self.num_heads,
      head_dim=x.shape[-1] // self.num_heads,
      bias=lambda context, query: gate(query) * bias[None],
      qkv_bias=True,
      out_bias=True,
      dtype=self.dtype,
      name="attention",
    )
    positions = jnp.zeros(x.shape[:2], jnp.int32)
    y, _ = attention(x, Context(positions, positions, visible), None)
    x = LayerNorm(name="attention_norm")(self.residual * x + y)
    y = MLP(
      self.hidden,
      self.activation,
      use_bias=True,
      dtype=self.dtype,
      name="mlp",
    )(x)
    return LayerNorm(name="mlp_norm")(self.residual * x + y)


class Gate(nn.Module):
  """How much relative positions count for each query, in float32.

  From WavLM (arXiv 2110.13900): of the query, as it is before it is scaled,
  come an update u and a reset r, each the sigmoid of a sum of four; relative
  positions count 2 + u (r s - 1), with a learned s a head.
  """

  @nn.compact
  def __call__(self, query: Float[Array, "B L N H"]) -> Float[Array, "B N L 1"]:
    heads, size = query.shape[2:]
    x = query.astype(jnp.float32)
    x = dense(size, 8, ("head_dim", None), use_bias=True, name="linear")(x)
    x = jax.nn.sigmoid(x.reshape(*x.shape[:-1], 2, 4).sum(axis=-1))
    update, reset = x[..., 0], x[..., 1]
    init = nn.with_logical_partitioning(initializers.ones, ("heads",))
    scale = self.param("scale", init, (heads,)).astype(jnp.float32)
    factor = 2 + update * (reset * scale - 1)
    return factor.transpose(0, 2, 1)[..., None]


def beats(
  variant: str = "iter3+", remat: str = "none", dtype: Dtype | None = None
) -> BEATs:
  """The published encoder, a name of `BEATS`; see BEATs."""
  sizes = lookup(BEATS, variant, "BEATs")
  return BEATs(**sizes, remat=remat, dtype=dtype)
