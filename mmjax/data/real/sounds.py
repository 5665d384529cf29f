"""The samples of Sonic Pi: drums, notes, loops and effects."""

import re
from collections.abc import Iterator, Mapping

from mmjax.data.real.duration import look
from mmjax.data.real.item import Archive, Item, Package, RealSet

VERSION = "3.2.2~repack-8"
_SAMPLES = "usr/share/sonic-pi/samples/"
_DOC = "usr/share/doc/sonic-pi-samples/copyright"
# How a file's name begins, to its category, and to how its name and caption
# are made of the words behind.
CATEGORIES = {
  "ambi": ("ambient", "{}", "an ambient sound"),
  "bass": ("bass", "{} bass", "a note of a bass"),
  "bd": ("bass drum", "{} bass drum", "a beat of a bass drum"),
  "drum": ("drums", "{}", "a drum kit"),
  "elec": ("electronic", "electronic {}", "an electronic sound"),
  "glitch": ("glitch", "{} glitch", "a digital fault"),
  "guit": ("guitar", "guitar {}", "an electric guitar"),
  "loop": ("loop", "{} loop", "a rhythm that repeats"),
  "mehackit": ("machine", "{} noise", "a machine"),
  "misc": ("effect", "{}", "a sound effect"),
  "perc": ("percussion", "{}", "a percussion sound"),
  "sn": ("snare drum", "{} snare drum", "a beat of a snare drum"),
  "tabla": ("tabla", "tabla {}", "a stroke on a tabla"),
  "vinyl": ("record player", "record {}", "a record player"),
}
# Words that are shortened in the files' names, and whole names.
WORDS = {
  "lo": "low",
  "hi": "high",
  "filt": "filtered",
  "perc": "percussion",
  "haus": "house",
  "klub": "club",
  "tek": "techno",
  "voxy": "voice like",
  "compus": "computer",
  "cineboom": "cinema boom",
  "till": "cash till",
}
NAMES = {
  "bass_dnb": "drum and bass",
  "drum_bass": "bass drum",
  "drum_roll": "drum roll",
  "guit_e_fifths": "guitar fifths",
  "guit_e_slide": "guitar slide",
  "guit_em": "guitar minor chord",
  "loop_drone_g": "drone loop",
}
# Of a drum; how hard it is struck is no part of its name.
_FIRST = ("low", "mid", "high", "open", "closed", "pedal")
_STRENGTHS = ("soft", "hard")
# A version, and the note of a bass, at the end of a file's name.
_VERSION, _NOTE = re.compile(r"_?\d+$"), re.compile(r"_[a-g]$")


def items(archives: Mapping[str, Archive]) -> Iterator[Item]:
  samples = archives["samples"]
  for path in samples.names(_SAMPLES, ".flac"):
    key = path.removeprefix(_SAMPLES).removesuffix(".flac")
    category, name, caption, strength = described(key)
    struck = {"strength": strength} if strength else {}
    yield Item(
      id=key,
      file=f"audio/{key}.flac",
      kind="audio",
      name=name,
      category=category,
      caption=caption,
      make=lambda path=path: samples.read(path),
      look=look,
      attributes={"voice": "none", **struck},
    )


def described(key: str) -> tuple[str, str, str, str]:
  """Category, name, caption and strength of a file.

  drum_tom_lo_hard  ->  "drums", "low tom", "a drum kit: low tom", "hard"
  perc_bell2        ->  "percussion", "bell", "a percussion sound: bell", ""
  """
  start = key.partition("_")[0]
  category, form, opening = CATEGORIES[start]
  key = key if key == "bd_808" else _VERSION.sub("", key)
  key = _NOTE.sub("", key) if start in ("bass", "glitch") else key
  before, _, last = key.rpartition("_")
  strength = last if start == "drum" and last in _STRENGTHS else ""
  key = before if strength else key
  words = [WORDS.get(word, word) for word in key.split("_")[1:]]
  words.sort(key=lambda word: word not in _FIRST)
  name = NAMES.get(key, form.format(" ".join(words)))
  return category, name, f"{opening}: {name}", strength


SOUNDS = RealSet(
  packages={
    "samples": Package(
      *("apt", "sonic-pi-samples", VERSION),
      f"sonic-pi-samples_{VERSION}_all.deb",
      "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
    )
  },
  items=items,
  licenses={"samples": (_DOC, f"{_SAMPLES}README.md")},
  notice="""# Samples of sounds

The samples of Sonic Pi, which come from freesound.org. Their README says that
all are in the public domain (CC0-1.0) and names the origin of each; Debian's
copyright file lists most of them one by one. Both are in `licenses/`.

The sound files are unchanged. Names and captions are mmjax's, made of the
files' names; so are categories and the split.
""",
)
