"""BLIP-2's first stage: a Q-Former learns from images and their captions.

Li et al. (arXiv 2301.12597), section 3.2; LAVIS' `blip2_qformer.py`. Three
losses, added, each with a way of its own to see (connectors/qformer.py):

  contrastive   an image finds its text among all of the batch, and a text its
                image; of the queries the one counts that is most like the text
  matching      an image and a text belong together, or one of them is another
                row's, drawn the likelier the more alike the two are
  captioning    the text, token by token, from the queries

The first and the last share one pass, in which the text stands twice: apart,
and behind the queries. As in one process of the original, the gradient
reaches both sides of every similarity, however many devices there are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.config import build as build_entry
from mmjax.config import call, require
from mmjax.connectors.projection import TORCH_VARIANCE
from mmjax.connectors.qformer import QFormer, visible
from mmjax.encoders import ENCODERS
from mmjax.layers.linear import Dtype, dense
from mmjax.layers.mlp import ACTIVATIONS
from mmjax.layers.norm import LayerNorm
from mmjax.losses.contrastive import matching, partners
from mmjax.losses.token import cross_entropy
from mmjax.sharding import constrain, rows_over_all
from mmjax.systems.media import features
from mmjax.systems.text import dropout_key
from mmjax.typing import Array, Batch, Bool, Float, Int, Output, Params

SMOOTHING = 0.1
# Score of what is not drawn; finite, so that a row without others gives no NaN.
_NEVER = -1e4


class Blip2Stage1(nn.Module):
  """A Q-Former between an image encoder and its own reading of text.

  Attributes:
    qformer: with text.
    encoder: pixels to features; None when batches bring features.
    joint_width: of the vectors that find each other.
    begin_token: takes the first token's place when a caption is written; None
      is the vocabulary's last, [DEC].
    first_temperature: that similarities are divided by at the start.
    features_norm_eps: of the norm of the features.
    dtype: of the computation.
  """

  qformer: QFormer
  encoder: nn.Module | None = None
  joint_width: int = 256
  begin_token: int | None = None
  first_temperature: float = 0.07
  features_norm_eps: float = 1e-5
  dtype: Dtype | None = None

  def setup(self):
    width = self.qformer.width
    self.features_norm = LayerNorm(self.features_norm_eps)
    common = dict(
      use_bias=True,
      variance=TORCH_VARIANCE,
      bias_bound=width**-0.5,
      dtype=self.dtype,
    )
    self.image_head, self.text_head, self.match_head = (
      dense(width, size, ("embed", None), **common)
      for size in (self.joint_width, self.joint_width, 2)
    )
    reader = self.qformer
    self.caption_head = CaptionHead(
      reader.vocab_size, reader.norm_eps, reader.std, self.dtype
    )
    start = initializers.constant(self.first_temperature)
    init = nn.with_logical_partitioning(start, ())
    self.temperature = self.param("temperature", init, ())

  def __call__(
    self,
    batch: Batch,
    negatives: tuple[Int[Array, "B"], Int[Array, "B"]] | None = None,
  ) -> Output:
    """Everything the losses need; see typing.Batch.

    Args:
      batch: an image and a text a row; its "key" draws the negatives, without
        one they are always the same.
      negatives: of every row another image and another text, not drawn.

    Returns:
      logits [B L V] of the caption's tokens, and in `aux` the `scores` [B B]
      of every image with every text, and the `matches` [3B 2] of own pairs,
      other images and other texts.
    """
    x = self.read_media(batch)
    text = batch["segments"] > 0
    images, texts, captions = self.contrast(x, batch["tokens"], text)
    scores = self.similarity(images, texts)
    if negatives is None:
      key = batch.get("key", jax.random.key(0))
      negatives = draw_negatives(key, scores, no_negatives(batch))
    matches = self.match_all(x, batch["tokens"], text, *negatives)
    logits = self.caption_head(captions, self.qformer.embedding.logits)
    return Output(logits, {"scores": scores, "matches": matches})

  def read_media(self, batch: Batch) -> Float[Array, "B S E"]:
    """Features of the one image of every row, normed."""
    with rows_over_all():
      found = features(self.encoder, batch["media"]["image"])
    found = found[:, 0].reshape(len(found), -1, found.shape[-1])
    return constrain(self.features_norm(found), "batch")

  def contrast(
    self,
    x: Float[Array, "B S E"],
    tokens: Int[Array, "B L"],
    text: Bool[Array, "B L"],
  ) -> tuple[Float[Array, "B Q E"], Float[Array, "B E"], Float[Array, "B L D"]]:
    """Vectors of length 1 of images and texts, and captions' hidden states."""
    count, length = self.qformer.num_queries, tokens.shape[1]
    begin = self.begin_token
    begin = self.qformer.vocab_size - 1 if begin is None else begin
    at = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    hidden = self.qformer(
      x,
      text=jnp.concatenate([tokens, tokens.at[:, 0].set(begin)], axis=1),
      table=apart_and_captioning(count, text),
      positions=jnp.concatenate([at, at], axis=1),
    )
    images, texts, captions = jnp.split(hidden, [count, count + length], axis=1)
    return (
      unit(self.image_head(images)),
      unit(self.text_head(texts[:, 0])),
      captions,
    )

  def similarity(
    self, images: Float[Array, "I Q E"], texts: Float[Array, "J E"]
  ) -> Float[Array, "I J"]:
    """Of the query that is most like the text, over the temperature."""
    found = jnp.einsum(
      "IQE,JE->IJQ", images, texts, preferred_element_type=jnp.float32
    )
    return found.max(axis=-1) / self.temperature

  def match_all(
    self,
    x: Float[Array, "B S E"],
    tokens: Int[Array, "B L"],
    text: Bool[Array, "B L"],
    other_image: Int[Array, "B"],
    other_text: Int[Array, "B"],
  ) -> Float[Array, "C 2"]:
    """`match` of own pairs, other images to own texts, and the reverse."""
    images = jnp.concatenate([x, x[other_image], x])
    texts = jnp.concatenate([tokens, tokens, tokens[other_text]])
    real = jnp.concatenate([text, text, text[other_text]])
    return self.match(images, texts, real)

  def match(
    self,
    x: Float[Array, "B S E"],
    tokens: Int[Array, "B L"],
    text: Bool[Array, "B L"],
  ) -> Float[Array, "B 2"]:
    """Scores of not belonging together, and of belonging together."""
    return self.match_head(self.fused(x, tokens, text).mean(axis=1))

  def fused(
    self,
    x: Float[Array, "B S E"],
    tokens: Int[Array, "B L"],
    text: Bool[Array, "B L"],
  ) -> Float[Array, "B Q D"]:
    """Hidden states of queries that have read the text as well."""
    count = self.qformer.num_queries
    table = visible("together", count, text)
    return self.qformer(x, text=tokens, table=table)[:, :count]


