"""Names of NFNet's weights in timm's `dm_nfnet_*` models."""

from collections.abc import Sequence

from mmjax.convert.rules import Rule

_KERNEL = "O I h w -> h w I O"
_VECTOR = "O () () () -> O"
_CONVS = {
  "conv1": "narrow",
  "conv2": "spatial_0",
  "conv2b": "spatial_1",
  "conv3": "widen",
  "downsample.conv": "shortcut",
}
_GATES = {"fc1": "down", "fc2": "up"}


def nfnet(depths: Sequence[int]) -> list[Rule]:
  """Rules for a network of so many blocks a stage."""
  rules = [
    *_conv("final_conv", "last"),
    Rule("head.fc.weight", "classifier/kernel", "V D -> D V"),
    Rule("head.fc.bias", "classifier/bias"),
  ]
  for i in range(4):
    rules += _conv(f"stem.conv{i + 1}", f"stem_{i}")
  for i, depth in enumerate(depths):
    rules += _block(f"stages.{i}.0", f"stages_{i}/first")
    rest = tuple(range(1, depth))
    rules += _block(f"stages.{i}.{{layer}}", f"stages_{i}/rest", rest)
  return rules


def _block(
  name: str, path: str, numbers: tuple[int, ...] | None = None
) -> list[Rule]:
  rules = [Rule(f"{name}.skipinit_gain", f"{path}/skip_gain", numbers=numbers)]
  for theirs, ours in _CONVS.items():
    rules += _conv(f"{name}.{theirs}", f"{path}/{ours}", numbers)
  for theirs, ours in _GATES.items():
    gate, mine = f"{name}.attn_last.{theirs}", f"{path}/gate/{ours}"
    rules.append(
      Rule(f"{gate}.weight", f"{mine}/kernel", "F D () () -> D F", numbers)
    )
    rules.append(Rule(f"{gate}.bias", f"{mine}/bias", None, numbers))
  return rules


def _conv(
  name: str, path: str, numbers: tuple[int, ...] | None = None
) -> list[Rule]:
  return [
    Rule(f"{name}.weight", f"{path}/kernel", _KERNEL, numbers),
    Rule(f"{name}.gain", f"{path}/gain", _VECTOR, numbers),
    Rule(f"{name}.bias", f"{path}/bias", None, numbers),
  ]
