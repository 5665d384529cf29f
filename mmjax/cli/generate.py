"""`mmjax generate`: a model, media and text in, its answer out."""

import inspect
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.cli.evaluate import load_model
from mmjax.config import lookup, require
from mmjax.data import build as data
from mmjax.data.document import KINDS, Document, File, Media, Text
from mmjax.data.encoder import Encoder
from mmjax.data.fields import text_of
from mmjax.evaluation.model import Model
from mmjax.text.prompts import PROMPTS
from mmjax.text.prompts.base import merged
from mmjax.text.prompts.cued import Cued

log = logging.getLogger(__name__)

# The kind of the parts of a prompt that are no media.
TEXT = "text"


def generate(
  config: Mapping[str, Any],
  workdir: str | Path,
  parts: Sequence[tuple[str, str]],
  wording: Mapping[str, Any] | None = None,
  **fields: Any,
) -> str:
  """What a run's newest checkpoint says after a prompt.

  Args:
    config: of the run. Its `generate` says what differs from training:
      `model` and `init` in place of those parts, and in `data` what differs
      from the first dataset (`transforms`, `prompt`, ...).
    workdir: of the run.
    parts: of the prompt in their order: ("text", TEXT), or a kind of medium
      and a FILE, such as ("audio", FILE). BLIP-2, InstructBLIP and
      X-InstructBLIP read all text behind all media, wherever it stands.
    wording: what differs from the run's prompt (`system`, `length`, ...).
    **fields: of evaluation.model.Model (`max_new_tokens`, `num_beams`, ...).

  Raises:
    ValueError: for a prompt that does not fit, a kind of medium that the run
      does not read, and a file that is none of its kind.
  """
  model, document = _asked(config, workdir, parts, wording, fields)
  return model.generate([document])[0]


def rank(
  config: Mapping[str, Any],
  workdir: str | Path,
  parts: Sequence[tuple[str, str]],
  choices: Sequence[str],
  wording: Mapping[str, Any] | None = None,
) -> list[tuple[str, float]]:
  """Given answers by how likely a run finds them after a prompt, best first.

  A likelihood is the sum of the logarithms of an answer's tokens, so that a
  longer answer is less likely. Its end counts, too, but not where the prompt
  says otherwise, as that of X-InstructBLIP does.

  Args:
    config, workdir, parts, wording: as above.
    choices: two answers or more.

  Returns:
    each with its log-likelihood.

  Raises:
    ValueError: as above, and for answers that are empty or there twice.
    FloatingPointError: for likelihoods that are not finite.
  """
  choices = [choice.strip() for choice in choices]
  if len(set(choices)) < max(len(choices), 2) or "" in choices:
    raise ValueError(
      f"The choices are {choices}; expected two or more, all different and "
      "none empty."
    )
  model, document = _asked(config, workdir, parts, wording, {}, choices)
  # Behind a text an answer begins with a space, as in the papers' templates.
  goes_on = isinstance(document.segments[-1], Text)
  answers = [f" {choice}" if goes_on else choice for choice in choices]
  scores = model.score([document], answers).total[0].tolist()
  if not all(map(math.isfinite, scores)):
    raise FloatingPointError(
      f"The choices' log-likelihoods are {scores}, expected finite numbers. "
      "Look at the media, and whether the checkpoint's parameters are finite."
    )
  pairs = zip(choices, scores, strict=True)
  return sorted(pairs, key=lambda pair: pair[1], reverse=True)


def _asked(
  config: Mapping[str, Any],
  workdir: str | Path,
  parts: Sequence[tuple[str, str]],
  wording: Mapping[str, Any] | None,
  fields: Mapping[str, Any],
  said: Sequence[str] = (),
) -> tuple[Model, Document]:
  """The model, and the document that it is asked about.

  Args:
    config, workdir, parts, wording, fields: as above.
    said: other texts that the model has to know.
  """
  document = prompt(parts)
  config = _with_room(for_generation(config, wording), document)
  # Before a model of many gigabytes is read.
  (entry,) = config["data"]["datasets"].values()
  encoder = data.encoder(None, **data.reading(entry))
  check_files(encoder, document)
  _tell_order(encoder, document)
  own = {"batch_size": 1, "overflow": "error"}
  model = load_model(config, workdir, own | dict(fields))
  # As the prompt joins texts; between media they are apart.
  texts = [x[0] for x in merged(document, KINDS) if isinstance(x, tuple)]
  words = [w for t in (*texts, *said) for w in model.tokenizer.unknown(t)]
  if words:
    log.warning(
      "The run's vocabulary does not have %s.", list(dict.fromkeys(words))
    )
  return model, document


