"""Small packages in the form of the real ones, and a set of made-up items."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

OBJ = b"v 0 0 0\nv 1 0 0\nv 0 3 0\nv 0 0 1\nf 1 2 3\nf 1 3 4\n"
CATALOG = """# a comment
name=Catalog
id#1=Kator Legaz#door
name#1=Screen door
tags#1=SCPTS, Front
category#1=Exterior
icon#1=/k/door.png
model#1=/k/door.obj
width#1=40
depth#1=2.5
height#1=90
creator#1=K L
modelRotation#1=1 0 0 0 0 1 0 -1 0

id#2=Kator Legaz#bill
name#2=Bill 10\\u20ac
tags#2=
category#2=Office
icon#2=/k/door.png
model#2=/k/door.obj
width#2=40
depth#2=2.5
height#2=1
creator#2=K L
"""


def wav(seconds: float = 0.5, format: str = "WAV") -> bytes:
  data = io.BytesIO()
  soundfile.write(data, np.zeros(int(8000 * seconds)), 8000, format=format)
  return data.getvalue()


def png() -> bytes:
  data = io.BytesIO()
  Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(data, "PNG")
  return data.getvalue()


def animation(frames: int) -> bytes:
  data = io.BytesIO()
  first, *rest = (
    Image.new("RGBA", (32, 32), (0, 0, 40 * i, 255)) for i in range(frames)
  )
  more = dict(save_all=True, append_images=rest, duration=40) if rest else {}
  first.save(data, "WEBP", lossless=True, **more)
  return data.getvalue()


def catalog() -> bytes:
  data = io.BytesIO()
  with zipfile.ZipFile(data, "w") as file:
    file.writestr("PluginFurnitureCatalog.properties", CATALOG)
    file.writestr("k/door.obj", OBJ)
    file.writestr("k/door.png", png())
  return data.getvalue()


TEXTS = b"""; a comment

digits/1: one
hello: Hello, world!
conf-hello: hello world
beep: [this is a beep]
"""
SOUNDS = "usr/share/asterisk/sounds/en_US_f_Allison/"
DOC = "usr/share/doc/asterisk-core-sounds-en/"
SAMPLES = "usr/share/sonic-pi/samples/"
CONTENTS = {
  "speech": {
    "sounds": {
      f"{SOUNDS}{name}.wav": wav()
      for name in ("digits/1", "hello", "conf-hello", "beep")
    },
    "transcripts": {
      f"{DOC}core-sounds-en.txt.gz": gzip.compress(TEXTS),
      f"{DOC}copyright": b"CC-BY-SA",
    },
  },
  "sounds": {
    "samples": {
      "usr/share/doc/sonic-pi-samples/copyright": b"CC0",
      f"{SAMPLES}README.md": b"CC0",
      f"{SAMPLES}drum_tom_lo_hard.flac": wav(0.1, "FLAC"),
      f"{SAMPLES}perc_bell2.flac": wav(3, "FLAC"),
    }
  },
  "animated": {
    f"pictures_{i}": {
      "package/README.md": b"MIT",
      "package/package.json": b"{}",
      **{f"package/assets/{name}.webp": data for name, data in found.items()},
    }
    for i, found in enumerate(
      (
        {"1f3c3": animation(5), "1f3c3-1f3fd": animation(5)},
        {"1f600": animation(4), "1f601": animation(1)},
        {},
        {},
      ),
      1,
    )
  },
  "furniture": {
    "models": {
      "usr/share/doc/sweethome3d-furniture/copyright": b"CC-BY",
      "usr/share/sweethome3d/furniture/K.sh3f": catalog(),
    }
  },
}


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
  with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as file:
    for name, data in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      file.addfile(info, io.BytesIO(data))
  return path


def item(number: int, kind: str, category: str, split: str, **more) -> dict:
  return {
    "id": f"{kind}/{number}",
    "file": f"{kind}/{number}.bin",
    "kind": kind,
    "name": f"thing {number}",
    "category": category,
    "caption": f"{category}: thing {number}",
    "split": split,
    "object": str(number),
    "attributes": {"shape": ("low", "tall")[number % 2], "tags": [], **more},
  }


def make_set(folder: Path, kinds=("points", "image")) -> str:
  """Twelve things of three categories, four of them held out."""
  folder.mkdir()
  rows = [
    item(i, kind, ("bed", "lamp", "vase")[i % 3], split)
    for i, split in enumerate(["train"] * 8 + ["held_out"] * 4)
    for kind in kinds
  ]
  lines = [json.dumps(row) for row in rows]
  (folder / "items.jsonl").write_text("\n".join(lines))
  return str(folder)
