"""The paper's recipes read what they say lies below $MMJAX_DATA."""

import base64
import io
import json
import tarfile

import pyarrow
import pytest
import tokenizers
from pyarrow import parquet

from configs.flamingo import baseline_3b, open_flamingo
from mmjax.data import build as data
from mmjax.text.tokenizer import DRAWN
from mmjax.training.sources import make_tokenizer
from tests.data.pictures import encode, photo
from tests.data.test_video import clip

CAPTION = b"a red kite and a dog"
# Not too small for the filters of interleaved pages.
PICTURE = encode(photo(200, 300))


def write_tar(path, members):
  path.parent.mkdir()
  with tarfile.open(path, "w") as file:
    for name, content in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      file.addfile(info, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path, monkeypatch):
  backend = tokenizers.Tokenizer.from_file(str(DRAWN))
  backend.add_special_tokens(["<|endoftext|>"])
  backend.save(str(tmp_path / "tokenizer.json"))
  for name in ("align", "ltip", "laion"):
    pair = {"0.png": PICTURE, "0.txt": CAPTION}
    write_tar(tmp_path / name / "0.tar", pair)
  write_tar(tmp_path / "vtp" / "0.tar", {"0.mp4": clip(), "0.txt": CAPTION})
  # Of pages with one picture a half is left out.
  pictures = [
    {
      "image_name": f"{i}.png",
      "image_base64": base64.b64encode(PICTURE).decode(),
      "matched_text_index": i,
      "matched_sim": 0.9,
    }
    for i in range(2)
  ]
  page = {
    "text_list": ["a red kite", "a dog"],
    "image_info": pictures,
    "similarity_matrix": [[0.9, 0.1], [0.1, 0.9]],
  }
  write_tar(tmp_path / "mmc4" / "0.tar", {"0.json": json.dumps(page).encode()})
  rows = {"images": [[PICTURE, None]], "texts": [[None, "a red kite"]]}
  (tmp_path / "m3w").mkdir()
  parquet.write_table(pyarrow.table(rows), tmp_path / "m3w" / "0.parquet")
  monkeypatch.setenv("MMJAX_DATA", str(tmp_path))


@pytest.mark.parametrize(
  "make",
  [baseline_3b.get_config, open_flamingo.get_config],
  ids=["baseline", "open_flamingo"],
)
def test_a_batch_of_every_dataset(folder, make):
  config = make()
  for entry in config.data.datasets.values():
    entry.batch = 1
  tokenizer = make_tokenizer(data.plain(config.tokenizer))
  with data.batches(config.data, tokenizer) as batches:
    batch = next(batches)
    assert set(batch) == set(config.data.datasets)
    assert not any(batches.bad.values())
  for name, part in batch.items():
    assert part["weights"].any(), name