def prompt(parts: Sequence[tuple[str, str]]) -> Document:
  """The document that a command line's parts describe."""
  segments: list[Text | Media] = []
  for kind, value in parts:
    if kind == TEXT:
      segments.append(Text(text_of(value, "The prompt")))
    elif kind in KINDS:
      if not Path(value).is_file():
        raise ValueError(f"There is no {kind} file {value!r}.")
      segments.append(Media(kind, File(value), value))
    else:
      raise ValueError(
        f"A part is {TEXT!r}, {', '.join(map(repr, KINDS))}, not {kind!r}."
      )
  if not segments:
    raise ValueError("The prompt is empty: give --image FILE, --prompt TEXT.")
  return Document(tuple(segments), id="prompt")


def check_files(encoder: Encoder, document: Document) -> None:
  """Whether a model reads all media of a prompt, as an example does.

  Raises:
    ValueError: for a medium of another kind, with those that it reads, and
      for any where a model knows media by their number in a table alone.
    BadSample: for a file that is damaged, empty or of another kind.
  """
  known = {kind for r in encoder.readers.values() for kind in r.kinds}
  if isinstance(encoder.prompt.media, Mapping):
    known &= encoder.prompt.media.keys()
  if document.media and any(r.keys for r in encoder.readers.values()):
    raise ValueError(
      "This model finds media in a table of features, and sees no files. Say "
      "in its config's `generate` what encodes them, as configs/llava/tiny.py "
      "does."
    )
  for medium in document.media:
    if medium.kind not in known:
      raise ValueError(
        f"This model reads no {medium.kind!r} ({medium.name}); it reads "
        f"{', '.join(kind for kind in KINDS if kind in known)}."
      )
    encoder.check(medium, document.id)


def _tell_order(encoder: Encoder, document: Document) -> None:
  """Warns where a model reads text behind a medium that it stands before."""
  media = [isinstance(segment, Media) for segment in document.segments]
  if isinstance(encoder.prompt, Cued) and media != sorted(media, reverse=True):
    log.warning(
      "A text of the prompt stands before a medium, but this model reads all "
      "text behind all media."
    )


def _with_room(config: dict[str, Any], document: Document) -> dict[str, Any]:
  """A config whose prompt has room for all media of a document.

  Only where a prompt counts the media of each kind, which then come into the
  sequence one by one: how many there are no parameter depends on.
  """
  ((name, entry),) = config["data"]["datasets"].items()
  own = entry["prompt"]
  if not isinstance(own.get("media"), Mapping):
    return config
  given = Counter(m.kind for m in document.media if m.kind in own["media"])
  room = {k: max(count, given[k]) for k, count in own["media"].items()}
  made = data.encoder(None, **data.reading(entry)).prompt
  extra = sum(
    (count - own["media"][kind]) * made.units.get(kind, 1) * made.media_tokens
    for kind, count in room.items()
  )
  wider = own | {"media": room, "length": made.length + extra}
  datasets = {name: entry | {"prompt": wider}}
  return config | {"data": config["data"] | {"datasets": datasets}}


def require_turns(config: Mapping[str, Any]) -> None:
  """Refuses a run that holds no conversations, before its model is read.

  Raises:
    ValueError: for one whose prompt is of a question and its answer.
  """
  entry = next(iter(config["data"]["datasets"].values()))
  name = entry["prompt"].get("name")
  if not hasattr(lookup(PROMPTS, name, "prompt"), "follow"):
    raise ValueError(
      f"This model holds no conversations: its prompt is {name!r}, which knows "
      "no turns. Ask it with `mmjax generate`, or name a language model or a "
      "LLaVA."
    )


def _worded(
  prompt: Mapping[str, Any], wording: Mapping[str, Any]
) -> dict[str, Any]:
  """Changes of a prompt.

  Raises:
    ValueError: for what the prompt has not, as a text of the system's.
  """
  name = prompt.get("name")
  takes = inspect.signature(lookup(PROMPTS, name, "prompt")).parameters
  for key in wording:
    if key not in takes:
      raise ValueError(
        f"The run's prompt is {name!r}, which has no {key!r}: leave --{key} "
        "out."
      )
  return dict(wording)


def for_generation(
  config: Mapping[str, Any], wording: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """A run's config with the changes that its `generate` asks for.

  Args:
    config: of the run.
    wording: further changes, to the prompt.
  """
  config = data.plain(config)
  require(config, ("model", "data"))
  changes = config.pop("generate", {})
  unknown = changes.keys() - {"model", "init", "data"}
  if unknown:
    raise ValueError(f"config.generate takes no {sorted(unknown)}.")
  config["model"] = config["model"] | changes.get("model", {})
  config["init"] = config.get("init", {}) | changes.get("init", {})
  name, first = next(iter(config["data"]["datasets"].items()))
  own = dict(changes.get("data", {}))
  prompt = first["prompt"] | own.pop("prompt", {})
  written = prompt | _worded(prompt, wording or {})
  datasets = {name: first | own | {"prompt": written}}
  config["data"] = config["data"] | {"datasets": datasets}
  return config
