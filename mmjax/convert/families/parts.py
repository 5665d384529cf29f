"""Rules of parts that most PyTorch models name and lay out alike."""

import dataclasses

from mmjax.convert.rules import Rule


def norm(name: str, path: str) -> list[Rule]:
  """A LayerNorm."""
  return [
    Rule(f"{name}.weight", f"{path}/scale"),
    Rule(f"{name}.bias", f"{path}/bias"),
  ]


def matrix(name: str, path: str, dims: str = "F D -> D F") -> list[Rule]:
  """A Linear, or a convolution that `dims` makes one of."""
  return [
    Rule(f"{name}.weight", f"{path}/kernel", dims),
    Rule(f"{name}.bias", f"{path}/bias"),
  ]


def into_heads(name: str, path: str) -> list[Rule]:
  """A Linear that makes what each head reads."""
  return [
    Rule(f"{name}.weight", f"{path}/kernel", "(N H) D -> D N H"),
    Rule(f"{name}.bias", f"{path}/bias", "(N H) -> N H"),
  ]


def out_of_heads(name: str, path: str) -> list[Rule]:
  """A Linear over what all heads found."""
  return [
    Rule(f"{name}.weight", f"{path}/kernel", "D (N H) -> N H D"),
    Rule(f"{name}.bias", f"{path}/bias"),
  ]


def also(rule: Rule, *aliases: str) -> Rule:
  """The same rule, which knows the tensor by more names."""
  return dataclasses.replace(rule, aliases=(*rule.aliases, *aliases))
