"""Folders of transformers 4, read and written.

It and transformers 5 cannot be in one process. Name a folder that has it:

  pip install --no-deps --target DIR transformers==4.46.3 tokenizers==0.20.3 \\
    huggingface_hub==0.26.5
  MMJAX_TRANSFORMERS_4=DIR pytest tests/llava/test_transformers_4.py
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from transformers import LlavaConfig

from mmjax.cli.convert import convert
from tests.llava import hugging_face as hf

PLACE = os.environ.get("MMJAX_TRANSFORMERS_4", "")
ROWS = [(3, 9, 4, 0, 7, 0, 8), (5, 0, 6, 11)]

pytestmark = pytest.mark.skipif(
  not PLACE, reason="MMJAX_TRANSFORMERS_4 names no folder with transformers 4"
)


def run(*arguments):
  paths = os.pathsep.join([PLACE, str(Path.cwd())])
  subprocess.run(
    [sys.executable, "-m", "tests.llava.transformers_4", *map(str, arguments)],
    check=True,
    env=os.environ | {"PYTHONPATH": paths},
  )


def test_there_and_back(tmp_path):
  """A file of 4 is read, and 4 reads what is written, tower and all."""
  run("make", tmp_path / "hf")
  module, params = hf.converted(tmp_path / "hf", tmp_path / "jax")
  config = LlavaConfig.from_pretrained(tmp_path / "hf")
  given, batch = hf.prompts(config, ROWS)
  file = tmp_path / "given.npz"
  np.savez(file, **{k: v.numpy() for k, v in given.items()})
  found = jax.jit(module.apply)({"params": params}, batch).logits
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  real = batch["segments"] > 0
  for folder in ("hf", "back"):
    run("logits", tmp_path / folder, file)
    expected = np.load(f"{file}.logits.npy", allow_pickle=False)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
      np.asarray(found)[real], expected[real], atol=1e-4 * scale, rtol=0
    )
