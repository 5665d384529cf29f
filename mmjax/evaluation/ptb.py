"""The Penn Treebank tokens that COCO caption scores are computed on.

The official caption code hands every caption to a Java program, lower-cases
what comes back and drops a short list of punctuation. This module gives the
same tokens from a table of regular expressions: at each place the longest
match wins, and of equal ones the earlier row. The rows were found by giving
strings to the original and looking at its answers; `tests/evaluation` holds a
table of such answers, and runs the original itself where there is one.

  "A man's dog isn't on the (old) couch."
    tokens    a man 's dog is n't on the -lrb- old -rrb- couch .
    caption   a man 's dog is n't on the -lrb- old -rrb- couch

Two habits of the original are kept because scores depend on them: brackets
stay as `-lrb-` (the list that should drop them is in upper case), and runs
such as `!!` stay because only the single mark is on the list. Not kept: the
original joins some quotation marks that touch (```'`), and long telephone
numbers, in ways that no caption has.
"""

import re
import unicodedata
from functools import lru_cache

# Dropped from captions after tokenizing, as in the official caption code.
_DROPPED = "'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;"
PUNCTUATION = frozenset(_DROPPED.split())

_WRITTEN = {
  "[": "-lsb-",
  "]": "-rsb-",
  "{": "-lcb-",
  "}": "-rcb-",
  '"': "''",
  "\u2019": "'",
  "---": "--",
  "----": "--",
}
_SPACE = re.compile(r"\s")
_ENDING = re.compile("^(?:n\u2019t|\u2019(?:[sdmn]|ll|re|ve))$")

# Abbreviations that keep their full stop; a capital needs one in the text.
_ABBREVIATIONS = r"""
  ph\.d al az cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs
  vt wm adj adm adv ala apr aug ave bhd cie col cos cpl dak dec det drs ens
  esq est etc ext feb fla fri gen gov hon inc ind jan jos jul jun kan ltd maj
  mar mfg mme mon mrs mtg neb nev nov oct pfc plc pte pty pvt rep rev sen sep
  seq sfc sgt spc ste sys tel thu tue wed wis wyo alex ariz assn asst atty
  bldg blvd brig bros capt cmdr colo conn corp dept elec govs insp intl invt
  kans mich minn mlle mont msgr natl okla penn ppte ppty pres prof ptes ptys
  reps sens sept supt tenn tues univ wisc assoc attys calif comdr lieut messrs
  pptes pptys profs supts thurs treas
"""
_CAPITAL_ABBREVIATIONS = "La LA Pa PA Ark ARK Del DEL Ill ILL Ore ORE Tex TEX"
_CAPITAL_ABBREVIATIONS += " Mass Miss Wash"
_NUMBER_ABBREVIATIONS = "ca no op pp art fig nos figs prop"

# Apostrophes inside these do not split.
_APOSTROPHE_WORDS = """
  ma'ams? ne'er e'er o'er ev'ry hallowe'en [A-Z]?cap'n li'l go'in nat'l
  nor'easter c'est n'est qu'il d'ye
"""

_QUOTES = dict.fromkeys("\u2018\u201b\u2039\x91", "`")
_QUOTES |= dict.fromkeys("\u203a\x92", "'")
_QUOTES |= dict.fromkeys("\u201c\xab\x93", "``")
_QUOTES |= dict.fromkeys("\u201d\xbb\x94", "''")
_REPLACED = _QUOTES | {
  "\u2026": "...",
  "\u2013": "--",
  "\u2014": "--",
  "\u2015": "--",
  "\x96": "--",
  "\x97": "--",
  "\x80": "$",
  "\xa4": "$",
  "\u20a0": "$",
  "\u20ac": "$",
  "\xa3": "#",
  "\xa2": "cents",
  "\xbc": "1/4",
  "\xbd": "1/2",
  "\xbe": "3/4",
  "\u2153": "1/3",
  "\u2154": "2/3",
}
_ENTITIES = {
  "&amp;": "&",
  "&lt;": " < ",
  "&gt;": " > ",
  "&quot;": " '' ",
  "&apos;": "'",
  "&nbsp;": " ",
  "&mdash;": " -- ",
}
# Symbols that are tokens of their own; any other symbol is lost.
_SYMBOLS = re.compile(
  "[\xa1\xa5-\xa9\xac\xae-\xb1\xb4\xb6-\xb8\xbf\xd7\xf7\u037e\u0387\u2016"
  "\u2017\u201a\u201e\u201f\u2020-\u2023\u2030-\u2038\u203b\u203e-\u2042"
  "\u207a-\u207e\u208a-\u208e\u20a4\u2100-\u2101\u2103-\u2106\u2108\u2109"
  "\u2114\u2116-\u2118\u211e-\u2123\u2125\u2127\u2129\u212e\u213a\u213b"
  "\u2140-\u2144\u214a-\u214d\u214f\u2155-\u215e\u2190-\u2bff\u0e3f\u3001"
  "\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
  "\uffe0\uffe1\uffe5\uffe6\u0964\u0965\u061b\u061f\u060c]"
)
_SUPERSCRIPTS = "\xb2\xb3\xb9\u2070\u2074-\u2079\u2080-\u2089"
_HYPHENS = "\u2010\u2011\u058a"


