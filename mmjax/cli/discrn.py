"""`mmjax data discrn`: questions about which of two things it is."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from mmjax.cli.answering import Asking, Folder, digest
from mmjax.data.instruct import captions, discrn, pairs, plan
from mmjax.data.instruct.discrn import Comparisons, Properties
from mmjax.data.instruct.journal import array, write_whole
from mmjax.data.instruct.pairs import Drawing, Encode
from mmjax.data.items import TABLE


def make_comparisons(
  target: str | Path,
  source: str | Path,
  asking: Asking,
  drawing: Drawing,
  *,
  encode: Encode = pairs.tf_idf,
  encoder: str = "tf_idf",
  kinds: Sequence[str] | None = None,
  limit: int | None = None,
  write: Callable[[str], None] = print,
) -> int:
  """Makes a DisCRn by a language model in a folder, or goes on with one.

  Args:
    target: the folder; gets `discrn.json`.
    source: jsonl of id, caption, and what rows carry on.
    asking: who is asked, and how.
    drawing: of pairs.
    encode: captions, for their similarity.
    encoder: its name, which the folder keeps.
    kinds: of a table of `mmjax data fetch`, see `captions.shown_twice`.
    limit: of things, of each of which a pair is made; None for all.
    write: takes a line at a time.

  Returns:
    The exit code, see `Folder.make`.
  """
  items = plan.drawn(_things(source, kinds), asking.sampling.seed, limit)
  told = discrn.load(asking.prompts)
  drawn = pairs.draw(items, encode, drawing)
  settings = {
    **asking.settings,
    **{"recipe": "discrn", "prompts": told.digest, "encoder": encoder},
    # Folders made before have answers to checks in the question's order.
    "check": "swapped",
    **{"others": drawing.others, "among": drawing.among, "limit": limit},
    "kinds": kinds and list(kinds),
    "data": digest([source]),
  }
  alone, both = Properties(told), Comparisons(drawn, told)
  given = (Path(target), settings)
  known = "The properties of {done:,} things are known"
  first = Folder(*given, asking.run(alone), write, known)
  second = Folder(*given, asking.run(both), write)
  wanted = _wanted(items, drawn, first.contents().done)
  write(plan.table(told.estimate(wanted), asking.prices))
  if asking.dry_run:
    fields = {"caption": items[0].caption}
    messages = told.steps["properties"].messages(fields)
    first.show(f"properties of {items[0].id}", messages)
    return 0
  if first.todo(items) and (code := first.make(items, asking.answerer())):
    return code
  return second.make(drawn, asking.answerer())


def _things(
  source: str | Path, kinds: Sequence[str] | None
) -> list[captions.Item]:
  """Things with captions; of a table of `mmjax data fetch`, those of kinds."""
  if kinds is None and Path(source).name != TABLE:
    return captions.read(source)
  return captions.shown_twice(source, kinds or ())


def _wanted(
  items: Sequence[captions.Item],
  drawn: Sequence[pairs.Pair],
  done: Collection[tuple[str, str]],
) -> dict[str, list[dict[str, str]]]:
  """Step of the recipe to the fields of each request that is left."""
  alone = [
    {"caption": item.caption}
    for item in items
    if (item.id, "properties") not in done
  ]
  both = {
    step: [
      {"caption_1": a.caption, "caption_2": b.caption}
      for a, b in (p.items for p in drawn if (p.id, step) not in done)
    ]
    for step in ("question", "check")
  }
  return {"properties": alone, **both}


def by_attribute(
  target: str | Path,
  source: str | Path,
  attribute: str,
  drawing: Drawing,
  *,
  encode: Encode = pairs.tf_idf,
  templates: str | Path | None = None,
  kinds: Sequence[str] | None = None,
  limit: int | None = None,
  write: Callable[[str], None] = print,
) -> None:
  """Makes one of what is known of everything; no model is asked.

  Args:
    target: the folder; gets `discrn.json`.
    source: jsonl of id, caption and the attribute.
    attribute: the name of a text, such as "category", of a row or of its
      `attributes`.
    drawing: of pairs.
    encode: captions, for their similarity.
    templates: a file of questions in place of those that ship.
    kinds: of a table of `mmjax data fetch`, see `captions.shown_twice`.
    limit: of things; None for all.
    write: takes a line at a time.

  Raises:
    ValueError: where the folder has an answer of a language model.
  """
  items = plan.drawn(_things(source, kinds), drawing.seed, limit)
  lines = discrn.questions(*([Path(templates)] if templates else []))
  rows = discrn.by_attribute(items, attribute, lines, encode, drawing)
  folder = Path(target)
  if (folder / "journal.jsonl").exists():
    raise ValueError(
      f"{folder} was made by a language model; name another folder."
    )
  folder.mkdir(parents=True, exist_ok=True)
  write_whole(folder / discrn.OUTPUT, array(rows))
  write(f"{len(rows):,} rows are in {folder / discrn.OUTPUT}")
