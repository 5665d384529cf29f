"""Names there, paths here: streams, stacks, aliases, and every misfit."""

import ml_dtypes
import numpy as np
import pytest

from mmjax import tree
from mmjax.convert.configs import LM_CONFIGS
from mmjax.convert.families import lms
from mmjax.convert.rules import (
  ConversionError,
  Rule,
  load,
  prefixed,
  save,
  to_jax,
  to_torch,
)

RULES = [
  Rule("embed.weight", "embedding/table", aliases=("old.embed.weight",)),
  Rule("layers.{layer}.q.weight", "layers/query/kernel", "(N H) D -> D N H"),
  Rule(
    "layers.{layer}.kv.weight",
    ("layers/key/kernel", "layers/value/kernel"),
    "(X N H) D -> X D N H",
  ),
  Rule("blocks.{layer}.gate", "blocks/gate", numbers=(1, 3)),
  Rule("absent.weight", "absent"),
]
SHAPES = {
  "embedding/table": (5, 4),
  "layers/query/kernel": (2, 4, 2, 3),
  "layers/key/kernel": (2, 4, 2, 3),
  "layers/value/kernel": (2, 4, 2, 3),
  "blocks/gate": (2, 1),
}


def weights(dtype=np.float32):
  random = np.random.RandomState(0)
  shapes = {"embed.weight": (5, 4)}
  for i in range(2):
    shapes[f"layers.{i}.q.weight"] = (6, 4)
    shapes[f"layers.{i}.kv.weight"] = (12, 4)
  shapes |= {"blocks.1.gate": (1,), "blocks.3.gate": (1,)}
  return {k: random.standard_normal(s).astype(dtype) for k, s in shapes.items()}


def like(dtype=np.float32):
  return tree.unflatten({k: np.zeros(s, dtype) for k, s in SHAPES.items()})


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_there_and_back(dtype):
  given = weights(dtype)
  params = load(given, RULES, like(dtype))
  flat = tree.flatten(params)
  assert {k: v.shape for k, v in flat.items()} == SHAPES
  for i in range(2):
    kernel = given[f"layers.{i}.q.weight"].reshape(2, 3, 4).transpose(2, 0, 1)
    np.testing.assert_array_equal(flat["layers/query/kernel"][i], kernel)
    both = given[f"layers.{i}.kv.weight"].reshape(2, 2, 3, 4)
    value = both[1].transpose(2, 0, 1)
    np.testing.assert_array_equal(flat["layers/value/kernel"][i], value)
  np.testing.assert_array_equal(flat["blocks/gate"][1], given["blocks.3.gate"])
  back = save(params, RULES)
  assert back.keys() == given.keys()
  for key, value in given.items():
    assert back[key].dtype == value.dtype
    assert back[key].tobytes() == value.tobytes(), key


def test_an_alias_serves_and_a_second_copy_is_left():
  given = weights()
  given["old.embed.weight"] = given.pop("embed.weight")
  params = load(given, RULES, like())
  np.testing.assert_array_equal(
    params["embedding"]["table"], given["old.embed.weight"]
  )
  given["embed.weight"] = given["old.embed.weight"]
  load(given, RULES, like())
  assert "old.embed.weight" not in save(params, RULES)


def test_a_repeated_tensor_goes_back_under_all_its_names():
  names = ("a.table", "b.table", "c.table")
  rule = Rule(names[0], "table", "D V -> V D", aliases=names[1:], repeated=True)
  value = np.arange(6.0).reshape(2, 3)
  given = dict.fromkeys(names, value)
  like = {"table": np.zeros((3, 2))}
  back = save(load(given, [rule], like), [rule])
  assert back.keys() == given.keys()
  assert all(np.array_equal(back[name], value) for name in names)
  with pytest.raises(ConversionError, match="a.table and c.table"):
    load(given | {"c.table": value + 1}, [rule], like)


def test_joined_tables():
  rule = Rule("table", ("old", "new"), joined=True)
  table = np.arange(10.0).reshape(5, 2)
  shapes = {"old": np.zeros((3, 2)), "new": np.zeros((2, 2))}
  params = load({"table": table}, [rule], shapes)
  np.testing.assert_array_equal(params["old"], table[:3])
  np.testing.assert_array_equal(params["new"], table[3:])
  np.testing.assert_array_equal(save(params, [rule])["table"], table)
  with pytest.raises(ConversionError, match="together"):
    load({"table": table[:4]}, [rule], shapes)