@lru_cache(maxsize=4096)
def _prepare(char: str) -> str:
  """How one character outside ASCII enters the rules; a space loses it."""
  if char in _REPLACED:
    return f"\n{_REPLACED[char]}\n"
  if char == "\xad":
    return ""
  if char in "\u2019" + _HYPHENS or re.match(f"[{_SUPERSCRIPTS}]", char):
    return char
  if _SYMBOLS.match(char):
    return f"\n{char}\n"
  category = unicodedata.category(char)
  kept = category[0] == "L" or category in ("Nd", "Mn", "Mc", "Sk")
  lost = ord(char) > 0xFFFF or 0xFE00 <= ord(char) <= 0xFE0F
  return char if kept and not lost else "\n"


# The rows of the lexer; the text is what `_prepare` leaves. A group marks the
# token where a row looks further than it takes. Rows that look far ahead have
# bounds ({0,80}), so that a long text without spaces takes no more time for
# each of its tokens than a short one.
_NOT_LETTER = r"\x00-\x40\x5b-\x60\x7b-\x7f\u2019\d" + _HYPHENS + _SUPERSCRIPTS
_LETTER, _APOSTROPHE = f"[^{_NOT_LETTER}]", "['\u2019]"
_LETTER_OR_DIGIT, _HYPHEN = rf"(?:{_LETTER}|\d)", f"[-{_HYPHENS}]"
_END, _ALONE = f"(?!{_LETTER})", f"(?!{_APOSTROPHE}?{_LETTER})"
_ACRONYM = rf"[A-Za-z](?:\.[A-Za-z])+(?!{_LETTER})"


def _any(words: str) -> str:
  return "|".join(words.split())


_WORDS = _any(_APOSTROPHE_WORDS.replace("'", _APOSTROPHE))

