"""Golden component qformer: LAVIS' Q-Former and BLIP-2's first stage."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.config import lookup
from mmjax.connectors.qformer import QFormer, visible
from mmjax.convert.families import blip2
from mmjax.convert.families import qformer as rules
from mmjax.convert.rules import load, prefixed, save
from mmjax.losses.token import cross_entropy
from mmjax.systems.blip2 import (
  SMOOTHING,
  Blip2Stage1,
  CaptionHead,
  losses,
  unit,
)
from tests.golden.file import Golden
from tests.golden.options import NEEDED, filled, merged

BODY = dict(
  vocab_size=NEEDED,
  hidden_size=NEEDED,
  num_hidden_layers=NEEDED,
  num_attention_heads=NEEDED,
  intermediate_size=NEEDED,
  max_position_embeddings=512,
  layer_norm_eps=1e-12,
  pad_token_id=0,
  encoder_width=NEEDED,
  cross_attention_freq=2,
  query_length=32,
  hidden_act="gelu (erf)",
)
STAGE1 = dict(
  qformer=NEEDED,
  embed_dim=256,
  num_query_token=NEEDED,
  max_txt_len=32,
  temp=0.07,
)


ACTIVATIONS = {"gelu (erf)": "gelu", "gelu": "gelu"}
WORDS = "bert.embeddings.word_embeddings.weight"


def build(c, with_text: bool = True) -> QFormer:
  """Our module, which knows padding by masks and not by an id."""
  return QFormer(
    features_width=c["encoder_width"],
    width=c["hidden_size"],
    num_layers=c["num_hidden_layers"],
    num_heads=c["num_attention_heads"],
    num_queries=c["query_length"],
    cross_every=c["cross_attention_freq"],
    hidden=c["intermediate_size"],
    vocab_size=c["vocab_size"] if with_text else 0,
    max_positions=c["max_position_embeddings"],
    activation=lookup(ACTIVATIONS, c["hidden_act"], "activation"),
    norm_eps=c["layer_norm_eps"],
  )


def shapes(module, *args):
  made = jax.eval_shape(lambda key: module.init(key, *args), jax.random.key(0))
  return nn.unbox(made)["params"]


def there(inputs, name):
  """A mask of the file, True where there is something."""
  return jnp.asarray(inputs[name]) > 0


def body(golden: Golden):
  """The Q-Former alone: what each call of the metadata returns."""
  c = filled(golden, BODY)
  module, inputs = build(c, WORDS in golden.weights), golden.inputs[""]
  x = jnp.asarray(inputs["encoder_hidden_states"])
  weights = golden.weights | {"query_tokens": inputs["query_tokens"]}
  table = [
    *prefixed(rules.lavis(module.num_layers, module.cross_every), "bert."),
    rules.queries(),
  ]
  table, like = prefixed(table, path="body/"), {"body": shapes(module, x)}
  head = CaptionHead(c["vocab_size"], c["layer_norm_eps"])
  if any(name.startswith("cls.") for name in weights):
    _check_tied(weights)
    table += prefixed(blip2.caption_head(), "cls.predictions.", "head/")
    like["head"] = shapes(
      head,
      jnp.zeros((1, 1, c["hidden_size"])),
      lambda x: jnp.zeros((1, 1, c["vocab_size"])),
    )
  params = load(weights, table, like, ignore=blip2.tied)
  run = Body(module, params["body"], x)
  for call in golden.outputs:
    if call == "caption":
      yield call, captions(golden, run, head, params["head"])
    else:
      yield call, run.outputs(call, inputs, golden.outputs[call])


def _check_tied(weights):
  """The decoder of captions is the table of embeddings in all files."""
  table = weights[WORDS]
  decoder = weights["cls.predictions.decoder.weight"]
  if not np.array_equal(table, decoder):
    raise ValueError("The decoder is no copy of the embeddings.")


@dataclasses.dataclass
class Body:
  """A Q-Former with its weights and the features that it reads."""

  module: QFormer
  params: dict
  features: jax.Array

  def outputs(self, call, inputs, expected):
    """Hidden states of a call, of the last layer and of those asked for."""
    found = {}
    for name in expected:
      depth = name.removeprefix("hidden_")
      depth = int(depth) if depth.isdigit() else self.module.num_layers
      found[name] = self.hidden(call, inputs, depth)
    if call.startswith("mask_"):
      kept = self.meaningful(inputs)
      given = expected["last_hidden_state"]
      ours = found["last_hidden_state"]
      found["last_hidden_state"] = np.where(kept, ours, given)
    return found

  def meaningful(self, inputs):
    """Rows that are no padding of the text."""
    real = np.pad(
      inputs["text_mask"] > 0,
      ((0, 0), (self.module.num_queries, 0)),
      constant_values=True,
    )
    return real[..., None]

  def hidden(self, call, inputs, depth):
    if call == "query_only":
      return self.apply(depth, self.features, None)
    if call == "query_only_masked":
      return self.apply(depth, self.features, there(inputs, "encoder_mask"))
    ids, text = jnp.asarray(inputs["input_ids"]), there(inputs, "text_mask")
    count = self.module.num_queries
    if call == "text_only":
      return self.apply(depth, ids, text[:, None, None, :], method="read")
    if call == "instruct":
      table, seen = visible("together", count, text), "encoder_mask"
      return self.apply(depth, self.features, there(inputs, seen), ids, table)
    if not call.startswith("mask_"):
      raise ValueError(f"A call is {call!r}; no such is known.")
    how = dict(itc="apart", itm="together", itg="captioning")[call[5:]]
    table = visible(how, count, text)
    given = np.asarray(inputs[call] > 0)
    rows = self.meaningful(inputs)
    # What their table says of rows that are padding means nothing.
    np.testing.assert_array_equal(given & rows, np.asarray(table)[:, 0] & rows)
    return self.apply(depth, self.features, None, ids, table)

  def apply(self, depth, *args, method=None):
    if depth == 0:
      given = (args[0].shape[0], args[2] if len(args) > 2 else None)
      return self.module.apply({"params": self.params}, *given, method="embed")
    module = self.module.clone(num_layers=depth)
    reading = -(-depth // module.cross_every)
    params = self.params | {
      "layers": jax.tree.map(lambda w: w[:depth], self.params["layers"]),
      "cross": jax.tree.map(lambda w: w[:reading], self.params["cross"]),
    }
    return module.apply({"params": params}, *args, method=method)


def captions(golden: Golden, run: Body, head, params):
  """Logits and loss of a caption behind the queries."""
  inputs, expected = golden.inputs[""], golden.outputs["caption"]
  text = there(inputs, "text_mask")
  ids = jnp.asarray(inputs["caption_input_ids"])
  count, depth = run.module.num_queries, run.module.num_layers
  table = visible("captioning", count, text)
  hidden = run.apply(depth, run.features, None, ids, table)[:, count:]
  words = run.params["embedding"]["table"]
  logits = head.apply({"params": params}, hidden, lambda x: x @ words.T)
  labels = inputs["caption_labels"][:, 1:]
  total, number = cross_entropy(
    logits[:, :-1],
    np.maximum(labels, 0),
    (labels >= 0).astype(np.float32),
    SMOOTHING,
  )
  kept = np.asarray(text)[..., None]
  outputs = {"logits": np.where(kept, logits, expected["logits"])}
  return outputs | {"loss": total / number}


def stage1(golden: Golden):
  """BLIP-2's first stage: losses, what they are made of, and gradients."""
  c = filled(golden, STAGE1)
  inputs = golden.inputs[""]
  sizes = merged(c["qformer"], BODY)
  if sizes["query_length"] != c["num_query_token"]:
    raise ValueError(f"Two numbers of queries: {c}.")
  module = Blip2Stage1(
    build(sizes),
    joint_width=c["embed_dim"],
    first_temperature=c["temp"],
  )
  batch = stage1_batch(inputs)
  negatives = tuple(
    jnp.asarray(inputs[f"negative_{name}"])
    for name in ("image_for_text", "text_for_image")
  )
  table = blip2.stage1(
    sizes["num_hidden_layers"], sizes["cross_attention_freq"]
  )
  like = shapes(module, batch, negatives)
  params = load(golden.weights, table, like, ignore=blip2.tied)

  def total(params, x):
    given = with_features(batch, x)
    output = module.apply({"params": params}, given, negatives)
    found = losses(output, given)
    return found["loss"][0] / found["loss"][1], (output, found)

  run = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
  x = batch["media"]["image"]["features"]
  (value, (output, found)), (grads, by_features) = run(params, x)
  outputs = {"loss": value} | {
    f"loss_{theirs}": found[ours][0] / found[ours][1]
    for theirs, ours in LOSSES.items()
  }
  outputs |= of_output(output, golden.outputs[""], inputs)
  outputs |= verbs(module, params, batch)
  yield "", outputs
  yield from gradients(golden, save(grads, table), by_features)


