"""Names of Whisper's encoder in Hugging Face's files and in CTranslate2's."""

from mmjax.convert.families import parts
from mmjax.convert.rules import Rule, prefixed

_ATTENTION = "layers/attention"
_CONV = "E C L -> L C E"
_PARTS = ("query", "key", "value")


def hugging_face(root: str = "model.encoder.") -> list[Rule]:
  """Names such as `model.encoder.layers.0.self_attn.q_proj.weight`."""
  layer, attention = "layers.{layer}", "layers.{layer}.self_attn"
  rules = [
    *parts.matrix("conv1", "conv1", _CONV),
    *parts.matrix("conv2", "conv2", _CONV),
    Rule("embed_positions.weight", "position_table"),
    *parts.norm("layer_norm", "norm"),
    *parts.norm(f"{layer}.self_attn_layer_norm", "layers/attention_norm"),
    *parts.norm(f"{layer}.final_layer_norm", "layers/mlp_norm"),
    *parts.matrix(f"{layer}.fc1", "layers/mlp/up"),
    *parts.matrix(f"{layer}.fc2", "layers/mlp/down"),
    *parts.out_of_heads(f"{attention}.out_proj", f"{_ATTENTION}/out"),
  ]
  for theirs, ours in zip("qkv", _PARTS):
    # Keys have no bias there either.
    rules += parts.into_heads(
      f"{attention}.{theirs}_proj", f"{_ATTENTION}/{ours}"
    )[: 1 if ours == "key" else 2]
  return prefixed(rules, name=root)


def ctranslate2() -> list[Rule]:
  """Names such as `encoder/layer_0/self_attention/linear_0/weight`.

  Queries, keys and values are one matrix, with zeros for the keys' bias.
  """
  layer = "layer_{layer}"
  attention, mlp = f"{layer}/self_attention", f"{layer}/ffn"
  kernels = tuple(f"{_ATTENTION}/{part}/kernel" for part in _PARTS)
  biases = tuple(
    None if part == "key" else f"{_ATTENTION}/{part}/bias" for part in _PARTS
  )
  out, first = f"{attention}/linear_1", f"{attention}/linear_0"
  rules = [
    *_matrix("conv1", "conv1", _CONV),
    *_matrix("conv2", "conv2", _CONV),
    Rule("position_encodings/encodings", "position_table"),
    *_norm("layer_norm", "norm"),
    *_norm(f"{attention}/layer_norm", "layers/attention_norm"),
    *_norm(f"{mlp}/layer_norm", "layers/mlp_norm"),
    *_matrix(f"{mlp}/linear_0", "layers/mlp/up"),
    *_matrix(f"{mlp}/linear_1", "layers/mlp/down"),
    Rule(f"{first}/weight", kernels, "(X N H) D -> X D N H"),
    Rule(f"{first}/bias", biases, "(X N H) -> X N H"),
    Rule(f"{out}/weight", f"{_ATTENTION}/out/kernel", "D (N H) -> N H D"),
    Rule(f"{out}/bias", f"{_ATTENTION}/out/bias"),
  ]
  return prefixed(rules, name="encoder/")


def _matrix(name: str, path: str, dims: str = "F D -> D F") -> list[Rule]:
  return [
    Rule(f"{name}/weight", f"{path}/kernel", dims),
    Rule(f"{name}/bias", f"{path}/bias"),
  ]


def _norm(name: str, path: str) -> list[Rule]:
  return [
    Rule(f"{name}/gamma", f"{path}/scale"),
    Rule(f"{name}/beta", f"{path}/bias"),
  ]
