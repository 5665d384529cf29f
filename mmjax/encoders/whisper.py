"""Whisper's encoder: a transformer over what is said, heard in 20 ms steps.

Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision
(arXiv 2212.04356).

  waveform [B 480000] at 16 kHz -> log mel spectrogram [B 3000 80]
    -> two convolutions of three frames, the second halves them [B 1500 384]
    -> sinusoidal positions -> pre-norm layers -> norm -> [B 1500 384]

The spectrogram is made inside the call, so that the waveform is what travels
(layers/whisper_mel.py); who has spectrograms gives those. It was trained on 30
seconds with silence behind what is shorter, and takes any shorter sound, too.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.config import lookup
from mmjax.layers.conv import SequenceConv
from mmjax.layers.fbank import check_waves
from mmjax.layers.linear import Dtype
from mmjax.layers.mlp import ACTIVATIONS
from mmjax.layers.norm import LayerNorm
from mmjax.layers.pre_norm import PreNormLayer
from mmjax.layers.stack import scan_layers, stacked_init
from mmjax.layers.whisper_mel import whisper_mel
from mmjax.typing import Array, Float, Int

# Published encoders; those for English only are as large.
WHISPER = {
  "tiny": dict(width=384, num_layers=4, num_heads=6),
  "base": dict(width=512, num_layers=6, num_heads=8),
  "small": dict(width=768, num_layers=12, num_heads=12),
  "medium": dict(width=1024, num_layers=24, num_heads=16),
  "large-v2": dict(width=1280, num_layers=32, num_heads=20),
  "large-v3": dict(width=1280, num_layers=32, num_heads=20, bands=128),
}


class Whisper(nn.Module):
  """Sounds to tokens, two frames each.

  Attributes:
    width, num_layers, num_heads: E, depth and N.
    hidden: width of the MLPs; None is 4 E.
    bands: of the spectrogram.
    positions: tokens at most.
    activation: of convolutions and MLPs.
    remat: what a scan of layers keeps for the backward pass.
    attention: who computes it: `auto`, or a path of layers/dispatch.py.
    dtype: of the computation; None is float32.
  """

  width: int
  num_layers: int
  num_heads: int
  hidden: int | None = None
  bands: int = 80
  positions: int = 1_500
  activation: str = "gelu"
  remat: str = "none"
  attention: str = "auto"
  dtype: Dtype | None = None

  def setup(self):
    if self.width % 2:
      raise ValueError(
        f"A width of {self.width}: positions are sines and cosines, expected "
        "an even number."
      )
    self.first = SequenceConv(self.width, 3, name="conv1")
    self.second = SequenceConv(self.width, 3, 2, name="conv2")
    init = nn.with_logical_partitioning(
      lambda key, *shape: jnp.asarray(sinusoids(*shape)), (None, "embed")
    )
    # Published files hold it beside the weights.
    self.table = self.param("position_table", init, self.positions, self.width)
    example = jnp.zeros((1, 1, self.width), self.dtype or jnp.float32)
    init = stacked_init(self._layer(), self.num_layers, example)
    self.weights = self.param("layers", init)
    self.norm = LayerNorm()

  def _layer(self) -> PreNormLayer:
    return PreNormLayer(
      num_heads=self.num_heads,
      hidden=self.hidden or 4 * self.width,
      activation=self.activation,
      qkv_bias=True,
      key_bias=False,
      norm_eps=1e-5,
      path="plain" if self.is_initializing() else self.attention,
      dtype=self.dtype,
      parent=None,
    )

  def __call__(
    self,
    sound: Float[Array, "B samples"] | Float[Array, "B T bands"],
    lengths: Int[Array, "B"] | None = None,
  ) -> Float[Array, "B P E"]:
    """Tokens, one for every two frames of 10 ms.

    Args:
      sound: waveforms at 16 kHz on -1..1, or their spectrograms.
      lengths: how many samples of each waveform are real; the rest is silence,
        which Whisper has learned to hear. None is all.

    Raises:
      ValueError: for arrays of another shape or kind, or too long ones.
    """
    layer = self._layer()

    def run(params, x):
      return layer.apply({"params": params}, x), None

    x = self.embed(self.spectrogram(sound, lengths))
    x, _ = scan_layers(run, self.weights, x, remat=self.remat)
    return self.norm(x)

  def spectrogram(
    self, sound: Array, lengths: Int[Array, "B"] | None = None
  ) -> Float[Array, "B T bands"]:
    """What the first convolution reads; see __call__."""
    if sound.ndim == 3:
      if lengths is not None:
        raise ValueError(
          "lengths are of waveforms [B samples], and these are spectrograms "
          f"({sound.shape})."
        )
      return sound
    check_waves(sound, lengths)
    if lengths is not None:
      real = jnp.arange(sound.shape[1]) < lengths[:, None]
      sound = jnp.where(real, sound, 0)
    return whisper_mel(sound, self.bands)

  def embed(self, frames: Float[Array, "B T bands"]) -> Float[Array, "B P E"]:
    """Frames with positions, as the first layer gets them."""
    known = jnp.issubdtype(frames.dtype, jnp.floating)
    if not known or frames.shape[2] != self.bands or not frames.shape[1]:
      raise ValueError(
        f"Spectrograms of shape {frames.shape} and dtype {frames.dtype}: "
        f"expected floats [B T {self.bands}]."
      )
    if frames.shape[1] > 2 * self.positions:
      raise ValueError(
        f"{frames.shape[1]} frames of 10 ms; this encoder has positions for "
        f"{2 * self.positions}: cut the sound into segments."
      )
    act = lookup(ACTIVATIONS, self.activation, "activation")
    x = frames.astype(self.dtype or jnp.float32)
    x = act(self.second(act(self.first(x))))
    return x + self.table[: x.shape[1]].astype(x.dtype)


def sinusoids(length: int, width: int) -> Float[np.ndarray, "L E"]:
  """Sines of falling frequencies, then their cosines, float32."""
  falling = float(np.log(10_000)) / max(width // 2 - 1, 1)
  # In single precision throughout, as the original's: at position 1499 it is
  # off by 1e-4.
  places, steps = (np.arange(n, dtype=np.float32) for n in (length, width // 2))
  angles = places[:, None] * np.exp(-falling * steps)
  return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def whisper(
  variant: str = "tiny",
  remat: str = "none",
  attention: str = "auto",
  dtype: Dtype | None = None,
) -> Whisper:
  """A published encoder, a name of `WHISPER`; see Whisper."""
  sizes = lookup(WHISPER, variant, "Whisper")
  return Whisper(**sizes, remat=remat, attention=attention, dtype=dtype)
