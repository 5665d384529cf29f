"""Names of BLIP-2 and InstructBLIP in Hugging Face's models and in LAVIS.

One encoder, EVA's, and one connector, of images or of video; our paths are
those of systems/x_instructblip.py. Hugging Face's names are the same in
transformers 4 and 5; those of a base without head, and of a module that has a
base of its own, are read as well.
"""

from mmjax.convert.families import eva, parts, qformer
from mmjax.convert.families.lms import LM_RULES, nested
from mmjax.convert.rules import Rule, prefixed

# The encoder's name among ours.
ENCODER = "eva"
_ENCODER = f"encoders_{ENCODER}/"


def hugging_face(
  kind: str,
  lm: str,
  tied: bool,
  num_layers: int,
  cross_every: int,
  *,
  instructed: bool,
  key_bias: bool,
) -> list[Rule]:
  """`Blip2ForConditionalGeneration` and InstructBLIP's two like it.

  Args:
    kind: of media.
    lm: family of the language model, a key of LM_RULES.
    tied: its head is its table of embeddings.
    num_layers, cross_every: of the Q-Former.
    instructed: the Q-Former reads text, as InstructBLIP's do.
    key_bias: the keys of the tower have a bias.
  """
  body = qformer.hugging_face(num_layers, cross_every, instructed=instructed)
  connector = [
    *parts.norm("vision_model.post_layernorm", "features_norm"),
    *prefixed(body, "qformer.", "qformer/"),
    *prefixed([qformer.queries()], path="qformer/"),
    *parts.matrix("language_projection", "project"),
  ]
  own = [
    *prefixed(eva.hugging_face(key_bias=key_bias), path=_ENCODER),
    *prefixed(connector, path=f"connectors_{kind}/"),
  ]
  language = prefixed(LM_RULES[lm](tied), path="lm/")
  return [
    *[parts.also(rule, f"model.{rule.name}") for rule in own],
    *[parts.also(nested(rule), *_headless(rule)) for rule in language],
  ]


def _headless(rule: Rule) -> list[str]:
  """The name in a model that was saved without the head, and without root."""
  bare = rule.name.removeprefix("model.")
  return [] if bare == rule.name else [f"language_model.{bare}"]


def lavis(
  kind: str, num_layers: int, cross_every: int, projection: str
) -> list[Rule]:
  """LAVIS' models, without the language model; files lack the tower mostly.

  Args:
    kind: of media.
    num_layers, cross_every: of the Q-Former.
    projection: a name of PROJECTIONS.
  """
  own = connector(num_layers, cross_every, projection=projection)
  return [
    *prefixed(eva.lavis(), path=_ENCODER),
    *prefixed(own, path=f"connectors_{kind}/"),
  ]


# The last matrix, by the language model that it leads to.
PROJECTIONS = {"llama": "llm_proj", "opt": "opt_proj"}


def connector(
  num_layers: int,
  cross_every: int = 2,
  *,
  root: str = "",
  norm: str = "ln_vision",
  projection: str = "llm_proj",
) -> list[Rule]:
  """A Q-Former with its norm and matrix, as LAVIS names them.

  Args:
    num_layers, cross_every: of the Q-Former.
    root: what all names but that of the norm begin with.
    norm: of the features.
    projection: to the language model.
  """
  body = qformer.lavis(num_layers, cross_every)
  return [
    *parts.norm(norm, "features_norm"),
    *prefixed(body, f"{root}Qformer.bert.", "qformer/"),
    *prefixed([qformer.queries(f"{root}query_tokens")], path="qformer/"),
    *parts.matrix(f"{root}{projection}", "project"),
  ]
