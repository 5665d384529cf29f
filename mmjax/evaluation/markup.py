"""HTML as a tree, so that text is escaped wherever it is put.

page(element("p", "1 < 2", element("b", "!"), class_="note"))
"""

import re
from collections.abc import Iterable
from xml.etree import ElementTree

Element = ElementTree.Element
Child = Element | str | int | float | None | Iterable

# What no HTML may hold, escaped or not.
_FORBIDDEN = re.compile(
  "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]"
)
# Nothing is loaded and no script runs, whatever a caption holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def element(tag: str, *children: Child, **attributes: object) -> Element:
  """One element.

  Args:
    tag: its name.
    *children: elements, text, and lists of them; None is left out.
    **attributes: `class_` is class, `stroke_width` is stroke-width; None is
      left out.
  """
  made = ElementTree.Element(tag)
  for name, value in attributes.items():
    if value is not None:
      made.set(name.rstrip("_").replace("_", "-"), _clean(value))
  for child in children:
    _append(made, child)
  return made


def page(title: str, style: str, *body: Child) -> str:
  """A whole document that needs no other file."""
  head = element(
    "head",
    element("meta", charset="utf-8"),
    element(
      "meta", name="viewport", content="width=device-width, initial-scale=1"
    ),
    element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
    element("title", title),
    element("style", style),
  )
  root = element("html", head, element("body", *body), lang="en")
  text = ElementTree.tostring(root, encoding="unicode", method="html")
  return f"<!DOCTYPE html>\n{text}\n"


def _append(parent: Element, child: Child) -> None:
  if child is None:
    return
  if isinstance(child, Element):
    parent.append(child)
  elif isinstance(child, str | int | float):
    _append_text(parent, _clean(child))
  else:
    for each in child:
      _append(parent, each)


def _append_text(parent: Element, text: str) -> None:
  if len(parent):
    parent[-1].tail = (parent[-1].tail or "") + text
  else:
    parent.text = (parent.text or "") + text


def _clean(value: object) -> str:
  return _FORBIDDEN.sub("\ufffd", str(value))
