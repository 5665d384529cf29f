"""Episodes with their pictures: saved with a run, shown in its report."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data.document import Document, Media
from mmjax.data.image import decode
from mmjax.evaluation.markup import Element, element

CONTROLS = {
  "none": "All media",
  "no_query": "No query image",
  "wrong_query": "Wrong query image",
  "blank_support": "Support blank",
  "text_only": "Text-only model",
}
THUMBNAIL = 160
_PNG = b"\x89PNG\r\n\x1a\n"


def episode(
  document: Document, record: Mapping[str, Any], directory: str | Path
) -> dict:
  """An episode for `results.json`; saves its pictures in `images/`.

  Args:
    document: the prompt that was shown, controls included.
    record: of `in_context.evaluate`, for this document.
    directory: of the run.
  """
  parts: list[dict] = []
  for segment in document.segments:
    if isinstance(segment, Media):
      parts.append({"image": save_image(segment, directory), "text": ""})
    elif parts:
      parts[-1]["text"] += segment.text
    else:
      parts.append({"text": segment.text})
  score = record.get("score")
  if score is None:
    right = record["prediction"] in record["answers"]
  else:
    right = score >= 50
  kept = ("task", "shots", "control", "prediction", "answers")
  return {k: record[k] for k in kept if k in record} | {
    "parts": parts,
    "right": right,
  }


def save_image(media: Media, directory: str | Path) -> str:
  """Saves a picture, or the first frame of a video, as a small PNG.

  Returns:
    its path inside the directory; the same picture is saved once.
  """
  payload = media.load()
  pixels = decode(payload) if isinstance(payload, bytes) else payload
  pixels = np.asarray(pixels)
  pixels = pixels[0] if pixels.ndim == 4 else pixels
  if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
    raise ValueError(
      f"A picture of {pixels.dtype}{list(pixels.shape)}; expected "
      "uint8[height, width, 3], or frames of it."
    )
  image = Image.fromarray(pixels)
  image.thumbnail((THUMBNAIL, THUMBNAIL))
  encoded = io.BytesIO()
  image.save(encoded, "PNG", optimize=True)
  name = hashlib.sha256(encoded.getvalue()).hexdigest()[:16]
  path = Path("images") / f"{name}.png"
  target = Path(directory) / path
  target.parent.mkdir(parents=True, exist_ok=True)
  target.write_bytes(encoded.getvalue())
  return path.as_posix()


def section(
  episodes: Sequence[Mapping], named: Mapping, directory: Path
) -> list | None:
  """The part of the report that shows them."""
  if not episodes:
    return None
  right = sum(bool(e.get("right")) for e in episodes)
  return [
    element("h2", "Episodes"),
    element(
      "p",
      f"What was shown, in its order, and what the model said: {right} of "
      f"these {len(episodes)} are right. The blue frame is the question.",
      class_="note",
    ),
    [_episode(e, named, directory) for e in episodes],
  ]


def _episode(e: Mapping, named: Mapping, directory: Path) -> Element:
  right = bool(e.get("right"))
  about = [title_text(e["task"], named)] if "task" in e else []
  about += [shots_text(e["shots"])] if "shots" in e else []
  if e.get("control", "none") != "none":
    about.append(control_text(e["control"]).lower())
  parts = e.get("parts", ())
  shown = [
    _part(part, i == len(parts) - 1, directory) for i, part in enumerate(parts)
  ]
  truth = " / ".join(dict.fromkeys(map(str, e.get("answers", ()))))
  return element(
    "article",
    element(
      "header",
      element("span", ", ".join(about)),
      element("span", "right" if right else "wrong", class_="mark"),
    ),
    element("div", shown, class_="shown"),
    element(
      "p",
      "Answer: ",
      element("span", e.get("prediction") or "(nothing)", class_="said"),
      element("span", f"Truth: {truth}", class_="truth"),
      class_="answer",
    ),
    class_="episode " + ("good" if right else "bad"),
  )


def _part(part: Mapping, query: bool, directory: Path) -> Element:
  text = part.get("text", "")
  picture = None
  if "image" in part:
    data = base64.b64encode(_read_png(directory, part["image"])).decode()
    source = f"data:image/png;base64,{data}"
    picture = element("img", src=source, alt="", loading="lazy")
  return element(
    "figure",
    picture,
    element("figcaption", text.strip()),
    class_="query" if query else None,
  )


def _read_png(directory: Path, name: str) -> bytes:
  """A picture of the run; nothing outside its directory is ever shown."""
  path = (directory / name).resolve()
  if not path.is_relative_to(directory.resolve()):
    raise ValueError(f"The picture {name!r} is not inside {directory}.")
  data = path.read_bytes()
  if not data.startswith(_PNG):
    raise ValueError(f"The picture {name!r} is no PNG file.")
  return data


def title_text(task: str, named: Mapping) -> str:
  """What a task is called."""
  plain = task.replace("_", " ")
  return named.get(task, {}).get("title", plain[:1].upper() + plain[1:])


def control_text(name: str) -> str:
  """What a control is called."""
  return CONTROLS.get(name, name.replace("_", " ").capitalize())


def shots_text(count: int) -> str:
  """`1 shot`, `4 shots`."""
  return "1 shot" if count == 1 else f"{count} shots"
