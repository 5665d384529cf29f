"""Paths, covering patterns, splitting and merging."""

import jax
import jax.numpy as jnp
import pytest

from mmjax import tree

PARAMS = {
  "encoder": {"kernel": 1, "bias": 2},
  "lm": {"layers": {"kernel": 3}, "head": {"table": 4}},
}
PATHS = ["encoder/kernel", "encoder/bias", "lm/layers/kernel", "lm/head/table"]


def test_paths_there_and_back():
  assert tree.paths(PARAMS) == PATHS
  assert tree.unflatten(tree.flatten(PARAMS)) == PARAMS


def test_the_first_rule_that_matches_a_whole_path_wins():
  rules = [("encoder/.*", "a"), (".*/kernel", "b"), (".*", "c")]
  assert tree.match(PARAMS, rules) == dict(zip(PATHS, "aabc"))


def test_a_part_of_a_path_is_no_match():
  with pytest.raises(ValueError, match="covers 2 parameter"):
    tree.match(PARAMS, [("lm/.*", 1), ("encoder", 2)])


def test_an_uncovered_path_is_named():
  with pytest.raises(ValueError, match="lm/head/table"):
    tree.match(PARAMS, [("encoder/.*", 1), ("lm/layers/.*", 1)])


@pytest.mark.parametrize(
  "rules",
  [
    [("encodr/.*", 1), (".*", 2)],
    [(".*", 2), ("encoder/.*", 1)],  # Hidden by an earlier one.
  ],
)
def test_an_idle_pattern_is_an_error(rules):
  with pytest.raises(ValueError, match="match no parameter"):
    tree.match(PARAMS, rules)


def test_split_and_merge():
  mask = dict(zip(PATHS, (True, False, False, True)))
  chosen, rest = tree.split(PARAMS, mask)
  assert chosen == {"encoder": {"kernel": 1}, "lm": {"head": {"table": 4}}}
  assert rest == {"encoder": {"bias": 2}, "lm": {"layers": {"kernel": 3}}}
  assert tree.merge(chosen, rest) == PARAMS


def test_an_empty_half():
  chosen, rest = tree.split(PARAMS, dict.fromkeys(PATHS, True))
  assert chosen == PARAMS and rest == {}
  assert tree.merge(chosen, rest) == PARAMS


def test_trees_that_share_a_leaf_do_not_merge():
  with pytest.raises(ValueError, match="lm/head/table"):
    tree.merge(PARAMS, {"lm": {"head": {"table": 5}}})


def test_count_of_arrays_and_of_shapes():
  params = {"a": jnp.zeros((2, 3)), "b": {"c": jnp.zeros(())}}
  assert tree.count(params) == 7
  assert tree.count(jax.eval_shape(lambda: params)) == 7


@pytest.mark.parametrize("rule", [("(", True), "x", (1, True), 3, ("a", 1, 2)])
def test_a_rule_that_is_none_is_named(rule):
  with pytest.raises(ValueError, match="is no pair of a pattern"):
    tree.match({"a": 1}, [rule])
