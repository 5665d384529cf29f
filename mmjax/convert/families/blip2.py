"""Names of BLIP-2's first stage in LAVIS' file, and of Hugging Face's."""

import dataclasses
from collections.abc import Collection

from mmjax.convert.families import eva, parts, qformer
from mmjax.convert.rules import Rule, prefixed

_CAPTION = "Qformer.cls.predictions."
_WORDS = "Qformer.bert.embeddings.word_embeddings.weight"
# Second names of a tensor, which torch saves as well as the first.
COPIES = {
  f"{_CAPTION}decoder.weight": _WORDS,
  f"{_CAPTION}decoder.bias": f"{_CAPTION}bias",
}


def stage1(
  num_layers: int, cross_every: int = 2, copies: Collection[str] = ()
) -> list[Rule]:
  """`Blip2Qformer`, without its image encoder.

  Args:
    num_layers, cross_every: of the Q-Former.
    copies: those of COPIES that a file has, and gets back.
  """
  rules = [
    *prefixed(
      qformer.lavis(num_layers, cross_every), "Qformer.bert.", "qformer/"
    ),
    *prefixed(caption_head(), _CAPTION, "caption_head/"),
    *prefixed([qformer.queries()], path="qformer/"),
    *parts.norm("ln_vision", "features_norm"),
    *parts.matrix("vision_proj", "image_head"),
    *parts.matrix("text_proj", "text_head"),
    *parts.matrix("itm_head", "match_head"),
    Rule("temp", "temperature"),
  ]
  twice = {COPIES[name]: name for name in copies}
  return [
    dataclasses.replace(rule, aliases=(twice[rule.name],), repeated=True)
    if rule.name in twice
    else rule
    for rule in rules
  ]


def retrieval(
  num_layers: int, cross_every: int = 2, *, key_bias: bool = False
) -> list[Rule]:
  """`Blip2ForImageTextRetrieval`, with its tower.

  Args:
    num_layers, cross_every: of the Q-Former.
    key_bias: the keys of the tower have a bias.
  """
  body = qformer.hugging_face(num_layers, cross_every, instructed=False)
  return [
    *prefixed(eva.hugging_face(key_bias=key_bias), path="encoder/"),
    *parts.norm("vision_model.post_layernorm", "features_norm"),
    *prefixed(body, "qformer.", "qformer/"),
    *prefixed(qformer.blip2_embeddings(), path="qformer/"),
    *prefixed([qformer.queries()], path="qformer/"),
    *parts.matrix("vision_projection", "image_head"),
    *parts.matrix("text_projection", "text_head"),
    *parts.matrix("itm_head", "match_head"),
  ]


def caption_head() -> list[Rule]:
  """BERT's `cls.predictions`, whose matrix is the table of embeddings."""
  return [
    *parts.matrix("transform.dense", "transform"),
    *parts.norm("transform.LayerNorm", "norm"),
    Rule("bias", "bias", aliases=("decoder.bias",)),
  ]


def tied(name: str) -> bool:
  """Whether it is a second name of the embeddings, or a buffer."""
  return (
    name.endswith("cls.predictions.decoder.weight")
    or qformer.BUFFERS.fullmatch(name) is not None
  )
