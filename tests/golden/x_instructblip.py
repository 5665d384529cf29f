"""Golden component xinstructblip: features of media to what the LM reads."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.convert.families import qformer as qformer_names
from mmjax.convert.families import x_instructblip as names
from mmjax.convert.rules import load
from mmjax.generation.score import score_answers
from mmjax.losses.token import cross_entropy
from mmjax.systems.x_instructblip import XInstructBlip, build
from mmjax.text.prompts.base import Written
from mmjax.typing import Params
from tests.golden.cued_call import CALL, KINDS, Case, layout, placed
from tests.golden.file import Golden
from tests.golden.options import NEEDED, merged

LLAMA = dict(
  vocab_size=NEEDED,
  hidden_size=NEEDED,
  intermediate_size=NEEDED,
  layers=NEEDED,
  heads=NEEDED,
  rms_norm_eps=1e-6,
  rope_base=10000,
  pad_token_id=NEEDED,
)
QFORMER = dict(
  hidden_size=NEEDED,
  layers=NEEDED,
  heads=NEEDED,
  intermediate_size=NEEDED,
  vocab_size=NEEDED,
  max_position_embeddings=512,
  cross_attention_freq=2,
  layer_norm_eps=1e-12,
)


def connector_config(golden, modality, width):
  c = golden.config["constructor"]
  queries, kind = c["queries"], c["connector"]
  common = dict(
    num_queries=queries, features_width=c["encoder_widths"][modality]
  )
  if not isinstance(kind, dict):
    name, inner = "pooled_projection", _inner(golden)
    return common | dict(name=name, width=width, inner=inner)
  q = merged(kind["qformer"], QFORMER)
  reader = common | dict(
    width=q["hidden_size"],
    num_layers=q["layers"],
    num_heads=q["heads"],
    hidden=q["intermediate_size"],
    vocab_size=q["vocab_size"],
    max_positions=q["max_position_embeddings"],
    cross_every=q["cross_attention_freq"],
    norm_eps=q["layer_norm_eps"],
  )
  return dict(name="qformer", width=width, qformer=reader)


def _inner(golden) -> int:
  name = next(k for k in golden.weights if k.endswith("_llm_proj.weight"))
  return golden.weights[name].shape[1]


def make(golden: Golden) -> XInstructBlip:
  c = golden.config["constructor"]
  llama = merged(c["llama"], LLAMA)
  lm = dict(
    name="llama",
    vocab_size=llama["vocab_size"],
    width=llama["hidden_size"],
    num_layers=llama["layers"],
    num_heads=llama["heads"],
    head_dim=llama["hidden_size"] // llama["heads"],
    hidden=llama["intermediate_size"],
    norm_eps=llama["rms_norm_eps"],
    rope_base=float(llama["rope_base"]),
  )
  media = {
    KINDS[m]: dict(connector=connector_config(golden, m, lm["width"]))
    for m in c["encoder_widths"]
  }
  return build(dict(lm=lm, media=media))


@dataclasses.dataclass(frozen=True)
class Ours:
  """Our module with a file's weights."""

  module: XInstructBlip
  params: Params

  def __call__(self, batch):
    """What enters the language model, and its logits."""
    return _run(self.module, self.params, batch)

  def scores(self, batch, answers: list[list[int]]):
    """[B A]: how likely each answer is after each question."""
    lengths = np.array([len(ids) for ids in answers])
    table = [np.pad(ids, (0, lengths.max() - len(ids))) for ids in answers]
    return score_answers(
      self.module, self.params, batch, np.array(table), lengths
    )


@functools.partial(jax.jit, static_argnums=0)
def _run(module, params, batch):
  def both(module, batch):
    return module.inputs(batch), module(batch).logits

  return module.apply({"params": params}, batch, method=both)


def training(case: Case, ours, expected):
  """What enters the language model, and its loss."""
  rows = [
    (i, case.prompt.write(case.document(q, q)))
    for i, q in enumerate(case.c["questions"])
  ]
  batch = case.batch(rows)
  x, logits = ours(batch)
  outputs = layout(case, batch, x, expected)
  tokens, weights = batch["tokens"], batch["weights"]
  total, count = cross_entropy(logits[:, :-1], tokens[:, 1:], weights[:, 1:])
  return outputs | {
    "labels": labels(batch, expected),
    "logits": placed(batch, logits, expected, expected["logits"]),
    "loss": total / count,
  }


def labels(batch, expected):
  learned = np.asarray(batch["weights"]) > 0
  ours = np.where(learned, batch["tokens"], -100)
  return placed(batch, ours, expected, np.full_like(expected["labels"], -100))


