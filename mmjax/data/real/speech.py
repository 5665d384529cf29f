"""Prompts of the Asterisk telephone system: one voice, 8 kHz."""

import gzip
import re
from collections.abc import Iterator, Mapping

from mmjax.data.document import BadSample
from mmjax.data.real.duration import look
from mmjax.data.real.item import Archive, Item, Package, RealSet

VERSION = "1.6.1-1"
_SOUNDS = "usr/share/asterisk/sounds/en_US_f_Allison/"
_DOC = "usr/share/doc/asterisk-core-sounds-en/"
# How a file's name begins, to what it is for. The first that fits counts.
CATEGORIES = (
  ("digits/", "numbers and dates"),
  ("letters/", "letters"),
  ("phonetic/", "spelling words"),
  ("silence/", "silence"),
  ("vm-", "voice mail"),
  ("conf", "conference"),
  ("spy-", "listening in"),
  ("dir-", "directory"),
  ("queue-", "waiting line"),
  ("dictate/", "dictation"),
  ("demo-", "demonstration"),
)
_OTHER = "other prompts"
# What stands in brackets, where nothing is said.
_UNSPOKEN = re.compile(r"[\[(](?:this is an? )?(.+)[\])]")


def items(archives: Mapping[str, Archive]) -> Iterator[Item]:
  sounds, texts = archives["sounds"], transcripts(archives["transcripts"])
  for path in sounds.names(_SOUNDS, ".wav"):
    key = path.removeprefix(_SOUNDS).removesuffix(".wav")
    if key not in texts:
      raise BadSample(f"{path} has no transcript.")
    unspoken = _UNSPOKEN.fullmatch(texts[key])
    said = "" if unspoken else texts[key]
    name = plain(unspoken[1] if unspoken else said)
    yield Item(
      id=key,
      file=f"audio/{key}.wav",
      kind="audio",
      name=name,
      category=category(key, not unspoken),
      caption=f"a woman says: {name}" if said else name,
      make=lambda path=path: sounds.read(path),
      look=look,
      attributes={"transcript": said, "voice": "speech" if said else "none"},
    )


def transcripts(archive: Archive) -> dict[str, str]:
  """File to text; `; comments` and empty lines are left out."""
  data = gzip.decompress(archive.read(f"{_DOC}core-sounds-en.txt.gz"))
  lines = [line.strip() for line in data.decode().splitlines()]
  pairs = [line.partition(":") for line in lines if line and line[0] != ";"]
  return {key.strip(): text.strip() for key, _, text in pairs}


def category(key: str, spoken: bool) -> str:
  for start, found in CATEGORIES:
    if key.startswith(start):
      return found
  return _OTHER if spoken else "tones and noises"


def plain(text: str) -> str:
  """Words in lower case: `Press 1, please...` -> `press 1 please`.

  What `[.]` adds to `dot` is left out.
  """
  text = re.sub(r"\[.*?\]", " ", text.lower())
  return " ".join(re.findall(r"[\w'#*@]+", text))


SPEECH = RealSet(
  packages={
    "sounds": Package(
      *("apt", "asterisk-core-sounds-en-wav", VERSION),
      f"asterisk-core-sounds-en-wav_{VERSION}_all.deb",
      "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
    ),
    "transcripts": Package(
      *("apt", "asterisk-core-sounds-en", VERSION),
      f"asterisk-core-sounds-en_{VERSION}_all.deb",
      "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    ),
  },
  items=items,
  licenses={"transcripts": (f"{_DOC}copyright",)},
  notice="""# Spoken prompts

Sounds and transcripts of Asterisk's core sounds in English, read by Allison
Smith; financial contributions by Digium, Inc. Licence: CC-BY-SA-3.0, whose
text is in `licenses/`. What is made of this set may have to be shared under
the same licence.

The sound files are unchanged. Names (words in lower case), categories and the
split are mmjax's.
""",
)
