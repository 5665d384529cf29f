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
from mmjax.data.document import Document, Media, Text
from mmjax.losses.token import cross_entropy
from mmjax.systems.x_instructblip import XInstructBlip, build
from mmjax.text.prompts.cued import Cued, Format
from tests.golden.file import Golden
from tests.golden.options import NEEDED, merged

KINDS = names.MODALITIES
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
CALL = dict(
  mode=NEEDED,
  modalities=NEEDED,
  batch=NEEDED,
  questions=NEEDED,
  features=None,
  cues=True,
  prefix="",
  postfix="",
  clean=False,
  enumerate_inputs=False,
  add_space=False,
  remove_start=False,
  joint=False,
)
START, SPACE = 2, 3


class Pieces:
  """A tokenizer whose texts are names of a file's ids."""

  bos, eos = None, START

  def __init__(self, ids, pad):
    self._ids, self.pad = ids, pad

  def id(self, token):
    assert token == "</s>"
    return START

  def encode(self, text):
    if text == " ":
      return [SPACE]
    if text.strip().startswith("("):
      text = f"enumeration_{text.strip()[1]}"
    return [int(i) for name in text.split("|") for i in self._ids[name]]


class Reader(Pieces):
  """The same for what the Q-Former reads, without its first and last."""

  bos, eos = 1, 2

  def encode(self, text):
    return [int(i) for i in self._ids[text]][1:-1]


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


@dataclasses.dataclass
class Case:
  """One call of the file: what it was made with, and its batch.

  Attributes:
    golden, name: the file and the call.
    c: its options.
    kinds: ours, in the order of the call.
  """

  golden: Golden
  name: str
  c: dict

  @property
  def kinds(self):
    return [KINDS[m] for m in self.c["modalities"]]

  @functools.cached_property
  def features(self):
    """[B units 1 P E] of every kind."""
    inputs, found = self.golden.inputs[""], {}
    for modality in self.c["modalities"]:
      x = inputs[f"features_{self.c['features'] or modality}"]
      x = x[:, None] if modality == "pc" else x
      x = x[:, None] if x.ndim == 3 else x
      found[KINDS[modality]] = jnp.asarray(x[: self.c["batch"]])[:, :, None]
    return found

  @functools.cached_property
  def prompt(self) -> Cued:
    c, inputs = self.c, self.golden.inputs
    constructor = self.golden.config["constructor"]
    cues = {ours: f"cue_{theirs}" for theirs, ours in KINDS.items()}
    starts = "first" if c["clean"] else "every"
    starts = "first_and_question" if c["remove_start"] else starts
    pieces = Pieces(inputs["ids"], constructor["llama"]["pad_token_id"])
    if "qformer_ids" in inputs:
      pieces.reader = Reader(inputs["qformer_ids"], 0)
    return Cued(
      pieces,
      Format(
        cues=cues if c["cues"] else {},
        prefix="prefix" if c["prefix"] else "",
        postfix="|postfix" if c["postfix"] else "",
        starts=starts,
        numbered=c["enumerate_inputs"],
        space=" " if c["add_space"] else "",
        joint=self.kinds if c["joint"] else (),
      ),
      media=dict.fromkeys(self.kinds, 1),
      units={k: x.shape[1] for k, x in self.features.items()},
      media_tokens=constructor["queries"],
      reader_length=128 if "qformer_ids" in inputs else 0,
    )

  def document(self, question: int, answer: int | None = None) -> Document:
    media = [Media(kind, None) for kind in self.kinds]
    text = [Text(f"question{question}")]
    if answer is not None:
      text.append(Text(f"answer{answer}", target=True))
    return Document((*media, *text), id=self.name)

  def batch(self, rows):
    """Of (which example, written) pairs, padded on the right."""
    length = max(len(w.tokens) for _, w in rows)

    def padded(name, of):
      out = np.zeros((len(rows), length), of.dtype)
      for i, (_, w) in enumerate(rows):
        out[i, : len(w.tokens)] = name(w)
      return jnp.asarray(out)

    ints = np.zeros(0, np.int32)
    batch = {
      "tokens": padded(lambda w: w.tokens, ints),
      "weights": padded(lambda w: w.weights, np.zeros(0, np.float32)),
      "segments": padded(lambda w: np.ones(len(w.tokens)), ints),
      "positions": padded(lambda w: np.arange(len(w.tokens)), ints),
      "media": {},
    }
    example = np.array([i for i, _ in rows])
    for kind, x in self.features.items():
      batch["media"][kind] = {
        "features": x[example],
        "mask": jnp.ones((len(rows), x.shape[1], 1), bool),
        "index": padded(lambda w: w.of_kind(kind, self.kinds)[1], ints),
      }
      if self.prompt.reader_length:
        text = jnp.asarray(_texts(rows, kind, self.kinds))
        batch["media"][kind]["text"] = text
    return batch