def asking(case: Case, ours, expected):
  rows = [
    (i, case.prompt.query(case.document(q)))
    for i, q in enumerate(case.c["questions"])
  ]
  batch = case.batch(rows)
  x, logits = ours(batch)
  last = np.asarray(batch["segments"]).sum(axis=1) - 1
  return layout(case, batch, x, expected) | {
    "next_token_logits": np.asarray(logits)[np.arange(len(last)), last]
  }


def ranking(case: Case, ours, expected):
  """Every answer of the file as a candidate of every question."""
  names = [k for k in case.golden.inputs["ids"] if k.startswith("answer")]
  answers = [
    case.prompt.answer(k) for k in sorted(names, key=lambda k: int(k[6:]))
  ]
  asked = [
    (i, case.prompt.query(case.document(q)))
    for i, q in enumerate(case.c["questions"])
  ]
  batch = case.batch([(i, answered(w, a)) for i, w in asked for a in answers])
  x, _ = ours(batch)
  sums = ours.scores(case.batch(asked), answers)
  length = expected["labels"].shape[1]
  return layout(case, batch, x, expected) | {
    "labels": labels(batch, expected),
    "log_probability_sum": sums,
    "mean_as_released": sums / (length - 1),
  }


def answered(asked: Written, answer: list[int]) -> Written:
  """A question with an answer, without an end as it is ranked."""
  ids, more = np.asarray(answer, np.int32), (0, len(answer))
  return dataclasses.replace(
    asked,
    tokens=np.concatenate([asked.tokens, ids]),
    weights=np.pad(asked.weights, more, constant_values=1),
    index=np.pad(asked.index, more),
  )


MODES = {"train": training, "generate": asking, "rank": ranking}


def pieces(golden, module, params):
  """A connector's norm, tokens, and tokens for the language model."""
  for call in golden.outputs:
    if not call.startswith("piece_"):
      continue
    modality = call.removeprefix("piece_")
    c = merged(
      dict(mode="", modalities=[modality], batch=99, questions=[0]), CALL
    )
    case, kind = Case(golden, call, c), KINDS[modality]
    x = case.features[kind]
    text = instruction(golden, *x.shape[:2])
    connector = module.connectors[kind]
    own = {"params": params[f"connectors_{kind}"]}

    def run(connector, x, text):
      return connector.features_norm(x), connector.read(x, text)

    outputs = {"llm_tokens": connector.apply(own, x, None, text)}
    normed, queries = connector.apply(own, x, text, method=run)
    shape = golden.outputs[call]["normed"].shape
    outputs["normed"] = np.asarray(normed).reshape(shape)
    outputs["connector"] = queries
    shape = golden.outputs[call]["llm_tokens"].shape
    outputs["llm_tokens"] = np.asarray(outputs["llm_tokens"]).reshape(shape)
    yield call, outputs


def instruction(golden, batch: int, units: int):
  """Question number i for row i, again for every unit; None without."""
  ids = golden.inputs.get("qformer_ids")
  if ids is None:
    return None
  texts = [ids[f"question{i}"] for i in range(batch)]
  length = max(map(len, texts))
  text = np.array([np.pad(t, (0, length - len(t))) for t in texts])
  return jnp.asarray(np.repeat(text[:, None], units, axis=1))


def check(golden: Golden):
  """Yields (call, {output name: array})."""
  module = make(golden)
  c = golden.config["constructor"]
  q = c["connector"]["qformer"] if isinstance(c["connector"], dict) else {}
  depth, every = q.get("layers"), q.get("cross_attention_freq", 2)
  table = names.whole(c["encoder_widths"], depth, every)
  params = load(
    golden.weights,
    table,
    shapes(golden, module),
    ignore=lambda key: bool(qformer_names.BUFFERS.fullmatch(key)),
  )

  yield from pieces(golden, module, params)
  ours = Ours(module, params)
  for name, options in golden.config["calls"].items():
    case = Case(golden, name, merged(options, CALL))
    yield name, MODES[case.c["mode"]](case, ours, golden.outputs[name])


def shapes(golden, module):
  """Of all parameters, from a batch that has every kind."""
  widths = golden.config["constructor"]["encoder_widths"]
  one = jnp.ones((1, 1), jnp.int32)
  media = {
    KINDS[m]: {
      "features": jnp.zeros((1, 1, 1, 1, width)),
      "mask": jnp.ones((1, 1, 1), bool),
      "index": jnp.zeros((1, 1), jnp.int32),
    }
    for m, width in widths.items()
  }
  batch = dict(tokens=one, segments=one, positions=0 * one, media=media)
  made = jax.eval_shape(lambda: module.init(jax.random.key(0), batch))
  return nn.unbox(made)["params"]
