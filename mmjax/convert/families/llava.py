"""Names of LLaVA's weights: Hugging Face's in three versions, the original's.

           A: file of 4.x             B: module of 5.x           C: file of 5.x
  tower    vision_tower.vision_model. model.vision_tower.        vision_tower.
  project  multi_modal_projector.     model.multi_modal_projec.  as in A
  LM       language_model.model.      model.language_model.      as in A
  head     language_model.lm_head.    lm_head.                   as in A

All three are read. What is written is A, which every version of transformers
reads; one of 4.x draws a new vision tower for the last without an error.
"""

import dataclasses
from collections.abc import Sequence

from mmjax.convert.families import parts
from mmjax.convert.families.clip import hugging_face as clip
from mmjax.convert.families.lms import LM_RULES, nested
from mmjax.convert.rules import Rule, prefixed

_MATRIX = "F D -> D F"
_PROJECTOR = "multi_modal_projector."
# What Hugging Face's names of a vision tower begin with; ours is written.
TOWERS = (
  "vision_tower.vision_model.",
  "vision_tower.",
  "model.vision_tower.vision_model.",
  "model.vision_tower.",
)
ORIGINAL_TOWER = "model.vision_tower.vision_tower.vision_model."
# Of the original's names, by family of the language model.
ROOTS = {"llama": "model.", "mpt": "transformer."}


def hugging_face(lm: str, tied: bool) -> list[Rule]:
  """`LlavaForConditionalGeneration`.

  Args:
    lm: family of the language model, a key of LM_RULES.
    tied: its head is its table of embeddings.
  """
  tower = [
    dataclasses.replace(
      rule,
      name=TOWERS[0] + rule.name,
      aliases=tuple(root + rule.name for root in TOWERS[1:]),
    )
    for rule in _tower("")
  ]
  return [
    *prefixed(tower, path="encoder/"),
    *[parts.also(r, f"model.{r.name}") for r in _projector("linear_{}", 2)],
    *[nested(rule) for rule in prefixed(LM_RULES[lm](tied), path="lm/")],
  ]


def original(lm: str, tied: bool, depth: int) -> list[Rule]:
  """`LlavaLlamaForCausalLM` and its kin, or a part of one.

  Args:
    lm: family of the language model, a key of ROOTS.
    tied: its head is its table of embeddings.
    depth: linear layers of the projector.
  """
  root = ROOTS[lm]
  return [
    *prefixed(_tower(original_tower(lm)), path="encoder/"),
    *_original_projector(f"{root}mm_projector", depth),
    *prefixed(LM_RULES[lm](tied), path="lm/"),
  ]


def original_tower(lm: str) -> str:
  return ORIGINAL_TOWER.replace("model.", ROOTS[lm], 1)


def _tower(root: str) -> Sequence[Rule]:
  """A CLIP without the head that scores pairs."""
  return [r for r in clip(root) if r.path != "projection/kernel"]


def _projector(name: str, depth: int) -> list[Rule]:
  rules = []
  for i in range(depth):
    theirs, ours = _PROJECTOR + name.format(i + 1), f"connector/linear_{i + 1}"
    rules += [
      Rule(f"{theirs}.weight", f"{ours}/kernel", _MATRIX),
      Rule(f"{theirs}.bias", f"{ours}/bias"),
    ]
  return rules


def _original_projector(name: str, depth: int) -> list[Rule]:
  """A bare layer, or a torch.nn.Sequential that counts activations too."""
  rules = []
  for i in range(depth):
    theirs = name if depth == 1 else f"{name}.{2 * i}"
    ours = f"connector/linear_{i + 1}"
    rules += [
      Rule(f"{theirs}.weight", f"{ours}/kernel", _MATRIX),
      Rule(f"{theirs}.bias", f"{ours}/bias"),
    ]
  return rules