def _texts(rows, kind, kinds):
  found = [[w.texts[m] for m in w.of_kind(kind, kinds)[0]] for _, w in rows]
  length = max(len(t) for row in found for t in row)
  return np.array(
    [[np.pad(t, (0, length - len(t))) for t in row] for row in found]
  )


def training(case: Case, run, expected):
  """What enters the language model, and its loss."""
  rows = [
    (i, case.prompt.write(case.document(q, q)))
    for i, q in enumerate(case.c["questions"])
  ]
  batch = case.batch(rows)
  x, logits = run(batch)
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


def layout(case: Case, batch, x, expected):
  """Ours where the original has tokens; where it has padding, as it has it."""
  index = sum(np.asarray(m["index"]) for m in batch["media"].values())
  ids = np.where(index > 0, -1, batch["tokens"])
  given = expected["attention_mask"]
  pad = np.full_like(given, case.prompt.tokenizer.pad)
  found = {
    "layout": placed(batch, ids, expected, pad),
    "attention_mask": placed(batch, np.ones_like(ids), expected, 0 * given),
    "inputs_embeds": placed(batch, x, expected, expected["inputs_embeds"]),
    "position_ids": placed(
      batch, batch["positions"], expected, np.ones_like(given)
    ),
  }
  return {k: v for k, v in found.items() if k in expected}


def placed(batch, ours, expected, padding):
  """Our tokens at the original's places, which pads between them as well."""
  real = np.asarray(batch["segments"]) > 0
  there = expected["attention_mask"] > 0
  if not np.array_equal(real.sum(axis=1), there.sum(axis=1)):
    raise ValueError(
      f"Ours has {real.sum(axis=1)} tokens, theirs {there.sum(axis=1)}."
    )
  found = np.array(padding)
  found[there] = np.asarray(ours)[real]
  return found


def asking(case: Case, run, expected):
  rows = [
    (i, case.prompt.query(case.document(q)))
    for i, q in enumerate(case.c["questions"])
  ]
  batch = case.batch(rows)
  x, logits = run(batch)
  last = np.asarray(batch["segments"]).sum(axis=1) - 1
  return layout(case, batch, x, expected) | {
    "next_token_logits": np.asarray(logits)[np.arange(len(last)), last]
  }


def ranking(case: Case, run, expected):
  """Every answer of the file as a candidate of every question."""
  ids = case.golden.inputs["ids"]
  answers = sorted(int(k[6:]) for k in ids if k.startswith("answer"))
  rows = [
    (i, case.prompt.write(case.document(q, a)))
    for i, q in enumerate(case.c["questions"])
    for a in answers
  ]
  rows = [(i, without_end(w)) for i, w in rows]
  batch = case.batch(rows)
  x, logits = run(batch)
  logp = jax.nn.log_softmax(logits[:, :-1])
  chosen = jnp.take_along_axis(logp, batch["tokens"][:, 1:, None], -1)[..., 0]
  sums = (chosen * batch["weights"][:, 1:]).sum(1).reshape(-1, len(answers))
  length = expected["labels"].shape[1]
  return layout(case, batch, x, expected) | {
    "labels": labels(batch, expected),
    "log_probability_sum": sums,
    "mean_as_released": sums / (length - 1),
  }


def without_end(written):
  return dataclasses.replace(
    written,
    tokens=written.tokens[:-1],
    weights=written.weights[:-1],
    index=written.index[:-1],
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

  @jax.jit
  def run(batch):
    def both(module, batch):
      return module.inputs(batch), module(batch).logits

    return module.apply({"params": params}, batch, method=both)

  yield from pieces(golden, module, params)
  for name, options in golden.config["calls"].items():
    case = Case(golden, name, merged(options, CALL))
    yield name, MODES[case.c["mode"]](case, run, golden.outputs[name])


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