class CaptionHead(nn.Module):
  """BERT's head: matrix, GELU, norm, scores by the embeddings, and a bias.

  Attributes:
    vocab_size: V.
    norm_eps: of the norm; the Q-Former's.
    std: of the matrix's first draw, see QFormer.
    dtype: of the computation.
  """

  vocab_size: int
  norm_eps: float = 1e-12
  std: float | None = None
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B L D"],
    scores: Callable[[Float[Array, "B L D"]], Float[Array, "B L V"]],
  ) -> Float[Array, "B L V"]:
    width = x.shape[-1]
    x = dense(
      width,
      width,
      ("embed", None),
      use_bias=True,
      std=self.std,
      dtype=self.dtype,
      name="transform",
    )(x)
    x = LayerNorm(self.norm_eps, name="norm")(ACTIVATIONS["gelu"](x))
    init = nn.with_logical_partitioning(initializers.zeros, ("vocab",))
    return scores(x) + self.param("bias", init, (self.vocab_size,))


def unit(x: Float[Array, "*B E"]) -> Float[Array, "*B E"]:
  """Vectors of length 1, in float32; one of zeros stays zeros."""
  x = x.astype(jnp.float32)
  square = jnp.square(x).sum(axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def apart_and_captioning(
  num_queries: int, text: Bool[Array, "B L"]
) -> Bool[Array, "B 1 X X"]:
  """Who sees whom among queries, text, and the same text as a caption.

  1 1 . . . .      two queries,
  1 1 . . . .
  . . 1 1 . .      two tokens apart,
  . . 1 1 . .
  1 1 . . 1 .      and the same behind the queries
  1 1 . . 1 1
  """
  length = text.shape[1]
  kind = jnp.repeat(
    jnp.arange(3),
    jnp.array([num_queries, length, length]),
    total_repeat_length=num_queries + 2 * length,
  )
  row, column = kind[:, None], kind[None, :]
  at = jnp.arange(len(kind))
  before = at[:, None] >= at[None, :]
  table = (row == column) & ((row < 2) | before) | (row == 2) & (column == 0)
  there = jnp.concatenate([text, text], axis=1)
  there = jnp.pad(there, ((0, 0), (num_queries, 0)), constant_values=True)
  return (table[None] & there[:, None, :])[:, None]


def draw_negatives(
  key: Array, scores: Float[Array, "B B"], never: Bool[Array, "B B"]
) -> tuple[Int[Array, "B"], Int[Array, "B"]]:
  """Another row's image for every text, and another's text for every image.

  Drawn by the softmax of the scores.

  Args:
    key: of the draw.
    scores: of images (rows) with texts.
    never: which are no negatives; a row that has no other draws among them.
  """
  scores = jnp.where(never, _NEVER, jax.lax.stop_gradient(scores))
  one, other = jax.random.split(key)
  images = jax.random.categorical(one, scores.T, axis=1)
  return images, jax.random.categorical(other, scores, axis=1)


def pairs(batch: Batch) -> Bool[Array, "B"]:
  """The rows that hold an image and a text."""
  image = batch["media"]["image"]["mask"][:, 0, 0]
  return image & (batch["segments"] > 0).any(axis=1)


def together(batch: Batch) -> Bool[Array, "B B"]:
  """Which images and texts belong together: those of one row or image."""
  ids = batch["media"]["image"].get("ids")
  return partners(
    jnp.arange(len(batch["tokens"])) if ids is None else ids[:, 0]
  )


def no_negatives(batch: Batch) -> Bool[Array, "B B"]:
  """Which images and texts show nothing wrong together, or nothing at all."""
  real = pairs(batch)
  return together(batch) | ~real[:, None] | ~real[None, :]


def loss(
  module: Blip2Stage1, params: Params, batch: Batch
) -> dict[str, tuple[Array, Array]]:
  """All three losses added, and each alone, as (sum, count)."""
  rngs = dropout_key(batch)
  return losses(module.apply({"params": params}, batch, rngs=rngs), batch)


def losses(output: Output, batch: Batch) -> dict[str, tuple[Array, Array]]:
  """Of what the module returned.

  "loss" is the mean of each added up, times the number of pairs: of a batch
  in parts it is the mean over parts, as it is over the original's processes.
  """
  mask = pairs(batch)
  scores, own = output.aux["scores"], together(batch)
  found = {
    "contrastive": halved(
      matching(scores, own, mask, label_smoothing=SMOOTHING),
      matching(scores.T, own, mask, label_smoothing=SMOOTHING),
    ),
    "matching": match_loss(output.aux["matches"], mask),
    "captioning": caption_loss(output.logits, batch, mask),
  }
  count = mask.sum().astype(jnp.float32)
  total = sum(x / jnp.maximum(n, 1) for x, n in found.values())
  return {"loss": (total * count, count), **found}


def halved(there, back):
  """Half the sum of two losses over the same rows."""
  return (there[0] + back[0]) / 2, there[1]


def match_loss(
  matches: Float[Array, "C 2"], mask: Bool[Array, "B"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Cross-entropy of "together" for own pairs and "not" for the others."""
  logits = matches.astype(jnp.float32).reshape(3, -1, 2)
  own = jnp.arange(3)[:, None] == 0
  logp = jax.nn.log_softmax(logits)
  losses = -jnp.where(own, logp[..., 1], logp[..., 0])
  return (losses * mask).sum(), 3 * mask.sum().astype(jnp.float32)


def caption_loss(
  logits: Float[Array, "B L V"], batch: Batch, mask: Bool[Array, "B"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Of every token after the first, from those before it."""
  real = (batch["segments"] > 0) & mask[:, None]
  return cross_entropy(
    logits[:, :-1],
    batch["tokens"][:, 1:],
    real[:, 1:].astype(jnp.float32),
    SMOOTHING,
  )


def monitor(trainable: Params) -> dict[str, Array]:
  """The learned temperature."""
  if "temperature" not in trainable:
    return {}
  return {"temperature": trainable["temperature"]}


def build(config: Mapping[str, Any]) -> Blip2Stage1:
  """The module that `config.model` describes.

  Args:
    config: `qformer` with the fields of QFormer, `encoder` with a `name` or
      None for features that batches bring, `dtype`, and the fields of
      Blip2Stage1.
  """
  config = dict(config)
  require(config, ("qformer",), "config.model")
  dtype = jnp.dtype(config.pop("dtype", "float32"))
  qformer = call(QFormer, config.pop("qformer"), dtype=dtype)
  if not qformer.vocab_size:
    raise ValueError("BLIP-2's first stage needs a Q-Former with a vocabulary.")
  encoder = config.pop("encoder", None)
  if encoder is not None:
    encoder = build_entry(ENCODERS, encoder, dtype=dtype)
  return call(
    Blip2Stage1, config, qformer=qformer, encoder=encoder, dtype=dtype
  )