# Mark-up, addresses, smileys, telephone numbers.
_MARK_UP = (
  r"</?[A-Za-z][\w.:-]*(?:\s+[A-Za-z][\w.:-]*"
  r"(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'))?)*\s*/?>|<[!?][A-Za-z-][^>]*>",
  r"https?://[^\s\"<>|()]+\.[^\s\"<>|()]*[^\s\"<>|().,;:!?'-]",
  r"<?[A-Za-z0-9][^\s\"<>|()]{0,80}@(?:[^\s\"<>|().]+\.)*[^\s\"<>|().]+>?",
  r"[<>]?[:;=][-o*']?[()DPdpO|\\\[\]{@](?![A-Za-z])",
  r"\([-^]_[-^]\)|[-^>=]_[-^<=]",
  r"\(\d{3}\)\s?\d{3}[-\s.]?\d{4}|\d{3}[ .-]\d{3}[ .-]\d{4}",
  rf"#{_LETTER}+|#+|@[A-Za-z_][A-Za-z0-9_]*|@+|&#\d+;",
  r"(?i:[a-z0-9][\w.-]{0,80}\.(?:com|net|org|edu)/[^\s\"<>|(),;]*"
  r"[^\s\"<>|().,;:!?'-])",
)
_WITH_FULL_STOPS = (
  rf"(?:(?i:{_any(_ABBREVIATIONS)})|{_any(_CAPITAL_ABBREVIATIONS)})\.",
  rf"((?i:{_any(_NUMBER_ABBREVIATIONS)})\.)\s?\d",
  rf"({_LETTER_OR_DIGIT}+(?:[-./_]+{_LETTER_OR_DIGIT}+){{0,20}}\.)[,;:]",
  rf"{_ACRONYM}\.?|[A-Za-z]\.",
  rf"{_LETTER}{_LETTER_OR_DIGIT}*(?:\.{_LETTER}{_LETTER_OR_DIGIT}*)+",
  rf"{_LETTER}+[!?]{_LETTER}+",
)
_WITH_APOSTROPHES = (
  rf"(?i:{_WORDS}){_END}|"
  rf"(?i:{_APOSTROPHE}(?:till?|cause|em))|{_APOSTROPHE}[nN]{_APOSTROPHE}",
  rf"(?i:[dlno]{_APOSTROPHE}{_LETTER}{{2,}})(?:-{_LETTER}+)*",
  rf"[A-HJ-XZ]{_APOSTROPHE}{_LETTER}{{2,}}",
  rf"(?i:[dljy]{_APOSTROPHE}(?=[^\W_])(?!(?:s|ll){_END})|"
  rf"ol{_APOSTROPHE}{_END})",
  rf"({_LETTER}+)(?i:n{_APOSTROPHE}t{_END})",
  rf"(?i:n{_APOSTROPHE}t{_END})",
  rf"(?i:{_APOSTROPHE}(?:[sdmn]|ll|re|ve){_END})",
  rf"(?i:('t)(?:is|was){_END})",
  rf"{_APOSTROPHE}(?:\d\d(?!\S)|[2-9]0s(?!{_LETTER_OR_DIGIT}))",
  rf"(?i:(can)not{_ALONE}|(gon|wan)na{_ALONE}|(got)ta{_ALONE})",
  rf"(?i:(lem|gim)me{_ALONE})",
)
# Words, numbers, and words of several parts.
_OF_PARTS = (
  rf"{_LETTER_OR_DIGIT}+(?:_{_LETTER_OR_DIGIT}+)*",
  rf"[A-Za-z0-9][A-Za-z0-9.,_]{{0,80}}"
  rf"(?:{_HYPHEN}(?:{_ACRONYM}\.|[A-Za-z0-9_]+))+",
  rf"{_LETTER_OR_DIGIT}+(?:{_HYPHEN}{_LETTER_OR_DIGIT}+)+",
  r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2})"
  r"{1,2}",
  r"[A-Z]+(?:&[A-Z]+)+",
  r"(?:\d+ )?\d+/\d+(?!\d)",
  r"[+-]?\d*(?:[.,:]\d+)+|[+-]?\d+",
  rf"[{_SUPERSCRIPTS}]+",
  r"[CcFf]#|[Cc]\+\+|[A-Z]{1,4}\$",
)
_ANYTHING = (r"[!?]+|\.{3,}|-{2,}|_+|\*+|''|``|<<|>>", r"\S")
_RULES = [
  re.compile(pattern)
  for rows in (_MARK_UP, _WITH_FULL_STOPS, _WITH_APOSTROPHES, _OF_PARTS)
  for pattern in rows
]
_RULES += [re.compile(pattern) for pattern in _ANYTHING]


def tokenize(text: str) -> list[str]:
  """Lower-case Penn Treebank tokens of one line of text."""
  for entity, value in _ENTITIES.items():
    text = text.replace(entity, value)
  text = "".join(c if c < "\x7f" else _prepare(c) for c in text)
  tokens, at = [], 0
  while True:
    while at < len(text) and text[at].isspace():
      at += 1
    if at == len(text):
      return tokens
    token = _longest(text, at)
    at += len(token)
    tokens.append(_written(token))


def _longest(text: str, at: int) -> str:
  """The token at a place: the longest match, what it looks ahead included."""
  best, reach = "", 0
  for rule in _RULES:
    found = rule.match(text, at)
    if found and found.end() > at and found.end() - at > reach:
      best = found.group(found.lastindex or 0)
      reach = found.end() - at
  return best


def _written(token: str) -> str:
  """A token as the original writes it."""
  token = _SPACE.sub("\xa0", token.lower())
  if token in _WRITTEN:
    return _WRITTEN[token]
  if set(token) == {"."}:
    return "..." if len(token) > 2 else token
  token = _ENDING.sub(lambda m: m[0].replace("\u2019", "'"), token)
  return token.replace("(", "-lrb-").replace(")", "-rrb-")


def caption(text: str) -> str:
  """Tokens of a caption joined by spaces, as caption scores expect it."""
  kept = [t for t in tokenize(text) if t not in PUNCTUATION]
  return " ".join(kept)