def thirds():
  return Rule("{layer}.qkv", ("query", None, "value"), "(X N H) -> X N H"), {
    part: np.zeros((2, 2, 3), np.float32) for part in ("query", "value")
  }


def test_a_part_that_is_zero_there_is_nowhere_here():
  rule, like = thirds()
  rules = prefixed([rule], "a.", "b/")
  given = {f"a.{i}.qkv": np.arange(18.0, dtype=np.float32) for i in range(2)}
  for value in given.values():
    value[6:12] = 0
  params = load(given, rules, {"b": like})
  np.testing.assert_array_equal(
    params["b"]["value"][1], [[12, 13, 14], [15, 16, 17]]
  )
  back = save(params, rules)
  assert back.keys() == given.keys()
  for key, value in given.items():
    np.testing.assert_array_equal(back[key], value)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [-2.5, np.nan])
def test_numbers_in_a_part_that_is_zero(value, dtype):
  rule, like = thirds()
  given = {f"{i}.qkv": np.zeros(18, dtype) for i in range(2)}
  given["1.qkv"][7] = value
  with pytest.raises(ConversionError, match=r"1.qkv has numbers up to (2|nan)"):
    load(given, [rule], like)


def test_a_model_within_a_model():
  rules = prefixed(RULES, "lm.", "language/")
  given = {f"lm.{k}": v for k, v in weights().items()}
  params = load(given, rules, {"language": like()})
  assert save(params, rules).keys() == given.keys()


def test_nothing_is_read_before_all_fits():
  class Lazy(dict):
    def __getitem__(self, name):
      raise AssertionError(f"{name} was read")

  given = Lazy(weights())
  del given["blocks.1.gate"]
  with pytest.raises(ConversionError, match="blocks/gate"):
    list(to_jax(given, RULES, SHAPES))


def test_every_misfit_is_listed_at_once():
  given = weights()
  del given["layers.1.q.weight"], given["embed.weight"]
  given["strange"] = given["layers.7.q.weight"] = np.zeros(1)
  with pytest.raises(ConversionError) as error:
    list(to_jax(given, RULES, SHAPES | {"lost": (1,)}))
  text = str(error.value)
  for part in (
    "1 names that no rule of this model knows:\n  strange",
    "layers/query/kernel <- layers.1.q.weight",
    "embedding/table <- embed.weight",
    "lost (no rule)",
    "layers.7.q.weight",
  ):
    assert part in text, part


@pytest.mark.parametrize("key", ["blocks.2.gate", "blocks.x.gate", "embed"])
def test_near_names_do_not_pass(key):
  with pytest.raises(ConversionError, match="no rule"):
    load(weights() | {key: np.zeros(1)}, RULES, like())


def test_what_is_ignored_is_left():
  given = weights() | {"rotary.inv_freq": np.zeros(3)}
  load(given, RULES, like(), ignore=lambda key: key.endswith("inv_freq"))


def test_a_wrong_shape_names_both_sides():
  given = weights()
  given["layers.1.q.weight"] = np.zeros((6, 5), np.float32)
  with pytest.raises(ConversionError) as error:
    load(given, RULES, like())
  assert "layers.1.q.weight (6, 5)" in str(error.value)
  assert "layers/query/kernel" in str(error.value)


def test_a_stack_of_no_blocks_wants_no_names():
  none = np.zeros((0, 4))
  blocks = Rule("gates.{layer}", "gates", numbers=())
  out = load(weights(), [*RULES, blocks], like() | {"gates": none})
  assert out["gates"].shape == none.shape


def test_a_language_model_is_in_every_table():
  """Whoever is in one only would fail inside an OpenFlamingo."""
  names = lms.LM_RULES.keys()
  assert names == lms.LAYER_ROOTS.keys() == lms.EMBEDDINGS.keys()
  assert names == LM_CONFIGS.keys()


def test_a_path_without_a_rule_is_not_lost():
  with pytest.raises(ConversionError, match="new/kernel"):
    list(to_torch({"new/kernel": np.zeros(1)}, RULES))
