"""Builds the drawn image set from four npm packages.

  npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 \\
    @lobehub/fluent-emoji-3d@1.1.0 unicode-emoji-json@0.9.0
  python mmjax/data/assets/drawn/build.py DIRECTORY_OF_THE_FOUR_TGZ

Writes `images.tar` and `concepts.jsonl` beside this file. The same packages
and the same Pillow give the same bytes. See NOTICE.md for the licences.
"""

import argparse
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGES = {
  "emoji-datasource-google-16.0.0.tgz": (
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
  ),
  "emoji-datasource-twitter-16.0.0.tgz": (
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"
  ),
  "lobehub-fluent-emoji-3d-1.1.0.tgz": (
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
  ),
  "unicode-emoji-json-0.9.0.tgz": (
    "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401"
  ),
}
STYLES = ("noto", "fluent", "twemoji")
SIZE = 64
HELD_OUT = 0.15
# Two drawings of one style whose mean |difference| (0..255) is below this are
# the same thing under two names (the flags of Norway and Bouvet Island).
SAME = 1.5
MAN, WOMAN, PERSON = "1f468", "1f469", "1f9d1"


def read(path: Path, prefix: str) -> dict[str, bytes]:
  """Members of a package under a prefix, by file name; checks its hash."""
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  if digest != PACKAGES[path.name]:
    raise ValueError(
      f"{path} has sha256 {digest}, expected {PACKAGES[path.name]}."
    )
  with tarfile.open(path) as tar:
    return {
      Path(m.name).name: tar.extractfile(m).read()
      for m in tar
      if m.isfile() and m.name.startswith(f"package/{prefix}")
    }


def on_white(data: bytes) -> Image.Image:
  """Decoded, made square, at SIZE, alpha composited on white."""
  image = Image.open(io.BytesIO(data)).convert("RGBA")
  if image.size != (SIZE, SIZE):
    side = max(image.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    image = square.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
  white = Image.new("RGBA", image.size, (255, 255, 255, 255))
  return Image.alpha_composite(white, image).convert("RGB")


def concepts(folder: Path) -> tuple[list[dict], list[dict[str, Image.Image]]]:
  """What all three styles have, in Unicode's order, and its pictures."""
  google, twitter, fluent, names = (folder / name for name in PACKAGES)
  rows = json.loads(read(google, "emoji.json")["emoji.json"])
  named = json.loads(read(names, "data-by-")["data-by-emoji.json"])
  noto = read(google, "img/google/64/")
  twemoji = read(twitter, "img/twitter/64/")
  fluent = read(fluent, "assets/")
  found, pictures = [], []
  for row in sorted(rows, key=lambda r: r["sort_order"]):
    code = row["unified"].lower()
    short = code.replace("-fe0f", "")
    three_d = fluent.get(f"{code}.webp") or fluent.get(f"{short}.webp")
    if not three_d or row["category"] == "Component":
      continue
    if row["image"] not in noto or row["image"] not in twemoji:
      continue
    character = "".join(chr(int(c, 16)) for c in code.split("-"))
    found.append(
      {
        "id": code,
        "name": named[character]["name"].replace("’", "'").lower(),
        "category": row["category"].lower().replace(" & ", " and "),
        "subcategory": plain(row["subcategory"]),
      }
    )
    drawn = (noto[row["image"]], three_d, twemoji[row["image"]])
    pictures.append(dict(zip(STYLES, map(on_white, drawn))))
  return found, pictures


def plain(name: str) -> str:
  """`light & video` -> `light and video`, `face-smiling` -> `face smiling`."""
  return name.lower().replace("&", "and").replace("-", " ")


def families(rows: list[dict], pictures: list[dict]) -> list[str]:
  """One key for the concepts that may not be on both sides of the split.

  These are variants of one thing by gender or direction, and things that one
  of the styles draws alike.
  """
  keys = []
  for row in rows:
    parts = row["id"].replace("-fe0f", "").split("-200d-")
    parts = [p for p in parts if p not in ("2640", "2642", "27a1")]
    keys.append("+".join(PERSON if p in (MAN, WOMAN) else p for p in parts))
  for style in STYLES:
    stack = np.stack([np.asarray(p[style], np.int16).ravel() for p in pictures])
    for i in range(len(keys)):
      distance = np.abs(stack[i + 1 :] - stack[i]).mean(axis=1)
      for j in np.flatnonzero(distance < SAME) + i + 1:
        keys = [keys[i] if key == keys[j] else key for key in keys]
  return keys


def split(rows: list[dict], keys: list[str]) -> None:
  """Sets `split`: about 15 % of every subcategory is held out, by family."""
  groups: dict[str, dict[str, list[dict]]] = {}
  owner: dict[str, str] = {}
  for row, key in zip(rows, keys):
    subcategory = owner.setdefault(key, row["subcategory"])
    groups.setdefault(subcategory, {}).setdefault(key, []).append(row)
  for subcategory, by_key in groups.items():
    members = sum(map(len, by_key.values()))
    target = max(1, round(HELD_OUT * members)) if members >= 4 else 0

    def order(key, subcategory=subcategory):
      return hashlib.sha256(f"{subcategory}/{key}".encode()).hexdigest()

    held = 0
    for key in sorted(by_key, key=order):
      size = len(by_key[key])
      take = held + size <= target
      held += size * take
      for row in by_key[key]:
        row["split"] = "held_out" if take else "train"
    if target and not held:
      for row in min(by_key.values(), key=len):
        row["split"] = "held_out"


def write(folder: Path, rows: list[dict], pictures: list[dict]) -> None:
  with open(folder / "concepts.jsonl", "w") as f:
    f.writelines(json.dumps(row) + "\n" for row in rows)
  with tarfile.open(folder / "images.tar", "w", tarfile.USTAR_FORMAT) as tar:
    for style in STYLES:
      for row, picture in zip(rows, pictures):
        data = io.BytesIO()
        picture[style].save(data, "WEBP", quality=90, method=6)
        info = tarfile.TarInfo(f"{style}/{row['id']}.webp")
        info.size = data.tell()
        data.seek(0)
        tar.addfile(info, data)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("packages", type=Path, help="folder of the .tgz files")
  folder = parser.parse_args().packages
  rows, pictures = concepts(folder)
  split(rows, families(rows, pictures))
  write(Path(__file__).parent, rows, pictures)
  held = sum(row["split"] == "held_out" for row in rows)
  print(f"{len(rows)} concepts, {held} held out, {len(STYLES)} styles")


if __name__ == "__main__":
  main()
