"""Names of X-InstructBLIP's weights in LAVIS.

A released file holds the connector of one modality; `pc` there is points here.
Encoders and the language model come from files of their own.
"""

from collections.abc import Iterable

from mmjax.convert.families import instructblip, parts
from mmjax.convert.families.lms import LM_RULES
from mmjax.convert.rules import Rule, prefixed

# Theirs to ours.
MODALITIES = {
  "image": "image",
  "video": "video",
  "audio": "audio",
  "pc": "points",
}


def connector(
  modality: str, num_layers: int, cross_every: int = 2
) -> list[Rule]:
  """An instruction-aware Q-Former with its norm and matrix."""
  return instructblip.connector(
    num_layers, cross_every, root=f"{modality}_", norm=f"{modality}_ln"
  )


def pooled_projection(modality: str) -> list[Rule]:
  """The linear projection, with its norm."""
  name = f"{modality}_projection"
  return [
    *parts.norm(f"{modality}_ln", "features_norm"),
    Rule(f"{name}.weight", "queries/kernel", "(Q F) D -> D Q F"),
    Rule(f"{name}.bias", "queries/bias", "(Q F) -> Q F"),
    *parts.matrix(f"{modality}_llm_proj", "project"),
  ]


def whole(
  modalities: Iterable[str],
  num_layers: int | None,
  cross_every: int = 2,
) -> list[Rule]:
  """Several connectors and the language model, as the live module names them.

  Args:
    modalities: keys of MODALITIES.
    num_layers: of the Q-Formers; None is linear projections.
    cross_every: of the Q-Formers.
  """
  rules = prefixed(LM_RULES["llama"](False), "llm_model.", "lm/")
  for modality in modalities:
    if num_layers is None:
      own = pooled_projection(modality)
    else:
      own = connector(modality, num_layers, cross_every)
    rules += prefixed(own, path=f"connectors_{MODALITIES[modality]}/")
  return rules