LOSSES = dict(itc="contrastive", itm="matching", lm="captioning")


def stage1_batch(inputs):
  x = inputs["image_embeds"]
  image = {
    "features": jnp.asarray(x)[:, None, None],
    "mask": jnp.ones((len(x), 1, 1), bool),
  }
  if "image_id" in inputs:
    image["ids"] = jnp.asarray(inputs["image_id"])[:, None]
  return {
    "tokens": jnp.asarray(inputs["input_ids"]),
    "segments": jnp.asarray(inputs["text_mask"]).astype(jnp.int32),
    "media": {"image": image},
  }


def with_features(batch, x):
  return batch | {"media": {"image": batch["media"]["image"] | {"features": x}}}


def of_output(output, expected, inputs):
  kept = inputs["text_mask"][..., None] > 0
  return {
    "sim_i2t": output.aux["scores"],
    "sim_t2i": output.aux["scores"].T,
    "itm_logits": output.aux["matches"],
    "lm_logits": np.where(kept, output.logits, expected["lm_logits"]),
  }


def verbs(module, params, batch):
  """What retrieval and other users of the parts call."""

  def run(module, batch):
    x, tokens = module.read_media(batch), batch["tokens"]
    text = batch["segments"] > 0
    images, texts, _ = module.contrast(x, tokens, text)
    words = module.qformer.read(tokens, text[:, None, None])
    match = module.match(x, tokens, text)
    own = module.similarity(images, texts) * module.temperature
    return {
      "image_embeds_normed": x,
      "image_hidden": module.qformer(x),
      "image_feats": images,
      "text_hidden": words,
      "text_feat": texts,
      "text_feats_all": unit(module.text_head(words)),
      "multimodal_hidden": module.fused(x, tokens, text),
      "score_itm": match,
      "score_itm_rerank": match[:, 1],
      "score_itc": jnp.diagonal(own)[:, None],
    }

  return module.apply({"params": params}, batch, method=run)


def gradients(golden, named, by_features):
  """Of the tensors that the file names, in their names and layout."""
  for call, expected in golden.outputs.items():
    if not call.startswith("grad"):
      continue
    for name in expected:
      key = f"{call}.{name}".removeprefix("grad.")
      found = by_features[:, 0, 0] if key == "image_embeds" else named[key]
      yield call, {name: found}


def check(golden: Golden):
  """Yields (call, {output name: array})."""
  whole = golden.config["class"].startswith("Blip2Qformer")
  yield from stage1(golden) if whole else body(golden)
