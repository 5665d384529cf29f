"""Names of BLIP-2's weights in LAVIS: the file of the first stage."""

from mmjax.convert.families import parts, qformer
from mmjax.convert.rules import Rule, prefixed


def stage1(num_layers: int, cross_every: int = 2) -> list[Rule]:
  """`Blip2Qformer`, without its image encoder."""
  return [
    *prefixed(
      qformer.lavis(num_layers, cross_every), "Qformer.bert.", "qformer/"
    ),
    *prefixed(caption_head(), "Qformer.cls.predictions.", "caption_head/"),
    *prefixed([qformer.queries()], path="qformer/"),
    *parts.norm("ln_vision", "features_norm"),
    *parts.matrix("vision_proj", "image_head"),
    *parts.matrix("text_proj", "text_head"),
    *parts.matrix("itm_head", "match_head"),
    Rule("temp", "temperature"),
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
